"""A text encoder without weights, and a folder of captioned pictures: text for the tests of every room."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

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


TEXT_ENCODERS["hashed"] = Hashed  # type: ignore[assignment]  # a guest's need not be one of ours


def pictures(folder: pathlib.Path, number: int = 32) -> pathlib.Path:
    """A folder of 8x8 pictures of one colour each, beside texts that name it."""
    folder.mkdir(parents=True)
    for index in range(number):
        name = list(COLOURS)[index % len(COLOURS)]
        Image.new("RGB", (8, 8), COLOURS[name]).save(folder / f"{index:03d}.png")
        (folder / f"{index:03d}.txt").write_text(f"a {name} square")
    return folder
