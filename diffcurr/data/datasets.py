"""The data sets that a config can name."""

import dataclasses
import importlib.util
import pathlib

import numpy as np

from diffcurr.data.base import Dataset, Mirrored, Pictures
from diffcurr.data.captioned import CocoCaptions, Emoji
from diffcurr.data.encoded import Encoded
from diffcurr.data.sources import ArraySource, Source, open_tfds
from diffcurr.data.user_files import (
    FFHQ64,
    FFHQ256Latents,
    ImageNet64,
    ImageNet256Latents,
    LatentFolder,
    Latents,
    PictureFiles,
    PictureFolder,
)
from diffcurr.errors import UserError

__all__ = [
    "CIFAR10",
    "DATASETS",
    "FFHQ64",
    "CocoCaptions",
    "Dataset",
    "Digits",
    "Emoji",
    "Encoded",
    "FFHQ256Latents",
    "FashionMNIST",
    "ImageNet64",
    "ImageNet256Latents",
    "LatentFolder",
    "Latents",
    "Mirrored",
    "PictureFiles",
    "PictureFolder",
    "Pictures",
]


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


DATASETS: dict[str, type[Dataset]] = {
    "digits": Digits,
    "fashion_mnist": FashionMNIST,
    "cifar10": CIFAR10,
    "emoji": Emoji,
    "coco_captions": CocoCaptions,
    "folder": PictureFolder,
    "latents": LatentFolder,
    "encoded": Encoded,
    "ffhq64": FFHQ64,
    "imagenet64": ImageNet64,
    "ffhq256_latents": FFHQ256Latents,
    "imagenet256_latents": ImageNet256Latents,
}
"""`dataset.name` in a config -> the class."""
