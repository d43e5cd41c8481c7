"""Fixed weights."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffcurr.curriculum.densities import Density, Uniform
from diffcurr.curriculum.levels import Levels
from diffcurr.curriculum.rules.base import Seen
from diffcurr.curriculum.rules.fitted import Fitted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hold(Fitted):
    """The same density at every step.

    Attributes:
      density: density of the noise levels that are drawn.
    """

    density: Density = Uniform()

    def on(self, levels: Levels) -> Fitted:
        self.density.weights(levels)  # which checks that it fits
        return super().on(levels)

    def init(self) -> tuple[()]:
        return ()

    def weights(self, state: Any) -> Float[Array, " cluster"]:
        return jnp.asarray(self.density.weights(self.known), jnp.float32)

    def update(self, state: Any, seen: Seen) -> tuple[()]:
        return ()
