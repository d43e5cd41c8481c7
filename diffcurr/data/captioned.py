"""Known data sets whose pictures have captions."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import annotated_types as at
import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from diffcurr import ranges
from diffcurr.data import captions
from diffcurr.data.base import Pictures
from diffcurr.data.caption_files import annotated
from diffcurr.data.emoji_names import CATEGORIES, VENDORS
from diffcurr.data.files import IMAGE_SUFFIXES, ImageFiles
from diffcurr.data.listing import Listing
from diffcurr.data.pictures import centre_square
from diffcurr.data.sources import Part, Prepared, Source, identity, open_tfds
from diffcurr.errors import UserError


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
        fields = prepared.fields("captions", "vendor", "label")
        texts, labels = [one["captions"] for one in fields], np.array([one["label"] for one in fields], np.int32)
        source = TfdsPictures(prepared, texts, self.size, labels=labels, classes=CATEGORIES, keep=True)
        wanted = [index for index, one in enumerate(fields) if VENDORS[one["vendor"]] in self.vendors]
        return source if len(wanted) == len(source) else Part(source, np.array(wanted))


@dataclasses.dataclass(frozen=True, kw_only=True)
class CocoCaptions(Pictures):
    """COCO 2014 in the splits of Karpathy and Li 2015 through TFDS, or your folder of COCO; five captions a picture.

    Attributes:
      size: height and width, in pixels, of the largest centred square.
      annotations: COCO's file of captions, such as `captions_train2017.json`; then `data_dir` is the folder or zip of
        its pictures. Empty for TFDS.
    """

    captioned = True
    splits = ("train", "val", "test", "restval")

    size: Annotated[int, at.Interval(ge=1, le=2048)] = 256
    annotations: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.annotations and self.split != "train":
            raise ValueError(f"split = {self.split!r}: your folder is the split train; give another by data_dir")

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]  # a class attribute of Dataset
        return self.size, self.size, 3

    def has_split(self, name: str) -> bool:
        return name == "train" if self.annotations else name in self.splits

    def open(self) -> Source:
        if self.annotations:
            if not self.data_dir:
                raise UserError("dataset.data_dir is missing: give the folder or zip of the annotated pictures")
            listing = Listing(self.data_dir, IMAGE_SUFFIXES, self.split, num_classes=0)
            return ImageFiles(listing, self.size, texts=annotated(listing, self.annotations))
        prepared = open_tfds("coco_captions", self.split, self.data_dir, unused="2017")
        texts = [one["captions"]["text"] for one in prepared.fields("captions")]
        return TfdsPictures(prepared, [[text for text in some if text.strip()] for some in texts], self.size)


class TfdsPictures:
    """{"image": uint8 [size, size, 3], "label": int, "captions"} of a prepared split.

    Attributes:
      labels: int32 [example].
      classes: the names of the classes, or None.
    """

    def __init__(
        self,
        prepared: Prepared,
        texts: Sequence[Sequence[str]],
        size: int,
        *,
        labels: Int[np.ndarray, " example"] | None = None,
        classes: Sequence[str] | None = None,
        keep: bool = False,
    ):
        """
        Args:
          texts: the captions of each example.
          size: side to which the largest centred square of a picture is resized.
          labels: class of each example; zeros if None.
          classes: the names of the classes.
          keep: pictures stay in memory once they were read.
        """
        self.classes = classes
        self.labels = np.zeros(len(texts), np.int32) if labels is None else labels
        self._pixels = functools.cache(self._read) if keep else self._read
        self._prepared, self._size = prepared, size
        self._captions = [tuple(map(captions.cleaned, some)) for some in texts]

    def __len__(self) -> int:
        return len(self._prepared)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self._pixels(index), "label": self.labels[index], captions.ALL: self._captions[index]}

    def _read(self, index: int) -> UInt8[np.ndarray, "size size channel"]:
        """The picture at its size."""
        return centre_square(Image.fromarray(self._prepared[index]["image"]), self._size)

    def __repr__(self) -> str:
        return f"TfdsPictures({self._prepared!r}, {self._size}x{self._size})"

    def captions(self, of: Iterable[int] | None = None) -> list[str]:
        """See `captions.Captioned`."""
        return captions.listed(self._captions, of)

    def identity(self) -> dict[str, Any]:
        """See `sources.identity`."""
        return identity(self._prepared) | captions.identity(self._captions)
