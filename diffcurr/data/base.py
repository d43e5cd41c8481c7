"""What a data set is. Its source is opened when the data are needed, not before."""

import abc
import dataclasses
from typing import Annotated, Any, ClassVar

import annotated_types as at
import grain
import numpy as np
from jaxtyping import Float

from diffcurr import ranges
from diffcurr.data import captions
from diffcurr.data.sources import Part, Source
from diffcurr.errors import UserError, concerning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset(ranges.Checked, abc.ABC):
    """What the rest of the program must know of a data set before it reads one example.

    Class attributes:
      shape: (height, width, channels) of an example as it is stored: pixels, or latents.
      num_classes: number of labels; 0 for none.
      flip: whether images are mirrored at random.
      augment: probability of each of EDM's augmentations.
      is_latent: whether the examples are an autoencoder's latents, which have no limits and are no pictures.
      captioned: whether examples have captions; then the source is a `captions.Captioned`.
      splits: the names of the splits; empty where the source knows them.
      held_out_split: the split of images that training never sees, where there is one.

    Attributes:
      split: name of the split, as TFDS gives it; for the user's files, the folder of that name.
      data_dir: where prepared data sets lie, TFDS's own default if empty; or the user's folder or zip.
      held_out: the share of the examples that training never sees; 0 where a split is held out, or none.
      threads: number of threads that read ahead; 0 to read each batch when it is needed, -1 for one for each core.
    """

    shape: ClassVar[tuple[int, int, int]]
    num_classes: ClassVar[int] = 0
    flip: ClassVar[bool] = False
    augment: ClassVar[float] = 0.0
    is_latent: ClassVar[bool] = False
    captioned: ClassVar[bool] = False
    splits: ClassVar[tuple[str, ...]] = ("train",)
    held_out_split: ClassVar[str] = "test"

    split: str = "train"
    data_dir: str = ""
    held_out: ranges.ShareBelowOne = 0.0
    threads: Annotated[int, at.Interval(ge=-1, le=256)] = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.splits and self.split not in self.splits:
            raise ValueError(f"split = {self.split!r}: choose one of {', '.join(self.splits)}")

    @abc.abstractmethod
    def open(self) -> Source:
        """The examples of the split, {"image": [H, W, C], "label": int}, prepared first if need be.

        Those of a captioned data set have "captions" too, a tuple of at least one text, in one line each.

        Raises:
          UserError: if they cannot be had.
        """

    def has_split(self, name: str) -> bool:
        """Whether there is a split of that name."""
        return name in self.splits

    @property
    def found(self) -> dict[str, Any]:
        """Settings that were left to be found in the data, as they are; a run's config keeps them."""
        return {}

    @property
    def encoded_from(self) -> str:
        """Name of the data set whose pictures were encoded; "" where none were, or it is not known."""
        return ""

    @property
    def codec_identity(self) -> dict[str, Any] | None:
        """Identity of the codec whose latents are stored; None where there are none, or it is not known."""
        return None

    def with_features(self, *, needed: bool) -> "Dataset":
        """The data set whose examples, as they are trained on, have `features` of their pictures, [token, feature].

        Args:
          needed: whether they must be there now, and not only when there is training.

        Raises:
          ValueError: if no data set of this kind stores any.
          UserError: if they are needed and not there, or are those of other pictures.
        """
        raise ValueError(
            f"{type(self).__name__} stores no features of its pictures: encode it by --job=encode with "
            f"--config.encode.features=dinov2, and train with --config.dataset=encoded"
        )

    @property
    def features_shape(self) -> tuple[int, int] | None:
        """(tokens, features) of those; None where there are none, or it is not known."""
        return None

    def features_identity(self) -> dict[str, Any]:
        """What tells those from others, as JSON values; {} where training is given none. Reads none of them.

        Raises:
          UserError: if they cannot be had.
        """
        return {}

    def opened(self) -> Source:
        """The examples of the split that may be trained on, of which the first is what the data set says.

        Raises:
          UserError: if they cannot be had, there are none, or the first is of another shape, class or range of values.
        """
        source = self.open()
        with concerning(f"dataset {type(self).__name__}"):
            if not len(source):
                raise ValueError("there are no examples")
            self.check_example(source[0])
            return self._part(source, held_out=False) if self.held_out else source

    @property
    def holds_out(self) -> bool:
        """Whether there are examples that training never sees."""
        trained_on = {part.split("[")[0] for part in self.split.split("+")}  # of "train[:50%]" it is train
        return bool(self.held_out) or (self.held_out_split not in trained_on and self.has_split(self.held_out_split))

    def opened_held_out(self) -> Source:
        """The examples that training never sees: always the same share, or the split that is held out.

        Raises:
          UserError: if there are none, or they cannot be had.
        """
        if self.held_out:
            source = self.open()
            with concerning(f"dataset {type(self).__name__}"):
                return self._part(source, held_out=True)
        if not self.holds_out:
            raise UserError(
                f"dataset.held_out = {self.held_out}: {type(self).__name__} has no split {self.held_out_split!r}; give "
                f"the share of its examples that training shall not see"
            )
        # With the classes of the split that is trained on: if they were counted again, labels could mean other ones.
        return dataclasses.replace(self, split=self.held_out_split, **self.found).opened()

    def _part(self, source: Source, *, held_out: bool) -> Source:
        order, number = np.random.default_rng(0).permutation(len(source)), round(self.held_out * len(source))
        if not 0 < number < len(source):
            raise ValueError(f"held_out = {self.held_out}: of {len(source)} examples that leaves {number} held out")
        return Part(source, np.sort(order[:number] if held_out else order[number:]))

    def check_example(self, example: dict[str, Any]) -> None:
        """Raises ValueError if a stored example is not what the data set says."""
        shape = np.shape(example["image"])
        if shape not in (self.shape, (*self.shape[:2], 2 * self.shape[2]) if self.is_latent else None):
            raise ValueError(f"an image has shape {shape}: the data set's shape is {self.shape}")
        if self.num_classes and "label" not in example:
            raise ValueError(f"an example has no 'label': num_classes = {self.num_classes}")
        if self.captioned:
            captions.check(example.get(captions.ALL))

    @abc.abstractmethod
    def scaled(self, stored: Any) -> Float[np.ndarray, "batch height width channel"]:
        """Stored examples as the process takes them, float32."""

    def drawn(self, examples: grain.MapDataset) -> grain.MapDataset:
        """The examples, with what of them is drawn at random each time, such as "caption"; not mirrored."""
        return examples.random_map(captions.draw) if self.captioned else examples

    def trained(self, examples: grain.MapDataset) -> grain.MapDataset:
        """The examples as training sees them, drawn and mirrored at random."""
        return self.drawn(examples).random_map(_flip) if self.flip else self.drawn(examples)

    def quantised(
        self, images: Float[np.ndarray, "batch height width channel"]
    ) -> Float[np.ndarray, "batch height width channel"]:
        """Generated examples on the grid of values that stored ones have, as a picture file would keep them."""
        return images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures(Dataset):
    """Pictures with pixels in [0, max_value], 255 if a data set does not say otherwise, scaled to [-1, 1].

    Attributes:
      augment: probability of each of EDM's augmentations (Karras et al. 2022, appendix F); 0 for none.
    """

    max_value: ClassVar[float] = 255.0

    augment: ranges.Share = 0.0  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment and self.flip:
            raise ValueError(f"augment = {self.augment}: mirrors images itself; set flip = False")

    def check_example(self, example: dict[str, Any]) -> None:
        super().check_example(example)
        pixels = np.asarray(example["image"])
        low, high = pixels.min(), pixels.max()
        if low < 0 or high > self.max_value or (pixels.dtype.kind == "f" and high <= 1.0 < self.max_value):
            raise ValueError(
                f"pixels lie in {low} to {high}: the data set's lie in 0 to max_value = {self.max_value:g}"
            )

    def scaled(self, stored: Any) -> Float[np.ndarray, "batch height width channel"]:
        return np.asarray(stored, np.float32) * np.float32(2.0 / self.max_value) - np.float32(1.0)

    def quantised(
        self, images: Float[np.ndarray, "batch height width channel"]
    ) -> Float[np.ndarray, "batch height width channel"]:
        return on_grid(images, self.max_value)


def on_grid(
    images: Float[np.ndarray, "batch height width channel"], levels: float
) -> Float[np.ndarray, "batch height width channel"]:
    """Pixels in [-1, 1] rounded to the nearest of 0..levels, back in [-1, 1]."""
    return np.round((np.clip(images, -1, 1) + 1) / 2 * levels).astype(np.float32) / levels * 2 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mirrored(Pictures):
    """Pictures whose mirror image could be one of the data set too.

    Attributes:
      flip: mirror images at random.
    """

    flip: bool = True  # type: ignore[misc]


def _flip(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {**example, "image": np.ascontiguousarray(example["image"][:, ::-1])}
    return example
