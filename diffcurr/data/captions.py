"""Captions of examples: which texts can be one, which of them training sees, and how a source lists them.

A data set whose `captioned` is true has "captions" in each stored example, all of its captions. `Dataset.drawn` puts
one of them in their place at random, as "caption".
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from diffcurr.data.sources import fingerprint

ALL = "captions"
ONE = "caption"


class Captioned(Protocol):
    """A source that can list its captions."""

    def captions(self, of: Iterable[int] | None = None) -> list[str]:
        """Every caption, once, sorted. No picture is decoded.

        Args:
          of: numbers of the examples whose captions are wanted; None for those of all.
        """


def cleaned(text: str) -> str:
    """The text in one line, with single spaces.

    Raises:
      ValueError: if it is empty, or no text that can be stored.
    """
    text = " ".join(text.split())
    if not text:
        raise ValueError("an empty caption")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"the caption {text!r:.100}, which is no valid text")
    return text


def check(captions: Any) -> None:
    """Raises ValueError if these are not the captions of an example."""
    if not isinstance(captions, tuple) or not captions or not all(isinstance(one, str) for one in captions):
        raise ValueError(f"an example has captions {captions!r:.100}: must be a tuple of at least one text")
    for one in captions:
        if cleaned(one) != one:
            raise ValueError(f"an example has the caption {one!r:.100}: must be one line with single spaces")


def draw(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The example with one of its captions, as an array of no dimensions, which batches stack."""
    rest = {name: value for name, value in example.items() if name != ALL}
    captions = example[ALL]
    return rest | {ONE: np.asarray(captions[rng.integers(len(captions))])}


def listed(captions: Sequence[Sequence[str]], of: Iterable[int] | None = None) -> list[str]:
    """Every caption of some examples, or of all, once, sorted."""
    return sorted({one for index in (range(len(captions)) if of is None else of) for one in captions[index]})


def identity(captions: Iterable[Sequence[str]]) -> dict[str, str]:
    """What tells the captions of examples from others, as a part of a source's identity."""
    return {ALL: fingerprint(*(fingerprint(*(one.encode() for one in some)).encode() for some in captions))}
