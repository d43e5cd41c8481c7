"""The paper's stages: clusters enter one after another."""

import dataclasses
from typing import Annotated, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffcurr import ranges
from diffcurr.curriculum.rules.base import Rule, Seen

ORDERS = ("easy_to_hard", "hard_to_easy", "random", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoStages(Rule):
    """Every cluster is active at every step."""

    clusters: ranges.Few = 20
    seed: ranges.Seed = 0

    def init(self) -> tuple[()]:
        return ()

    def weights(self, state: tuple[()]) -> Float[Array, " cluster"]:
        return jnp.ones((self.clusters,), jnp.float32)

    def update(self, state: tuple[()], seen: Seen) -> tuple[()]:
        return ()


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
