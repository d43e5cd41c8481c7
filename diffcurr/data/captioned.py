"""The data sets of TFDS whose pictures have captions."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import annotated_types as at
import numpy as np
from PIL import Image

from diffcurr import ranges
from diffcurr.data import captions
from diffcurr.data.base import Pictures
from diffcurr.data.emoji_names import CATEGORIES, VENDORS
from diffcurr.data.pictures import centre_square
from diffcurr.data.sources import Part, Prepared, Source, identity, open_tfds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Emoji(Pictures):
    """npm's emoji-datasource, through TFDS: emoji as Google and Twitter draw them, with names and categories.

    Attributes:
      size: height and width, in pixels; 64 as they are stored.
      vendors: whose pictures are taken.
    """

    num_classes = len(CATEGORIES)
    captioned = True
    splits = ("train", "test")

    size: Annotated[int, at.Interval(ge=1, le=64)] = 32
    vendors: Annotated[Sequence[Annotated[str, ranges.OneOf(VENDORS)]], at.Len(1, len(VENDORS))] = VENDORS

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]  # a class attribute of Dataset
        return self.size, self.size, 3

    def open(self) -> Source:
        prepared = open_tfds("emoji", self.split, self.data_dir, module="diffcurr.data.emoji_builder")
        fields = prepared.fields("captions", "vendor")
        source = TfdsPictures(prepared, [one["captions"] for one in fields], self.size, CATEGORIES)
        wanted = [index for index, one in enumerate(fields) if VENDORS[one["vendor"]] in self.vendors]
        return source if len(wanted) == len(source) else Part(source, np.array(wanted))


class TfdsPictures:
    """{"image": uint8 [size, size, 3], "label": int, "captions"} of a prepared split.

    Attributes:
      classes: the names of the classes, or None.
    """

    def __init__(
        self, prepared: Prepared, texts: Sequence[Sequence[str]], size: int, classes: Sequence[str] | None = None
    ):
        """
        Args:
          texts: the captions of each example.
          size: of the largest centred square of a picture, as it is resized.
        """
        self.classes = classes
        self._prepared, self._size = prepared, size
        self._captions = [tuple(map(captions.cleaned, some)) for some in texts]

    def __len__(self) -> int:
        return len(self._prepared)

    def __getitem__(self, index: int) -> dict[str, Any]:
        stored = self._prepared[index]
        return {
            "image": centre_square(Image.fromarray(stored["image"]), self._size),
            "label": np.int32(stored.get("label", 0)),
            captions.ALL: self._captions[index],
        }

    def __repr__(self) -> str:
        return f"TfdsPictures({self._prepared!r}, {self._size}x{self._size})"

    def captions(self, of: Iterable[int] | None = None) -> list[str]:
        """See `captions.Captioned`."""
        return captions.listed(self._captions, of)

    def identity(self) -> dict[str, Any]:
        """See `sources.identity`."""
        return identity(self._prepared) | captions.identity(self._captions)
