"""What sets of images are compared by: the features of a classifier that was trained on real ones, or Inception's."""

import hashlib
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Int
from safetensors import SafetensorError
from safetensors.numpy import save_file

from diffcurr import atomic_file
from diffcurr.errors import UserError, concerning, first_line
from diffcurr.pretrained import arrays as arrays_lib
from diffcurr.pretrained import classifier, inception

BATCH = 128
INCEPTION_BATCH = 32  # smaller than a classifier's: images are enlarged to 299x299
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
        """Features of images in [-1, 1], float32 and finite.

        Raises:
          ValueError: if there are none, or they are of a shape that these features are not for.
          UserError: if pixels, or what the network makes of them, are NaN or infinite.
        """
        if images.ndim != 4 or not len(images):
            raise ValueError(f"images of shape {images.shape}: give [n, height, width, channel], at least one")
        self.check(images.shape[1], images.shape[3])
        images = np.asarray(images, np.float32)
        if spoilt := _not_finite(images):
            raise UserError(
                f"{spoilt} of {len(images)} images hold pixels that are NaN or infinite: where a network drew them, "
                f"take an earlier checkpoint or train with a lower learning rate; where they are data, mend the files"
            )
        found = _in_batches(self.forward, images, self.batch)
        if spoilt := _not_finite(found):
            raise UserError(
                f"{self.name}: the features of {spoilt} of {len(images)} images are NaN or infinite: give pixels in "
                f"[-1, 1], or other features as evaluation.features"
            )
        return found


def accuracy(
    network: classifier.Classifier, images: Float[np.ndarray, "n height width channel"], labels: Int[np.ndarray, " n"]
) -> float:
    """The share of images that it puts into their class."""
    predicted = _in_batches(jax.jit(lambda x: jnp.argmax(network(x)[1], axis=-1)), images, BATCH)
    return float(np.mean(predicted == labels))


def _not_finite(examples: np.ndarray) -> int:
    """How many of the examples hold a value that is NaN or infinite."""
    return int(np.sum(~np.isfinite(examples).all(axis=tuple(range(1, examples.ndim)))))


def _in_batches(function: Callable[[Any], Array], images: np.ndarray, size: int) -> np.ndarray:
    """function(images), of one compiled shape; what fills the last batch is cut off."""
    padded = np.concatenate([images, np.zeros((-len(images) % size, *images.shape[1:]), images.dtype)])
    parts = [np.asarray(function(padded[start : start + size])) for start in range(0, len(padded), size)]
    return np.concatenate(parts)[: len(images)]


def cache_folder() -> epath.Path:
    """$XDG_CACHE_HOME/diffcurr, or ~/.cache/diffcurr.

    Raises:
      OSError: if neither is known as a path from the root on.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = given if os.path.isabs(given) else os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(base):
        raise OSError("no home folder is known; set HOME or XDG_CACHE_HOME")
    return epath.Path(base) / "diffcurr"


def of_reference(
    features: Features, images: Float[np.ndarray, "n height width channel"], cache: epath.PathLike | None = None
) -> Float[np.ndarray, "n feature"]:
    """Features of real images, kept in a folder under the hash of what they are made from.

    What is kept there is used only if it is whole. Where it is not, or the folder cannot be written, a line on standard
    error says so and the features are computed.

    Args:
      cache: the folder; `cache_folder()` if None.

    Raises:
      ValueError, UserError: see `Features.extract`.
    """
    content = hashlib.sha256(f"{features.name} {images.shape} {images.dtype}".encode())
    content.update(np.ascontiguousarray(images).data)
    made_from = content.hexdigest()
    try:
        path = (cache_folder() if cache is None else epath.Path(cache)) / f"features-{made_from[:16]}.safetensors"
    except OSError as error:
        _say_not_kept(error)
        return features.extract(images)
    if path.exists():
        try:
            return _kept(path, made_from, (len(images), features.width))
        except UserError as error:
            print(f"WARNING: {error}; the features are computed again", file=sys.stderr, flush=True)
    extracted = features.extract(images)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file.replacing(path) as temporary:
            save_file({"features": extracted}, temporary, metadata=_facts(extracted, made_from))
    except (OSError, SafetensorError) as error:
        _say_not_kept(error)
    return extracted


def _say_not_kept(error: Exception) -> None:
    print(f"WARNING: features of the real images are not kept: {first_line(error)}", file=sys.stderr, flush=True)


def _facts(extracted: Float[np.ndarray, "n feature"], made_from: str) -> dict[str, str]:
    """What a file of kept features says of them."""
    return {"made_from": made_from, "sha256": hashlib.sha256(np.ascontiguousarray(extracted).data).hexdigest()}


def _kept(path: epath.Path, made_from: str, shape: tuple[int, int]) -> Float[np.ndarray, "n feature"]:
    """The features that a file keeps.

    Raises:
      UserError: naming the file, if it does not hold what was written there.
    """
    arrays, facts = arrays_lib.read(path, most_bytes=4 * shape[0] * shape[1] + 2**16)  # with a header
    found = arrays.get("features")
    whole = found is not None and (found.shape, found.dtype) == (shape, np.float32) and np.isfinite(found).all()
    if found is None or not whole or facts != _facts(found, made_from):
        raise UserError(f"{path}: is not what was written there")
    return found


def load(path: epath.PathLike) -> Features:
    """The features of a classifier's file, or of the Inception network's (docs/inception.md).

    Args:
      path: the file, or the name of a data set whose classifier is shipped.

    Raises:
      UserError: if there is no such file, or it holds neither.
    """
    path, shipped = epath.Path(path), {one.stem: one for one in sorted(SHIPPED.glob("*.safetensors"))}
    path = shipped.get(str(path), path) if path.is_dir() or not path.exists() else path
    if not path.exists():
        raise UserError(
            f"{path}: there are no such features (shipped: {', '.join(shipped)}). --job=features trains a classifier "
            f"of the data set; docs/inception.md says how to bring the Inception network. Name the file as "
            f"evaluation.features"
        )
    arrays, facts = arrays_lib.read(path)
    digest = _digest(arrays)
    with concerning(str(path)):
        if inception.is_inception(arrays):
            return _of_inception(inception.from_public(arrays), facts, digest)
        if "shape" not in facts:
            raise ValueError("holds neither a classifier of --job=features nor the Inception network")
        network = classifier.from_arrays(arrays, facts)
        dataset = facts.get("dataset", "")
        if not (dataset.isprintable() and 0 < len(dataset) <= 100):
            raise ValueError(f"its fact dataset = {dataset!a:.80}: must be the name of the data set trained on")
    side, channels, _ = classifier.shape_of(facts)
    forward = jax.jit(lambda images: network(images)[0])
    return Features(f"{dataset} classifier {digest}", classifier.WIDTH, (side, channels), facts, forward, 512)


def _of_inception(network: inception.Inception, facts: dict[str, str], digest: str) -> Features:
    def look(images: Float[Array, "b height width channel"]) -> Float[Array, "b feature"]:
        colours = (*images.shape[:3], 3)
        return network(jnp.broadcast_to(images, colours))

    return Features(f"Inception {digest}", inception.WIDTH, None, facts, jax.jit(look), INCEPTION_BATCH)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    """The first digits of a hash of the weights, whatever file they lie in."""
    content = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        content.update(f"{name} {array.shape} {array.dtype}".encode())
        content.update(array.tobytes())
    return content.hexdigest()[:8]
