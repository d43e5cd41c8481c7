"""The states of many texts on disk, encoded once and read a row at a time."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from etils import epath
from jaxtyping import Bool, Float16

from diffcurr import atomic_file
from diffcurr.errors import UserError

AT_ONCE = 256  # texts encoded between two looks at the time

States = tuple[Float16[np.ndarray, "text word width"], Bool[np.ndarray, "text word"]]
"""(states of the words, 0 where there is none; which words there are)."""


@runtime_checkable
class TextEncoder(Protocol):
    """Turns texts into states of their words; `diffcurr.pretrained.text_encoders` has some.

    Attributes:
      length: words of a text, at most, as the encoder's tokenizer counts them.
      width: length of the state of a word.
    """

    @property
    def length(self) -> int: ...

    @property
    def width(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> States:
        """The states of some texts."""

    def identity(self) -> dict[str, Any]:
        """What tells it from other encoders, as JSON values."""


class EncodedTexts:
    """The states of texts in a folder: `tokens.npy` and `mask.npy`, in the order of `texts.json`."""

    def __init__(self, folder: epath.Path, texts: Sequence[str]):
        self._row = {text: row for row, text in enumerate(texts)}
        self._tokens, self._mask = (_read(folder / name) for name in ("tokens.npy", "mask.npy"))
        if not len(texts) == len(self._tokens) == len(self._mask):
            raise UserError(f"{folder}: holds {len(self._tokens)} encoded texts of {len(texts)}: remove it")

    @classmethod
    def of(
        cls, texts: Iterable[str], encoder: TextEncoder, store: epath.Path, say: Callable[[int, int], None]
    ) -> "EncodedTexts":
        """The states of these texts, read from the folder of that name in `store`, or encoded and put there first.

        Args:
          say: called with (texts encoded, their number) on the way.
        """
        known = sorted(set(texts))
        kind = json.dumps(encoder.identity(), sort_keys=True)
        name = hashlib.sha256(json.dumps([kind, *known]).encode()).hexdigest()[:16]
        folder = store / name
        if not (folder / "texts.json").exists():  # which is written last
            folder.mkdir(parents=True, exist_ok=True)
            parts = []
            for first in range(0, len(known), AT_ONCE):
                parts.append(encoder.encode(known[first : first + AT_ONCE]))
                say(min(first + AT_ONCE, len(known)), len(known))
            for file, arrays in zip(("tokens.npy", "mask.npy"), zip(*parts, strict=True), strict=True):
                with atomic_file.replacing(folder / file) as temporary, temporary.open("wb") as opened:
                    np.save(opened, np.concatenate(arrays))
            with atomic_file.replacing(folder / "texts.json") as temporary:
                temporary.write_text(json.dumps({"encoder": encoder.identity(), "texts": known}) + "\n")
        return cls(folder, known)

    def __contains__(self, text: str) -> bool:
        return text in self._row

    def __call__(self, texts: Sequence[str]) -> States:
        """The states of these texts, which must be in the folder, with a leading axis of their number."""
        rows = [self._row[text] for text in texts]
        return np.asarray(self._tokens[rows]), np.asarray(self._mask[rows])


def _read(file: epath.Path) -> np.ndarray:
    """An array, mapped from the file where that is a local one."""
    if "://" in str(file):
        with file.open("rb") as opened:
            return np.asarray(np.load(opened))
    return np.asarray(np.load(file, mmap_mode="r"))
