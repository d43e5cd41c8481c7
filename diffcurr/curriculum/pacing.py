"""Pacing: which clusters are active now, and when the next one enters.

All of it is arithmetic on four scalars, so it runs on the device inside the compiled train step: the state goes in
and comes out, and no decision waits for the host.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

ORDERS = ("easy_to_hard", "hard_to_easy", "random", "none")
RULES = ("patience", "fixed")


@dataclasses.dataclass(frozen=True)
class PacingConfig:
    """When the curriculum moves on, and through which clusters. Static: part of the compiled program.

    Attributes:
      clusters: number of clusters N.
      order: `easy_to_hard` (the paper: cluster N first), `hard_to_easy`, `random` (by `seed`), or `none` (vanilla:
        one stage, every cluster active).
      pacing: `patience` moves on once the loss has not improved for more than `patience` consecutive steps;
        `fixed` after `steps_per_stage` steps.
      patience: the paper's tau, in steps.
      steps_per_stage: length of a stage with fixed pacing, in steps: one number for all stages or one for each
        stage before the last.
      min_improvement: the share of the best loss by which a loss must undercut it to count as better.
      smoothing: weight of the past in an exponential moving average of the loss, in [0, 1); 0 is the loss per step.
      reset_best: forget the best loss when a stage begins. The loss rises as a harder cluster enters: without a
        reset every later stage ends after `patience` steps.
      accumulate: earlier clusters stay active. Otherwise each stage trains its one cluster, and a last stage all.
      seed: of the random order.
    """

    clusters: int = 20
    order: str = "easy_to_hard"
    pacing: str = "patience"
    patience: int = 200
    steps_per_stage: int | Sequence[int] = 1000
    min_improvement: float = 0.0
    smoothing: float = 0.0
    reset_best: bool = True
    accumulate: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.clusters < 1:
            raise ValueError(f"clusters = {self.clusters}: there must be at least one cluster")
        if self.order not in ORDERS:
            raise ValueError(f"order = {self.order!r}: choose one of {', '.join(ORDERS)}")
        if self.pacing not in RULES:
            raise ValueError(f"pacing = {self.pacing!r}: choose one of {', '.join(RULES)}")
        if self.patience <= 0:
            raise ValueError(f"patience = {self.patience}: give a number of steps of at least 1")
        if not 0.0 <= self.smoothing < 1.0:
            raise ValueError(f"smoothing = {self.smoothing}: the weight of the past must lie in [0, 1)")
        if not 0.0 <= self.min_improvement < 1.0:
            raise ValueError(f"min_improvement = {self.min_improvement}: a share of the best loss must lie in [0, 1)")
        if isinstance(self.steps_per_stage, Sequence):
            object.__setattr__(self, "steps_per_stage", tuple(self.steps_per_stage))  # hashable
        lengths = np.atleast_1d(np.asarray(self.steps_per_stage))
        if np.any(lengths < 1):
            raise ValueError(f"steps_per_stage = {self.steps_per_stage}: a stage lasts at least one step")
        if self.pacing == "fixed" and lengths.size not in (1, self.num_stages - 1):
            raise ValueError(
                f"steps_per_stage = {self.steps_per_stage}: give one number, or one for each of the "
                f"{self.num_stages - 1} stages before the last"
            )

    @property
    def entry_stage(self) -> Int[np.ndarray, " cluster"]:
        """The stage (1-based) at which each cluster enters."""
        ascending = np.arange(1, self.clusters + 1)
        if self.order == "easy_to_hard":
            return ascending[::-1].copy()
        if self.order == "hard_to_easy":
            return ascending
        if self.order == "random":
            return np.random.default_rng(self.seed).permutation(ascending)
        return np.ones_like(ascending)

    @property
    def num_stages(self) -> int:
        """Number of stages; in the last one every cluster is active."""
        if self.order == "none":
            return 1
        return self.clusters if self.accumulate else self.clusters + 1


class PacingState(NamedTuple):
    """Where the curriculum stands; a pytree of scalars.

    Attributes:
      stage: stage number, 1..num_stages.
      best: best (smoothed) loss so far; infinite at the start and after a reset.
      stale: with patience pacing, consecutive steps without improvement; with fixed pacing, steps in this stage.
      smoothed: moving average of the loss.
    """

    stage: Int[Array, ""]
    best: Float[Array, ""]
    stale: Int[Array, ""]
    smoothed: Float[Array, ""]


def init(config: PacingConfig) -> PacingState:
    """The state before the first step: stage 1, nothing seen."""
    del config  # the same for every rule; an argument so that callers need not know that
    return PacingState(
        stage=jnp.ones((), jnp.int32),
        best=jnp.full((), jnp.inf, jnp.float32),
        stale=jnp.zeros((), jnp.int32),
        smoothed=jnp.zeros((), jnp.float32),
    )


def update(state: PacingState, loss: Float[Array, ""], config: PacingConfig) -> PacingState:
    """Takes the loss of one step (the mean over the global batch) into account; moves to the next stage when due."""
    loss = jnp.asarray(loss, jnp.float32)
    nothing_seen = jnp.isinf(state.best)
    smoothed = jnp.where(nothing_seen, loss, config.smoothing * state.smoothed + (1.0 - config.smoothing) * loss)
    margin = jnp.where(nothing_seen, 0.0, config.min_improvement * jnp.abs(state.best))
    improved = smoothed < state.best - margin
    best = jnp.where(improved, smoothed, state.best)

    if config.pacing == "patience":
        stale = jnp.where(improved, 0, state.stale + 1)
        due = stale > config.patience
    else:
        lengths = np.broadcast_to(np.asarray(config.steps_per_stage, np.int32), (max(config.num_stages - 1, 1),))
        stale = state.stale + 1
        due = stale >= jnp.asarray(lengths)[jnp.minimum(state.stage, len(lengths)) - 1]

    advance = due & (state.stage < config.num_stages)
    return PacingState(
        stage=state.stage + advance.astype(jnp.int32),
        best=jnp.where(advance & config.reset_best, jnp.inf, best),
        stale=jnp.where(advance, 0, stale).astype(jnp.int32),
        smoothed=smoothed,
    )


def active_clusters(state: PacingState, config: PacingConfig) -> Bool[Array, " cluster"]:
    """The mask for the next step: True where a cluster is active; index 0 is the hardest cluster."""
    entry_stage = jnp.asarray(config.entry_stage, jnp.int32)
    entered = entry_stage <= state.stage if config.accumulate else entry_stage == state.stage
    return entered | (state.stage >= config.num_stages)
