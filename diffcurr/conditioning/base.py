"""What a conditioning is."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from diffcurr import ranges

Condition = dict[str, Any]
"""What the network is told of each example, by name; opaque to the train step and to the samplers."""


class Field(NamedTuple):
    """One array of a condition, without the batch's axis.

    Attributes:
      shape: shape of one example.
      dtype: type of its values.
      num_classes: for class labels, their number K; the label K stands for "no class".
      droppable: for class labels, whether "no class" occurs.
    """

    shape: tuple[int, ...]
    dtype: Any
    num_classes: int = 0
    droppable: bool = False

    def zeros(self, batch_size: int) -> Array:
        """A batch of zeros."""
        return jnp.zeros((batch_size, *self.shape), self.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditioning(ranges.Checked, abc.ABC):
    """Turns stored examples and wishes into conditions. It owns no parameters; those are the network's.

    Attributes:
      num_classes: number of classes of the data set; 0 if it has none. It follows from the data set.
    """

    DERIVED: ClassVar = ("num_classes",)
    num_classes: ranges.Classes = 0

    @property
    def dropout(self) -> float:
        """The share of examples that are trained without their condition, for guidance."""
        return 0.0

    @abc.abstractmethod
    def spec(self) -> dict[str, Field]:
        """The arrays of a condition."""

    @abc.abstractmethod
    def of(self, examples: Mapping[str, Any]) -> Condition:
        """What of a batch of stored examples, {"image", "label", ...}, the network is told."""

    @abc.abstractmethod
    def drop(self, condition: Condition, dropped: Bool[Array, " batch"]) -> Condition:
        """The condition, with that of some examples replaced by none (Ho & Salimans 2022)."""

    def null(self, condition: Condition) -> Condition:
        """The condition without information, of the same batch size."""
        if not condition:
            return condition
        first = next(iter(condition.values()))
        return self.drop(condition, jnp.ones(first.shape[0], bool))

    @abc.abstractmethod
    def chosen(self, number: int, wanted: int | Sequence[int] | None = None) -> Condition:
        """Conditions of `number` samples, as NumPy arrays.

        Args:
          wanted: a class, or several that are taken in turn; all in turn if None.

        Raises:
          ValueError: if what is wanted cannot be had.
        """

    def captions(self, condition: Condition) -> list[str]:
        """A word for each sample; empty if there is nothing to say."""
        del condition
        return []

    @property
    def columns(self) -> int:
        """Columns of a grid of samples that puts like under like; 0 for as square as it gets."""
        return 0


def in_turn(values: Sequence[int], number: int) -> np.ndarray:
    """`number` of the values, one after another, again from the first after the last; int32."""
    return np.resize(np.asarray(values, np.int32), number)
