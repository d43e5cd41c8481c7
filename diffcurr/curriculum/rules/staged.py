"""Any rule, combined with the paper's stages."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from diffcurr.curriculum.levels import Levels
from diffcurr.curriculum.rules.base import Rule, Seen
from diffcurr.curriculum.rules.stages import Stages


class StagedState(NamedTuple):
    """The states of the rule and of the stages.

    Attributes:
      rule: state of the rule.
      stages: state of the stages.
    """

    rule: Any
    stages: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Staged(Rule):
    """The weights of a rule in the clusters that the stages have made active, 0 in the others.

    Attributes:
      rule: how densely the active clusters are drawn.
      stages: which clusters are active.
    """

    rule: Rule
    stages: Stages

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule.num_stages > 1 or isinstance(self.rule, Stages):
            raise ValueError(f"stages: the rule {type(self.rule).__name__} has stages itself; give stages = none")

    def on(self, levels: Levels) -> "Staged":
        fitted = Staged(rule=self.rule.on(levels), stages=self.stages)
        weights, entry = np.asarray(fitted.rule.weights(fitted.rule.init())), self.stages.entry_stage
        if self.stages.accumulate and not np.any(weights[entry == 1] > 0):
            raise ValueError("stages: the rule gives no weight to any cluster of the first stage")
        never = np.flatnonzero(weights <= 0) + 1
        if not self.stages.accumulate and len(never):
            raise ValueError(
                f"stages: accumulate = False trains each cluster alone, and the rule gives no weight to clusters "
                f"{', '.join(map(str, never))}"
            )
        return fitted

    def init(self) -> StagedState:
        return StagedState(self.rule.init(), self.stages.init())

    def weights(self, state: StagedState) -> Float[Array, " cluster"]:
        return self.rule.weights(state.rule) * self.stages.weights(state.stages)

    def factors(self, state: StagedState) -> Float[Array, " cluster"] | None:
        return self.rule.factors(state.rule)

    def update(self, state: StagedState, seen: Seen) -> StagedState:
        return StagedState(self.rule.update(state.rule, seen), self.stages.update(state.stages, seen))

    @property
    def num_stages(self) -> int:
        return self.stages.num_stages

    def stage(self, state: StagedState) -> Int[Array, ""]:
        return self.stages.stage(state.stages)
