"""The data sets that a config can name. Their sources are opened when the data are needed, not before."""

import abc
import dataclasses
import functools
import importlib.util
import pathlib
from typing import Any, ClassVar

import grain
import numpy as np
from etils import epath
from jaxtyping import Float

from diffcurr.data.files import ImageFiles, LatentFiles
from diffcurr.data.sources import ArraySource, Source, open_tfds
from diffcurr.errors import UserError, concerning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset(abc.ABC):
    """What the rest of the program must know of a data set before it reads one example.

    Class attributes:
      shape: (height, width, channels) of an example as it is stored: pixels, or latents.
      num_classes: number of labels; 0 for none.
      flip: whether images are mirrored at random.
      augment: probability of each of EDM's augmentations.
      is_latent: whether the examples are an autoencoder's latents, which have no limits and are no pictures.
      splits: the names of the splits; empty where the source knows them.

    Attributes:
      split: name of the split, as TFDS gives it.
      data_dir: where prepared data sets lie, TFDS's own default if empty; or the user's folder or zip.
      threads: number of threads that read ahead.
    """

    shape: ClassVar[tuple[int, int, int]]
    num_classes: ClassVar[int] = 0
    flip: ClassVar[bool] = False
    augment: ClassVar[float] = 0.0
    is_latent: ClassVar[bool] = False
    splits: ClassVar[tuple[str, ...]] = ("train",)

    split: str = "train"
    data_dir: str = ""
    threads: int = 2

    def __post_init__(self) -> None:
        if self.splits and self.split not in self.splits:
            raise ValueError(f"split = {self.split!r}: choose one of {', '.join(self.splits)}")

    @abc.abstractmethod
    def open(self) -> Source:
        """The examples of the split, {"image": [H, W, C], "label": int}, prepared first if need be.

        Raises:
          UserError: if they cannot be had.
        """

    def has_split(self, name: str) -> bool:
        """Whether there is a split of that name."""
        return name in self.splits

    def opened(self) -> Source:
        """The examples of the split, of which the first is what the data set says.

        Raises:
          UserError: if they cannot be had, there are none, or the first is of another shape, class or range of values.
        """
        source = self.open()
        with concerning(f"dataset {type(self).__name__}"):
            if not len(source):
                raise ValueError("there are no examples")
            self.check_example(source[0])
        return source

    def check_example(self, example: dict[str, Any]) -> None:
        """Raises ValueError if a stored example is not what the data set says."""
        shape = np.shape(example["image"])
        if shape not in (self.shape, (*self.shape[:2], 2 * self.shape[2]) if self.is_latent else None):
            raise ValueError(f"an image has shape {shape}: the data set's shape is {self.shape}")
        if self.num_classes and "label" not in example:
            raise ValueError(f"an example has no 'label': num_classes = {self.num_classes}")

    @abc.abstractmethod
    def scaled(self, stored: Any) -> Float[np.ndarray, "batch height width channel"]:
        """Stored examples as the process takes them, float32."""

    def drawn(self, examples: grain.MapDataset) -> grain.MapDataset:
        """The examples, with what of them is drawn at random each time."""
        return examples

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

    augment: float = 0.0  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.augment <= 1.0:
            raise ValueError(f"augment = {self.augment}: a probability must lie in [0, 1]")
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
        levels = self.max_value
        return np.round((np.clip(images, -1, 1) + 1) / 2 * levels).astype(np.float32) / levels * 2 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mirrored(Pictures):
    """Pictures whose mirror image could be one of the data set too.

    Attributes:
      flip: mirror images at random.
    """

    flip: bool = True  # type: ignore[misc]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digits(Pictures):
    """scikit-learn's 1,797 scans of digits, 8x8, bundled; one split, `train`."""

    shape = (8, 8, 1)
    num_classes = 10
    max_value = 16.0

    def open(self) -> Source:
        # The file that sklearn.datasets.load_digits reads. Importing that takes longer than reading the file.
        package = importlib.util.find_spec("sklearn")
        if package is None or package.origin is None:
            raise UserError("dataset.name = 'digits': needs scikit-learn: pip install scikit-learn")
        file = pathlib.Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        examples = np.loadtxt(file, delimiter=",", dtype=np.int32)
        return ArraySource(examples[:, :-1].reshape(-1, *self.shape).astype(np.uint8), examples[:, -1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class FashionMNIST(Pictures):
    """TFDS `fashion_mnist`: 60,000 photographs, 28x28, grey. Not mirrored: its shoes all point left."""

    shape = (28, 28, 1)
    num_classes = 10
    splits = ()

    def has_split(self, name: str) -> bool:
        return name in ("train", "test")

    def open(self) -> Source:
        return open_tfds("fashion_mnist", self.split, self.data_dir)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CIFAR10(Mirrored):
    """TFDS `cifar10`: 50,000 photographs, 32x32."""

    shape = (32, 32, 3)
    num_classes = 10
    splits = ()

    def has_split(self, name: str) -> bool:
        return name in ("train", "test")

    def open(self) -> Source:
        return open_tfds("cifar10", self.split, self.data_dir)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FFHQ64(Mirrored):
    """FFHQ from the user's folder or zip of pictures, resized to 64x64."""

    shape = (64, 64, 3)
    splits = ()

    def open(self) -> Source:
        return ImageFiles(_files(self, "images"), self.shape[0], self.num_classes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageNet64(Mirrored):
    """ImageNet from the user's folder or zip of pictures, with their classes, resized to 64x64."""

    shape = (64, 64, 3)
    num_classes = 1000
    splits = ()

    def has_split(self, name: str) -> bool:
        return bool(self.data_dir) and (epath.Path(self.data_dir) / name).is_dir()

    def open(self) -> Source:
        return ImageFiles(_files(self, "images"), self.shape[0], self.num_classes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latents(Dataset):
    """Latents of an autoencoder from the user's folder or zip of .npy files.

    Attributes:
      latent_scale: what every value is multiplied by.
    """

    is_latent = True
    splits = ()

    latent_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_scale <= 0:
            raise ValueError(f"latent_scale = {self.latent_scale}: must be above 0")

    def open(self) -> Source:
        size, _, channels = self.shape
        return LatentFiles(_files(self, "latents (.npy)"), size, channels, self.latent_scale, self.num_classes)

    def scaled(self, stored: Any) -> Float[np.ndarray, "batch height width channel"]:
        return np.asarray(stored, np.float32)

    def drawn(self, examples: grain.MapDataset) -> grain.MapDataset:
        return examples.random_map(functools.partial(_sample_latent, channels=self.shape[-1]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FFHQ256Latents(Latents):
    """Latents of FFHQ at 256x256."""

    shape = (32, 32, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageNet256Latents(Latents):
    """Latents of ImageNet at 256x256, with their classes."""

    shape = (32, 32, 4)
    num_classes = 1000


DATASETS: dict[str, type[Dataset]] = {
    "digits": Digits,
    "fashion_mnist": FashionMNIST,
    "cifar10": CIFAR10,
    "ffhq64": FFHQ64,
    "imagenet64": ImageNet64,
    "ffhq256_latents": FFHQ256Latents,
    "imagenet256_latents": ImageNet256Latents,
}
"""`dataset.name` in a config -> the class."""


def _files(dataset: Dataset, what: str) -> epath.Path:
    """The user's folder or zip: the folder named like the split where there is one."""
    if not dataset.data_dir:
        raise UserError(
            f"dataset.data_dir is missing: give the folder or zip of your {what}, since {type(dataset).__name__} "
            f"cannot be downloaded"
        )
    path = epath.Path(dataset.data_dir)
    if (path / dataset.split).is_dir():
        return path / dataset.split
    if dataset.split != "train":
        raise UserError(f"dataset.split = {dataset.split!r}: there is no folder {path / dataset.split}")
    return path


def _sample_latent(example: dict[str, Any], rng: np.random.Generator, channels: int) -> dict[str, Any]:
    image: Float[np.ndarray, "height width channel"] = example["image"]
    if image.shape[-1] == channels:
        return example
    noise = rng.standard_normal((*image.shape[:-1], channels), np.float32)
    return {**example, "image": image[..., :channels] + image[..., channels:] * noise}
