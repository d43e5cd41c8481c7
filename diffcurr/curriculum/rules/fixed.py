"""Stages of given lengths."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from diffcurr import ranges
from diffcurr.curriculum.rules.base import Seen
from diffcurr.curriculum.rules.stages import Stages, StagesState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fixed(Stages):
    """The next stage begins after a fixed number of steps.

    Attributes:
      steps_per_stage: length of a stage: one number for all stages, or one for each stage before the last.
    """

    steps_per_stage: ranges.Steps | Sequence[ranges.Steps] = (1000,)

    def __post_init__(self) -> None:
        super().__post_init__()
        lengths = np.atleast_1d(np.asarray(self.steps_per_stage))
        object.__setattr__(self, "steps_per_stage", tuple(lengths.tolist()))  # hashable
        if lengths.size not in (1, self.num_stages - 1) or not lengths.size:
            raise ValueError(
                f"steps_per_stage = {self.steps_per_stage}: give one number, or one for each of the "
                f"{self.num_stages - 1} stages before the last"
            )

    def update(self, state: StagesState, seen: Seen) -> StagesState:
        lengths = np.broadcast_to(np.asarray(self.steps_per_stage, np.int32), (max(self.num_stages - 1, 1),))
        stale = state.stale + 1
        due = stale >= jnp.asarray(lengths)[jnp.minimum(state.stage, len(lengths)) - 1]
        advance = due & (state.stage < self.num_stages)
        loss = jnp.asarray(seen.loss, jnp.float32)
        return StagesState(
            stage=state.stage + advance.astype(jnp.int32),
            best=jnp.where(advance, jnp.inf, jnp.minimum(state.best, loss)),
            stale=jnp.where(advance, 0, stale).astype(jnp.int32),
            smoothed=loss,
        )
