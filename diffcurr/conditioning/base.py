"""What a conditioning is."""

import abc
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Bool

from diffcurr import ranges

Condition = dict[str, Any]
"""What the network is told of each example, by name; opaque to the train step and to the samplers."""


Wish = int | str | Sequence[int] | Sequence[str] | None
"""What samples are wanted of: a class or a prompt, or several that are taken in turn; None to leave it open."""


class Field(NamedTuple):
    """One array of a condition, without the batch's axis.

    Attributes:
      shape: shape of one example.
      dtype: type of its values.
      num_classes: number K of classes where the field is a class label, else 0; the label K stands for "no class".
      droppable: whether "no class" occurs among class labels.
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

    Class attributes:
      reads_captions: whether it is told the captions of the data set, which must then have some.

    Attributes:
      num_classes: number of classes of the data set; 0 if it has none. It follows from the data set.
      prompts: gives captions of the data set, and the class of each, for samples that are wanted of none in particular.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("num_classes", "prompts")
    reads_captions: ClassVar[bool] = False
    num_classes: ranges.Classes = 0
    prompts: Callable[[], Mapping[str, int]] = dict

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

    @property
    def may_be_nothing(self) -> bool:
        """Whether training tells the network nothing at times, so that it can be told nothing afterwards."""
        return self.dropout > 0 or not self.spec()

    def nothing(self, number: int) -> Condition:
        """The condition without information, of so many examples."""
        return self.null({name: field.zeros(number) for name, field in self.spec().items()})

    @abc.abstractmethod
    def chosen(self, number: int, wanted: Wish = None) -> Condition:
        """Conditions of `number` samples, as NumPy arrays.

        Args:
          wanted: a class or a prompt, or several that are taken in turn; all classes, or captions of the data set, in
            turn if None.

        Raises:
          ValueError: if what is wanted cannot be had.
        """

    def captions(self, number: int, wanted: Wish = None) -> list[str]:
        """A few words for each of the samples that `chosen` has conditions of; empty if there is nothing to say."""
        del number, wanted
        return []

    def wanted(self, number: int) -> tuple[np.ndarray | None, Sequence[str]]:
        """(the class, if there are classes, the captions) of each sample that `chosen(number)` has conditions of."""
        return None, self.captions(number)

    def shown_captions(self, number: int, wanted: Wish = None) -> list[str]:
        """The captions that stand under pictures in a grid: none where its columns say it."""
        return [] if self.columns and wanted is None else self.captions(number, wanted)

    def recorded(self, number: int, wanted: Wish = None) -> dict[str, np.ndarray]:
        """What a file of samples says of the conditions that `chosen` gives, by name."""
        return self.chosen(number, wanted)

    def identity(self) -> dict[str, Any]:
        """What its conditions depend on beside the data and the config, as JSON values; kept with a run."""
        return {}

    def prepared(self, texts: Iterable[str], workdir: epath.Path, say: Callable[[int, int], None]) -> "Conditioning":
        """The conditioning, made ready to be told these captions again and again.

        Args:
          workdir: folder of the run, for what has to be kept.
          say: called with (captions that are ready, their number) on the way.
        """
        del texts, workdir, say
        return self

    def leading_away_from(self, negative: str) -> "Conditioning":
        """The conditioning whose `null` is this text, for guidance.

        Raises:
          ValueError: if it is told no text.
        """
        raise ValueError(f"negative prompt {negative!r:.100}: the network is told no text")

    def outlined(self) -> "Conditioning":
        """The conditioning for programs that are compiled and not run, where no weights need be."""
        return self

    @property
    def columns(self) -> int:
        """Columns of a grid of samples that puts like under like; 0 for as square as it gets."""
        return 0


def in_turn(values: Sequence[int], number: int) -> np.ndarray:
    """`number` of the values, one after another, again from the first after the last; int32."""
    return np.resize(np.asarray(values, np.int32), number)
