"""Unconditional: the network is told nothing."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Bool

from diffcurr.conditioning.base import Condition, Conditioning, Field, Wish


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nothing(Conditioning):
    """The empty condition."""

    def spec(self) -> dict[str, Field]:
        return {}

    def of(self, examples: Mapping[str, Any]) -> Condition:
        return {}

    def drop(self, condition: Condition, dropped: Bool[Array, " batch"]) -> Condition:
        return condition

    def chosen(self, number: int, wanted: Wish = None) -> Condition:
        if wanted is not None:
            what = "prompts" if isinstance(np.atleast_1d(wanted)[0], str) else "classes"
            raise ValueError(f"{what} {wanted!r:.100}: the network is unconditional")
        return {}
