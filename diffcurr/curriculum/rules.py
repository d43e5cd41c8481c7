"""Rules: how densely each cluster is drawn at the next step, from what the last one saw.

A rule is arithmetic on a few scalars, so it runs on the device inside the compiled train step: its state goes in and
comes out, and no decision waits for the host. Its weights are relative to the process's own training distribution:
1 everywhere is training without a curriculum, 0 leaves a cluster out.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffcurr import ranges

ORDERS = ("easy_to_hard", "hard_to_easy", "random", "none")


class Seen(NamedTuple):
    """What one step saw; each is a mean or a sum over the global batch, so that every process decides the same.

    Attributes:
      loss: mean training loss; all that the paper's rules need, so that a trainer may leave the others out.
      cluster_loss: float [N]: sum of the training losses of the examples in each cluster.
      cluster_noise_error: float [N]: sum of the mean squared errors of the noise of the examples in each cluster.
      cluster_count: float [N]: number of examples in each cluster.
    """

    loss: Float[Array, ""]
    cluster_loss: Any = None
    cluster_noise_error: Any = None
    cluster_count: Any = None


class Rule(ranges.Checked, abc.ABC):
    """What every rule has. Its settings are static, part of the compiled program; its state is a pytree of arrays."""

    DERIVED: ClassVar = ("clusters", "seed")

    @abc.abstractmethod
    def init(self) -> Any:
        """The state before the first step."""

    @abc.abstractmethod
    def weights(self, state: Any) -> Float[Array, " cluster"]:
        """How densely each cluster is drawn at the next step; index 0 is the hardest cluster."""

    @abc.abstractmethod
    def update(self, state: Any, seen: Seen) -> Any:
        """The state after a step."""

    @property
    def num_stages(self) -> int:
        """Number of stages, for a rule that has them; in the last one every cluster is active."""
        return 1

    def stage(self, state: Any) -> Int[Array, ""]:
        """The number of the stage, from 1."""
        del state
        return jnp.ones((), jnp.int32)


class StagesState(NamedTuple):
    """Where the curriculum stands; a pytree of scalars.

    Attributes:
      stage: stage number, 1..num_stages.
      best: best (smoothed) loss so far; infinite at the start and after a reset.
      stale: with `patience`, consecutive steps without improvement; with `fixed`, steps in this stage.
      smoothed: moving average of the loss.
    """

    stage: Int[Array, ""]
    best: Float[Array, ""]
    stale: Int[Array, ""]
    smoothed: Float[Array, ""]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stages(Rule):
    """The paper's curriculum: clusters enter one after another, one a stage.

    Attributes:
      clusters: number of clusters N.
      order: `easy_to_hard` (the paper: cluster N first), `hard_to_easy`, `random` (by the seed), or `none` (no
        curriculum: one stage, every cluster active).
      accumulate: earlier clusters stay active. Otherwise each stage trains its one cluster, and a last stage all.
      seed: seed of the random order.
    """

    clusters: ranges.Few = 20
    order: Annotated[str, ranges.OneOf(ORDERS)] = "easy_to_hard"
    accumulate: bool = True
    seed: ranges.Seed = 0

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
        if self.order == "none":
            return 1
        return self.clusters if self.accumulate else self.clusters + 1

    def stage(self, state: StagesState) -> Int[Array, ""]:
        return state.stage

    def init(self) -> StagesState:
        return StagesState(
            stage=jnp.ones((), jnp.int32),
            best=jnp.full((), jnp.inf, jnp.float32),
            stale=jnp.zeros((), jnp.int32),
            smoothed=jnp.zeros((), jnp.float32),
        )

    def weights(self, state: StagesState) -> Float[Array, " cluster"]:
        entry_stage = jnp.asarray(self.entry_stage, jnp.int32)
        entered = entry_stage <= state.stage if self.accumulate else entry_stage == state.stage
        return (entered | (state.stage >= self.num_stages)).astype(jnp.float32)


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
        if lengths.size not in (1, self.num_stages - 1):
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


RULES: dict[str, type[Rule]] = {"patience": Patience, "fixed": Fixed}
"""`curriculum.name` in a config -> the class."""
