"""Rules that look at the noise levels of the clusters."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffcurr import ranges
from diffcurr.curriculum.levels import Levels
from diffcurr.curriculum.rules.base import Rule, Seen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted(Rule):
    """A rule that has to know the levels before it can give weights.

    Attributes:
      clusters: number of clusters N.
      levels: set by `on`.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("clusters", "seed", "levels")

    clusters: ranges.Few = 20
    seed: ranges.Seed = 0
    levels: Levels | None = dataclasses.field(default=None, compare=False, repr=False)

    def on(self, levels: Levels) -> "Fitted":
        if len(levels.widths) != self.clusters:
            raise ValueError(f"{len(levels.widths)} clusters: the rule was made for {self.clusters}")
        return dataclasses.replace(self, levels=levels)

    @property
    def known(self) -> Levels:
        """The levels.

        Raises:
          ValueError: before `on`.
        """
        if self.levels is None:
            raise ValueError(f"{type(self).__name__}: call on(levels) first")
        return self.levels

    def relative(self, density: Float[Array, " cluster"]) -> Float[Array, " cluster"]:
        """Weights whose mean over u is 1: the process draws as often in all as without them."""
        widths = jnp.asarray(self.known.widths, jnp.float32)
        return density / jnp.sum(density * widths)


def remembered(
    total: Float[Array, " cluster"], count: Float[Array, " cluster"], seen: Seen, memory: float
) -> tuple[Float[Array, " cluster"], Float[Array, " cluster"]]:
    """(sum of the errors of the noise, number of examples) of each cluster, the past fading with each example seen.

    Their quotient is a moving average over the last `memory` examples of each cluster, however rarely it is drawn.
    """
    keep = jnp.exp(-seen.cluster_count / np.float32(memory))
    return total * keep + seen.cluster_noise_error, count * keep + seen.cluster_count
