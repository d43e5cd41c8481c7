"""The paper's rule."""

import dataclasses

import jax.numpy as jnp

from diffcurr import ranges
from diffcurr.curriculum.rules.base import Seen
from diffcurr.curriculum.rules.stages import Stages, StagesState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience(Stages):
    """The paper's rule: the next stage begins once the loss has not improved for more than `patience` steps.

    Attributes:
      patience: the paper's tau, in consecutive steps.
      min_improvement: the share of the best loss by which a loss must undercut it to count as better.
      smoothing: weight of the past in an exponential moving average of the loss, in [0, 1); 0 is the loss per step.
      reset_best: forget the best loss when a stage begins. The loss rises as a harder cluster enters: without a
        reset every later stage ends after `patience` steps.
    """

    patience: ranges.Steps = 200
    min_improvement: ranges.ShareBelowOne = 0.0
    smoothing: ranges.ShareBelowOne = 0.0
    reset_best: bool = True

    def update(self, state: StagesState, seen: Seen) -> StagesState:
        loss = jnp.asarray(seen.loss, jnp.float32)
        nothing_seen = jnp.isinf(state.best)
        smoothed = jnp.where(nothing_seen, loss, self.smoothing * state.smoothed + (1.0 - self.smoothing) * loss)
        margin = jnp.where(nothing_seen, 0.0, self.min_improvement * jnp.abs(state.best))
        improved = smoothed < state.best - margin
        best = jnp.where(improved, smoothed, state.best)
        stale = jnp.where(improved, 0, state.stale + 1)
        advance = (stale > self.patience) & (state.stage < self.num_stages)
        return StagesState(
            stage=state.stage + advance.astype(jnp.int32),
            best=jnp.where(advance & self.reset_best, jnp.inf, best),
            stale=jnp.where(advance, 0, stale).astype(jnp.int32),
            smoothed=smoothed,
        )
