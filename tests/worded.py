"""A text encoder without weights, digits with captions, a folder of pictures with some: text for every room's tests."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffcurr.data.datasets import DATASETS, Digits
from diffcurr.pretrained.text_encoders import TEXT_ENCODERS

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (250, 250, 250)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hashed:
    """The state of a word is a hash of it and of `salt`, whatever stands beside it; a text begins with a word more.

    Attributes:
      calls: texts that were encoded, in their order.
    """

    length: int = 4
    width: int = 6
    salt: int = 0
    calls: list[str] = dataclasses.field(default_factory=list, init=False, compare=False)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        self.calls.extend(texts)
        states = np.zeros((len(texts), self.length, self.width), np.float16)
        mask = np.zeros((len(texts), self.length), bool)
        for row, text in enumerate(texts):
            for place, word in enumerate(["<start>", *text.split()][: self.length]):
                seed = int.from_bytes(hashlib.sha256(f"{self.salt} {word}".encode()).digest()[:4])
                states[row, place] = np.random.default_rng(seed).standard_normal(self.width)
                mask[row, place] = True
        return states, mask

    def identity(self) -> dict[str, Any]:
        return {"name": "hashed", "length": self.length, "width": self.width, "salt": self.salt}


class Captioned:
    """Digits with two captions each."""

    def __init__(self, source: Any):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        return example | {"captions": caption_of(example["label"])}

    def captions(self, of: Iterable[int] | None = None) -> list[str]:
        of = range(len(self)) if of is None else of
        return sorted({text for index in of for text in caption_of(self._source[index]["label"])})

    def identity(self) -> dict[str, Any]:
        return {"captions": "of classes"}


def caption_of(label: int) -> tuple[str, str]:
    word = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")[label]
    return f"the digit {word}", word


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionedDigits(Digits):
    captioned = True

    def open(self) -> Any:
        return Captioned(super().open())


@pytest.fixture(scope="module", autouse=True)
def guests() -> Iterator[None]:
    """In the modules that import it the encoder and the digits are parts like any others."""
    TEXT_ENCODERS["hashed"] = Hashed  # type: ignore[assignment]  # a guest's need not be one of ours
    DATASETS["captioned_digits"] = CaptionedDigits
    yield
    del TEXT_ENCODERS["hashed"], DATASETS["captioned_digits"]


TEXT = {"dataset__name": "captioned_digits", "conditioning": {"name": "text", "encoder": {"name": "hashed"}}}


def pictures(folder: pathlib.Path, number: int = 32) -> pathlib.Path:
    """A folder of 8x8 pictures of one colour each, beside texts that name it."""
    folder.mkdir(parents=True)
    for index in range(number):
        name = list(COLOURS)[index % len(COLOURS)]
        Image.new("RGB", (8, 8), COLOURS[name]).save(folder / f"{index:03d}.png")
        (folder / f"{index:03d}.txt").write_text(f"a {name} square")
    return folder
