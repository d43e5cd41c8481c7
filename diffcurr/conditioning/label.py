"""Class-conditional: the network is told the class of each example."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from diffcurr import ranges
from diffcurr.conditioning.base import Condition, Conditioning, Field, Wish, in_turn
from diffcurr.errors import UserError

MOST_COLUMNS = 20  # of a grid with one column for each class


@dataclasses.dataclass(frozen=True, kw_only=True)
class Class(Conditioning):
    """{"label": int [B]} in 0..K, where K stands for "no class".

    Attributes:
      dropout: the share of labels that training replaces by "no class", to learn what guidance needs.
    """

    dropout: ranges.ShareBelowOne = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.num_classes:
            raise ValueError("name = 'class': the data set has no classes; choose none, or see dataset.classes")

    def spec(self) -> dict[str, Field]:
        return {"label": Field((), jnp.int32, self.num_classes, droppable=self.dropout > 0)}

    def of(self, examples: Mapping[str, Any]) -> Condition:
        labels = np.asarray(examples["label"], np.int32)
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise UserError(f"labels {labels.min()} to {labels.max()}: the data set's are 0 to {self.num_classes - 1}")
        return {"label": labels}

    def drop(self, condition: Condition, dropped: Bool[Array, " batch"]) -> Condition:
        return condition | {"label": jnp.where(dropped, self.num_classes, condition["label"])}

    def chosen(self, number: int, wanted: Wish = None) -> Condition:
        classes: list[Any] = list(range(self.num_classes)) if wanted is None else np.atleast_1d(wanted).tolist()
        texts = [label for label in classes if isinstance(label, str)]
        if texts:
            raise ValueError(f"prompt {texts[0]!r:.100}: the network is told classes, and no text")
        beyond = [label for label in classes if not 0 <= label < self.num_classes]
        if beyond or not len(classes):
            raise ValueError(f"classes {classes}: give some of 0..{self.num_classes - 1}")
        return {"label": in_turn(classes, number)}

    def captions(self, number: int, wanted: Wish = None) -> list[str]:
        return [str(label) for label in self.chosen(number, wanted)["label"]]

    def wanted(self, number: int) -> tuple[np.ndarray | None, Sequence[str]]:
        return self.chosen(number)["label"], ()

    @property
    def columns(self) -> int:
        return self.num_classes if self.num_classes <= MOST_COLUMNS else 0
