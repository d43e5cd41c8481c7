"""One density after another."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffcurr import ranges
from diffcurr.curriculum import densities
from diffcurr.curriculum.levels import Levels
from diffcurr.curriculum.rules.base import Seen
from diffcurr.curriculum.rules.fitted import Fitted

STEPS = "steps"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule(Fitted):
    """Densities, each for a number of steps, the last one to the end.

    The default is curriculum sampling (arXiv 2603.12517): the middle of the noise levels first, then all alike.

    Attributes:
      phases: each is a density, {"name": ..., its settings}, with `steps`, its length; the last has none.
    """

    phases: Sequence[Mapping[str, Any]] = dataclasses.field(
        default=({"name": "log_normal", STEPS: 1000}, {"name": "uniform"}), hash=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.phases:
            raise ValueError("phases = (): give one density at least")
        for number, one in enumerate(self.phases, 1):
            settings = dict(one)
            steps, last = settings.pop(STEPS, None), number == len(self.phases)
            if not last and not ranges.fits(steps, ranges.Steps):
                raise ValueError(f"phase {number}: steps = {steps!r}: must be {ranges.describe(ranges.Steps)}")
            if last and steps is not None:
                raise ValueError(f"phase {number}: steps = {steps!r}: the last phase lasts to the end; leave it out")
            try:
                densities.named(settings)
            except ValueError as error:
                raise ValueError(f"phase {number}: {error}") from error

    @property
    def _parts(self) -> tuple[list[densities.Density], list[int]]:
        """(the densities, the step at which each but the first begins)."""
        settings = [dict(one) for one in self.phases]
        lengths = [one.pop(STEPS) for one in settings[:-1]]
        return [densities.named(one) for one in settings], list(itertools.accumulate(lengths))

    def on(self, levels: Levels) -> Fitted:
        for density in self._parts[0]:
            density.weights(levels)  # which checks that it fits
        return super().on(levels)

    def init(self) -> Int[Array, ""]:
        """Steps taken."""
        return jnp.zeros((), jnp.int32)

    def weights(self, state: Int[Array, ""]) -> Float[Array, " cluster"]:
        table = np.stack([density.weights(self.known) for density in self._parts[0]])
        return jnp.asarray(table, jnp.float32)[self.stage(state) - 1]

    def update(self, state: Int[Array, ""], seen: Seen) -> Int[Array, ""]:
        return state + 1

    @property
    def num_stages(self) -> int:
        return len(self.phases)

    def stage(self, state: Int[Array, ""]) -> Int[Array, ""]:
        begins = jnp.asarray(self._parts[1], jnp.int32)
        return 1 + jnp.sum(state >= begins, dtype=jnp.int32)
