"""The data sets that are the user's own files, of any size, with any classes, and the known ones among them."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import annotated_types as at
import grain
import numpy as np
from jaxtyping import Float

from diffcurr import ranges
from diffcurr.data.base import Dataset, Mirrored
from diffcurr.data.caption_files import FORMATS, Texts
from diffcurr.data.files import IMAGE_SUFFIXES, LATENT_SUFFIXES, ImageFiles, LatentFiles
from diffcurr.data.listing import FOUND, MOST_CLASSES, Listing
from diffcurr.data.pictures import RULES
from diffcurr.data.sources import Source
from diffcurr.errors import UserError

Level = Annotated[int, at.Interval(ge=0, le=255)]
Side = Annotated[int, at.Interval(ge=1, le=2048)]
Classes = Annotated[int, at.Interval(ge=FOUND, le=MOST_CLASSES)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserFiles(Dataset):
    """A folder or a zip of files.

    Class attributes:
      content: what the files hold, in words.
      suffixes: with which their names end.

    Attributes:
      on_bad_file: what happens when a file cannot be read: "stop" with an error that names it, or "skip" all such
        files, for which every file is decoded once before training.
    """

    splits = ()
    content: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    on_bad_file: Annotated[str, ranges.OneOf(("stop", "skip"))] = "stop"

    @functools.cached_property
    def listing(self) -> Listing:
        """The names and classes of the examples; nothing is decoded.

        Raises:
          UserError: if they cannot be had.
        """
        if not self.data_dir:
            planned = "; to plan without them, give dataset.classes" if self._classes_to_read == FOUND else ""
            raise UserError(
                f"dataset.data_dir is missing: give the folder or zip of your {self.content}, since "
                f"{type(self).__name__} cannot be downloaded{planned}"
            )
        return Listing(self.data_dir, self.suffixes, self.split, self._classes_to_read)

    @property
    def _classes_to_read(self) -> int:
        return self.num_classes

    def has_split(self, name: str) -> bool:
        return bool(self.data_dir) and name in self.listing.splits


class AnySize:
    """The base of data sets of files whose settings `size`, `channels` and `classes` say their shape and classes.

    It is no data set itself: its fields would come before those of the other base.
    """

    listing: Any
    size: int
    channels: int
    classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.size, self.size, self.channels

    @property
    def _classes_to_read(self) -> int:
        return self.classes

    @functools.cached_property
    def num_classes(self) -> int:
        return self.listing.num_classes if self.classes == FOUND else self.classes

    @property
    def found(self) -> dict[str, Any]:
        return {"classes": self.num_classes} if self.classes == FOUND else {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureFiles(Mirrored, UserFiles):
    """Pictures, brought to a size as they are read.

    Attributes:
      resize: how a picture comes to its size: "centre", its largest centred square; "stretch"; "pad", whole, on the
        background; "random_crop", a square at a place along its longer side that is drawn at each pass.
      background: red, green and blue, 0 to 255, of what lies behind transparent pixels and around padded pictures.
    """

    content = "images"
    suffixes = IMAGE_SUFFIXES

    resize: Annotated[str, ranges.OneOf(RULES)] = "centre"
    background: Annotated[Sequence[Level], at.Len(3, 3)] = (255, 255, 255)

    def open(self) -> Source:
        return self._source

    @functools.cached_property
    def _source(self) -> ImageFiles:
        size, _, channels = self.shape
        red, green, blue = self.background
        told = (self.resize, (red, green, blue), self.on_bad_file, self._texts)
        return ImageFiles(self.listing, size, channels, *told)

    @property
    def _texts(self) -> Texts | None:
        """The captions of each example of the listing, where they have some."""
        return None

    def check_example(self, example: dict[str, Any]) -> None:
        super().check_example(
            self._crop(example, np.random.default_rng(0)) if self.resize == "random_crop" else example
        )

    def drawn(self, examples: grain.MapDataset) -> grain.MapDataset:
        examples = super().drawn(examples)
        return examples.random_map(self._crop) if self.resize == "random_crop" else examples

    def _crop(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return {**example, "image": _square(example["image"], self.shape[0], rng)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureFolder(AnySize, PictureFiles):  # type: ignore[override]  # class attributes of Dataset
    """Your own pictures: a folder or zip, of any size, with or without classes.

    Attributes:
      size: height and width, in pixels.
      channels: 1 for grey, 3 for colour, 4 for colour with alpha.
      classes: number of classes; 0 for none, -1 for as many as folders or `dataset.json` give.
      captions: where each picture's captions are: "none"; "txt", the lines of a text file of the same name; "jsonl",
        the line of it in `metadata.jsonl`.
      flip: mirror images at random; only where a mirrored one could be one of them too.
    """

    size: Side = 64
    channels: Annotated[int, ranges.OneOf((1, 3, 4))] = 3
    classes: Classes = FOUND
    captions: Annotated[str, ranges.OneOf(("none", *FORMATS))] = "none"
    flip: bool = False  # type: ignore[misc]

    @property
    def captioned(self) -> bool:  # type: ignore[override]
        return self.captions != "none"

    @property
    def _texts(self) -> Texts | None:
        return FORMATS[self.captions](self.listing) if self.captioned else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FFHQ64(PictureFiles):
    """FFHQ from the user's folder or zip of pictures, resized to 64x64."""

    shape = (64, 64, 3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageNet64(PictureFiles):
    """ImageNet from the user's folder or zip of pictures, with their classes, resized to 64x64."""

    shape = (64, 64, 3)
    num_classes = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latents(UserFiles):
    """Latents of an autoencoder from the user's folder or zip of .npy files.

    Attributes:
      latent_scale: what every value is multiplied by.
    """

    is_latent = True
    content = "latents (.npy)"
    suffixes = LATENT_SUFFIXES

    latent_scale: ranges.Positive = 1.0

    def open(self) -> Source:
        return self._source

    @functools.cached_property
    def _source(self) -> LatentFiles:
        size, _, channels = self.shape
        return LatentFiles(self.listing, size, channels, self.latent_scale, self.on_bad_file)

    def scaled(self, stored: Any) -> Float[np.ndarray, "batch height width channel"]:
        return np.asarray(stored, np.float32)

    def drawn(self, examples: grain.MapDataset) -> grain.MapDataset:
        return super().drawn(examples).random_map(functools.partial(sample_latent, channels=self.shape[-1]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentFolder(AnySize, Latents):  # type: ignore[override]  # class attributes of Dataset
    """Your own latents: a folder or zip of .npy files, [channels, size, size], with or without classes.

    Attributes:
      size: height and width.
      channels: channels of a latent; in a file, as many standard deviations may follow them.
      classes: number of classes; 0 for none, -1 for as many as folders, `dataset.json` or files of labels give.
    """

    size: Side = 32
    channels: Annotated[int, at.Interval(ge=1, le=1024)] = 4
    classes: Classes = FOUND


@dataclasses.dataclass(frozen=True, kw_only=True)
class FFHQ256Latents(Latents):
    """Latents of FFHQ at 256x256."""

    shape = (32, 32, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageNet256Latents(Latents):
    """Latents of ImageNet at 256x256, with their classes."""

    shape = (32, 32, 4)
    num_classes = 1000


def _square(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A square of an image at a random place along its longer side."""
    top, left = (int(rng.integers(max(0, length - size) + 1)) for length in image.shape[:2])
    return image[top : top + size, left : left + size]


def sample_latent(example: dict[str, Any], rng: np.random.Generator, channels: int) -> dict[str, Any]:
    """The example with a draw from its latent's mean and standard deviation, where it has both."""
    image: Float[np.ndarray, "height width channel"] = example["image"]
    if image.shape[-1] == channels:
        return example
    noise = rng.standard_normal((*image.shape[:-1], channels), np.float32)
    return {**example, "image": image[..., :channels] + image[..., channels:] * noise}
