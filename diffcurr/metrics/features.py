"""What sets of images are compared by: the features of a classifier that was trained on real ones, or Inception's."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Int
from safetensors import SafetensorError, safe_open

from diffcurr import atomic_file
from diffcurr.errors import UserError, concerning, first_line
from diffcurr.pretrained import classifier, inception

BATCH = 128
INCEPTION_BATCH = 32  # smaller than a classifier's: images are enlarged to 299x299
CACHE = epath.Path("~/.cache/diffcurr").expanduser()
SHIPPED = epath.Path(__file__).parents[1] / "pretrained" / "weights"


class Features(NamedTuple):
    """A network whose features images are compared by.

    Attributes:
      name: its name in reports, with the first digits of the hash of its weights.
      width: number of features.
      shape: (side, channels) of the images it is for; None for grey or coloured ones of any size.
      facts: how it was trained, as its file says.
      forward: images [b, H, W, C] in [-1, 1] -> features [b, width], compiled.
      batch: images at a time.
    """

    name: str
    width: int
    shape: tuple[int, int] | None
    facts: dict[str, str]
    forward: Callable[[np.ndarray], Array]
    batch: int

    def check(self, side: int, channels: int) -> None:
        """
        Raises:
          ValueError: if images of this shape cannot be looked at.
        """
        if self.shape is not None and (side, channels) != self.shape:
            raise ValueError(f"{self.name}: is for images of (side, channels) {self.shape}, not {(side, channels)}")
        if channels not in (1, 3):
            raise ValueError(f"{self.name}: is for pictures, grey or coloured, not for {channels} channels")

    def extract(self, images: Float[np.ndarray, "n height width channel"]) -> Float[np.ndarray, "n feature"]:
        """Features of images in [-1, 1].

        Raises:
          ValueError: if they are of a shape that these features are not for.
        """
        self.check(images.shape[1], images.shape[3])
        return _in_batches(self.forward, np.asarray(images, np.float32), self.batch)


def accuracy(
    network: classifier.Classifier, images: Float[np.ndarray, "n height width channel"], labels: Int[np.ndarray, " n"]
) -> float:
    """The share of images that it puts into their class."""
    predicted = _in_batches(jax.jit(lambda x: jnp.argmax(network(x)[1], axis=-1)), images, BATCH)
    return float(np.mean(predicted == labels))


def _in_batches(function: Callable[[Any], Array], images: np.ndarray, size: int) -> np.ndarray:
    """function(images), of one compiled shape; what fills the last batch is cut off."""
    padded = np.concatenate([images, np.zeros((-len(images) % size, *images.shape[1:]), images.dtype)])
    parts = [np.asarray(function(padded[start : start + size])) for start in range(0, len(padded), size)]
    return np.concatenate(parts)[: len(images)]


def of_reference(
    features: Features, images: Float[np.ndarray, "n height width channel"], cache: epath.PathLike
) -> Float[np.ndarray, "n feature"]:
    """Features of real images, kept in a folder under the hash of what they are made from."""
    content = hashlib.sha256(f"{features.name} {images.shape} {images.dtype}".encode())
    content.update(np.ascontiguousarray(images).data)
    path = epath.Path(cache) / f"features-{content.hexdigest()[:16]}.npy"
    if path.exists():
        with path.open("rb") as file:
            return np.load(file)
    extracted = features.extract(images)
    with atomic_file.replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, extracted)
    return extracted


def load(path: epath.PathLike) -> Features:
    """The features of a classifier's file, or of the Inception network's (docs/inception.md).

    Args:
      path: the file, or the name of a data set whose classifier is shipped.

    Raises:
      UserError: if there is no such file, or it holds neither.
    """
    path, shipped = epath.Path(path), {one.stem: one for one in sorted(SHIPPED.glob("*.safetensors"))}
    path = path if path.exists() else shipped.get(str(path), path)
    if not path.exists():
        raise UserError(
            f"{path}: there are no such features (shipped: {', '.join(shipped)}). --job=features trains a classifier "
            f"of the data set; docs/inception.md says how to bring the Inception network. Name the file as "
            f"evaluation.features"
        )
    arrays, facts = _read(path)
    digest = _digest(arrays)
    if inception.is_inception(arrays):
        with concerning(str(path)):
            inception_network = inception.from_public(arrays)

        def look(images: Float[Array, "b height width channel"]) -> Float[Array, "b feature"]:
            colours = (*images.shape[:3], 3)
            return inception_network(jnp.broadcast_to(images, colours))

        return Features(f"Inception {digest}", inception.WIDTH, None, facts, jax.jit(look), INCEPTION_BATCH)
    if "shape" not in facts:
        raise UserError(f"{path}: holds neither a classifier of --job=features nor the Inception network")
    size, channels, _ = json.loads(facts["shape"])
    network = classifier.from_arrays(arrays, facts)
    forward = jax.jit(lambda images: network(images)[0])
    return Features(f"{facts['dataset']} classifier {digest}", classifier.WIDTH, (size, channels), facts, forward, 512)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    """The first digits of a hash of the weights, whatever file they lie in."""
    content = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        content.update(f"{name} {array.shape} {array.dtype}".encode())
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()[:8]


def _read(path: epath.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays by name, metadata) of a safetensors or npz file; never a pickle."""
    try:
        if path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
                return dict(loaded), {}
        with safe_open(path, framework="numpy") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}, tensors.metadata() or {}  # noqa: SIM118
    except (SafetensorError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}): give a safetensors or npz file") from error
