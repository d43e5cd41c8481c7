"""What sets of images are compared by: the features of a classifier that was trained on real ones, or Inception's."""

import hashlib
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from diffcurr import atomic_file
from diffcurr.errors import UserError, concerning, first_line
from diffcurr.metrics import pipelines
from diffcurr.metrics.blocks import blocks, sha256_of
from diffcurr.pretrained import arrays as arrays_lib
from diffcurr.pretrained import classifier, clip_vision, dinov2, inception

BATCH = 128
INCEPTION_BATCH = 32  # smaller than a classifier's: images are enlarged to 299x299
MOST_BYTES = 2**33  # the largest DINOv2 has 4.5 GB
SHIPPED = epath.Path(__file__).parents[1] / "pretrained" / "weights"


POOL = {"pool": slice(None)}
POOL_OF_CLASSIFIER = {"pool": slice(0, classifier.WIDTH)}
WHOSE = {
    "pool": "every network",
    "probabilities": "a classifier of --job=features or the Inception network",
    "classes": "a classifier of --job=features",
    "spatial": "the Inception network (docs/inception.md)",
    "clip": "a folder of CLIP's weights",
}
"""Kind of features -> the networks that have it."""
DATA = "data"  # the pipeline that rounds samples to the grid of the data's own pixels


class Features(NamedTuple):
    """A network whose features images are compared by.

    Attributes:
      name: name of the network in reports, with the first digits of the hash of the weights.
      width: number of features, of all kinds.
      shape: (side, channels) of the images it is for; None for grey or coloured ones of any size.
      facts: how it was trained, as its file says.
      forward: images [b, H, W, C] in [-1, 1] -> features [b, width], compiled.
      batch: images at a time.
      kinds: which of the features are of which kind: `pool`; of classifiers and Inception `probabilities`, of
        classifiers also as `classes`, those of the data; of Inception `spatial`; of CLIP `clip`, those that stand
        beside the features of a text.
      pipeline: the way of samples to the network, such as "edm"; "data" for the grid of the data's own pixels.
    """

    name: str
    width: int
    shape: tuple[int, int] | None
    facts: dict[str, str]
    forward: Callable[[np.ndarray], Array]
    batch: int
    kinds: dict[str, slice] = POOL
    pipeline: str = DATA

    def check(self, side: int, channels: int) -> None:
        """
        Raises:
          ValueError: if images of this shape cannot be looked at.
        """
        if self.shape is not None and (side, channels) != self.shape:
            raise ValueError(f"{self.name}: is for images of (side, channels) {self.shape}, not {(side, channels)}")
        if channels not in (1, 3):
            raise ValueError(f"{self.name}: is for pictures, grey or coloured, not for {channels} channels")

    def shown(
        self,
        images: Float[np.ndarray, "n height width channel"],
        on_grid: Callable[[np.ndarray], np.ndarray],
    ) -> Float[np.ndarray, "n height width channel"]:
        """Samples as the pipeline keeps them in picture files.

        Args:
          on_grid: puts them on the grid of the data's own pixels.
        """
        if self.pipeline == DATA:
            return on_grid(images)
        spoilt = ~np.isfinite(images)
        kept = pipelines.PIPELINES[self.pipeline].shown(np.where(spoilt, 0.0, images).astype(images.dtype))
        return np.where(spoilt.any(axis=(1, 2, 3), keepdims=True), np.float32(np.nan), kept)

    def look(
        self, images: Float[np.ndarray, "n height width channel"], devices: Sequence[jax.Device] = ()
    ) -> Float[np.ndarray, "n feature"]:
        """Features of images in [-1, 1], float32, whatever they are; `check_finite` says what is wrong with them.

        Args:
          devices: devices of this process to spread the images over; JAX's first if empty.
        """
        if not len(images):
            return np.zeros((0, self.width), np.float32)
        return _in_batches(self.forward, np.asarray(images, np.float32), self.batch, devices)

    def check_finite(self, spoilt: int, found: Float[np.ndarray, "n feature"]) -> None:
        """
        Args:
          spoilt: how many of the images hold pixels that are not finite.
          found: what `look` makes of them.

        Raises:
          UserError: if pixels, or what the network makes of them, are NaN or infinite.
        """
        if spoilt:
            raise UserError(
                f"{spoilt} of {len(found)} images hold pixels that are NaN or infinite: where a network drew them, "
                f"take an earlier checkpoint or train with a lower learning rate; where they are data, mend the files"
            )
        if lost := not_finite(found):
            raise UserError(
                f"{self.name}: the features of {lost} of {len(found)} images are NaN or infinite: give pixels in "
                f"[-1, 1], or other features as evaluation.features"
            )

    def extract(self, images: Float[np.ndarray, "n height width channel"]) -> Float[np.ndarray, "n feature"]:
        """Features of images in [-1, 1], float32 and finite.

        Raises:
          ValueError: if there are none, or they are of a shape that these features are not for.
          UserError: see `check_finite`.
        """
        if images.ndim != 4 or not len(images):
            raise ValueError(f"images of shape {images.shape}: give [n, height, width, channel], at least one")
        self.check(images.shape[1], images.shape[3])
        images = np.asarray(images, np.float32)
        found = self.look(images)
        self.check_finite(not_finite(images), found)
        return found


def accuracy(
    network: classifier.Classifier, images: Float[np.ndarray, "n height width channel"], labels: Int[np.ndarray, " n"]
) -> float:
    """The share of images that it puts into their class."""
    predicted = _in_batches(jax.jit(lambda x: jnp.argmax(network(x)[1], axis=-1)), images, BATCH)
    return float(np.mean(predicted == labels))


def not_finite(examples: np.ndarray) -> int:
    """How many of the examples hold a value that is NaN or infinite."""
    values = tuple(range(1, examples.ndim))
    return int(sum(np.sum(~np.isfinite(examples[block]).all(axis=values)) for block in blocks(len(examples))))


def _in_batches(
    function: Callable[[Any], Array], images: np.ndarray, size: int, devices: Sequence[jax.Device] = ()
) -> np.ndarray:
    """function(images), of one compiled shape; what fills the last batch is cut off.

    Args:
      size: images on each device at a time, at most.
    """
    devices = devices or jax.local_devices()[:1]
    spread = NamedSharding(Mesh(np.array(devices), "images"), PartitionSpec("images"))
    size = min(size, -(-len(images) // len(devices))) * len(devices)
    padded = np.concatenate([images, np.zeros((-len(images) % size, *images.shape[1:]), images.dtype)])
    parts = [np.asarray(function(jax.device_put(padded[i : i + size], spread))) for i in range(0, len(padded), size)]
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
    features: Features,
    read: Callable[[], Iterator[Float[np.ndarray, "b height width channel"]]],
    number: int,
    devices: Sequence[jax.Device] = (),
    cache: epath.PathLike | None = None,
    *,
    stored: Callable[[], Iterator[Float[np.ndarray, "b ..."]]] | None = None,
    made_by: str = "",
) -> Float[np.ndarray, "number feature"]:
    """Features of real images, kept in a folder under the hash of what they are made from.

    What is kept there is used only if it is whole. Where it is not, or the folder cannot be written, a line on standard
    error says so and the features are computed.

    Args:
      read: the images in [-1, 1] from the first on, batch by batch, each time it is called.
      number: how many there are.
      devices: devices of this process to compute on; JAX's first if empty.
      cache: the folder; `cache_folder()` if None.
      stored: what the images are made from, which is cheaper to read; the images themselves if None.
      made_by: what makes them from it.

    Raises:
      UserError: see `Features.check_finite`.
    """

    spoilt, made_from = 0, hashlib.sha256()

    def extracted() -> Iterator[Float[np.ndarray, "b feature"]]:
        nonlocal spoilt
        for images in read():
            spoilt += not_finite(images)
            yield features.look(images, devices)

    try:
        folder = cache_folder() if cache is None else epath.Path(cache)
        for part in (stored or read)():
            made_of = f"{features.name} {(number, *part.shape[1:])} {part.dtype}{made_by}"
            made_from.update(made_of.encode())
            made_from.update(np.ascontiguousarray(part).data)
        path = folder / f"features-{made_from.hexdigest()}.npy"
        if path.exists():
            try:
                return _kept(path, (number, features.width))
            except UserError as error:
                print(f"WARNING: {error}; the features are computed again", file=sys.stderr, flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file.replacing(path) as temporary:
            _write(temporary, extracted(), (number, features.width))
            found = _kept(temporary, (number, features.width))
            features.check_finite(spoilt, found)
        return found
    except OSError as error:
        print(f"WARNING: features of the real images are not kept: {first_line(error)}", file=sys.stderr, flush=True)
    spoilt, found = 0, np.concatenate(list(extracted()))
    features.check_finite(spoilt, found)
    return found


def _write(path: epath.Path, batches: Iterator[Float[np.ndarray, "b feature"]], shape: tuple[int, int]) -> None:
    """An .npy file of the features, never all of them in memory; behind them stands their hash."""
    content = hashlib.sha256()
    with open(path, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for batch in batches:
            content.update(batch.data)
            file.write(batch.data)
        file.write(content.digest())


def _kept(path: epath.Path, shape: tuple[int, int]) -> Float[np.ndarray, "n feature"]:
    """The features that a file keeps, mapped into memory: the system reads what is looked at.

    Raises:
      UserError: naming the file, if it does not hold what was written there.
    """
    if not os.path.isfile(path):  # a pipe would be waited for
        raise UserError(f"{path}: is not a file")
    try:
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # nobody lists what a parser and the system raise for a spoilt file
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from error
    with open(path, "rb") as file:
        file.seek(-hashlib.sha256().digest_size, os.SEEK_END)
        if (found.shape, found.dtype) != (shape, np.float32) or file.read() != sha256_of(found):
            raise UserError(f"{path}: is not what was written there")
    return found


def load(path: epath.PathLike, kinds: Collection[str] = ("pool",), pipeline: str = DATA) -> Features:
    """The features of a classifier's file, of the Inception network's (docs/inception.md), of DINOv2's, or of CLIP.

    Args:
      path: the file, CLIP's folder, or the name of a data set whose classifier is shipped.
      kinds: kinds of features that are wanted, see `Features`.
      pipeline: "data", or for Inception a name in `pipelines.PIPELINES`.

    Raises:
      UserError: if there is no such file, it holds none of them, or they have no such kind.
    """
    path, shipped = epath.Path(path), {one.stem: one for one in sorted(SHIPPED.glob("*.safetensors"))}
    path = shipped.get(str(path), path) if path.is_dir() or not path.exists() else path
    if not path.exists():
        raise UserError(
            f"{path}: there are no such features (shipped: {', '.join(shipped)}). --job=features trains a classifier "
            f"of the data set; docs/inception.md says how to bring the Inception network. Name the file as "
            f"evaluation.features"
        )
    found = _of_clip(path) if path.is_dir() else _of_file(path, kinds, pipeline)
    if pipeline != found.pipeline:
        raise UserError(f"{path}: evaluation.pipeline = {pipeline!r}: needs {WHOSE['spatial']}, which this is not")
    for kind in sorted(set(kinds) - set(found.kinds)):
        raise UserError(f"{path}: features of the kind {kind}: needs {WHOSE[kind]}, which this is not")
    return found


def _of_file(path: epath.Path, kinds: Collection[str], pipeline: str) -> Features:
    arrays, facts = arrays_lib.read(path, MOST_BYTES)
    digest = arrays_lib.digest(arrays)[:8]
    with concerning(str(path)):
        if inception.is_inception(arrays):
            return _of_inception(inception.from_public(arrays), facts, digest, kinds, pipeline)
        if dinov2.is_dinov2(arrays):
            return _of_dinov2(arrays, facts, digest)
        if "shape" not in facts:
            raise ValueError("holds no classifier of --job=features, and neither the Inception network nor DINOv2")
        network = classifier.from_arrays(arrays, facts)
        dataset = facts.get("dataset", "")
        if not (dataset.isprintable() and 0 < len(dataset) <= 100):
            raise ValueError(f"its fact dataset = {dataset!a:.80}: must be the name of the data set trained on")
    side, channels, classes = classifier.shape_of(facts)
    name, shape, width = f"{dataset} classifier {digest}", (side, channels), classifier.WIDTH
    if not {"probabilities", "classes"} & set(kinds):
        return Features(name, width, shape, facts, jax.jit(lambda images: network(images)[0]), 512)

    def look(images: Float[Array, "b height width channel"]) -> Float[Array, "b feature"]:
        found, logits = network(images)
        return jnp.concatenate([found, jax.nn.softmax(logits)], axis=-1)

    columns = POOL_OF_CLASSIFIER | dict.fromkeys(("probabilities", "classes"), slice(width, width + classes))
    return Features(name, width + classes, shape, facts, jax.jit(look), 512, columns)


def _of_inception(
    network: inception.Inception, facts: dict[str, str], digest: str, kinds: Collection[str], pipeline: str
) -> Features:
    resizing = pipelines.PIPELINES[pipeline].resizing if pipeline != DATA else "tensorflow"

    def look(images: Float[Array, "b height width channel"]) -> Float[Array, "b feature"]:
        colours = jnp.broadcast_to(images, (*images.shape[:3], 3))
        if set(kinds) == {"pool"} and resizing == "tensorflow":
            return network(colours)
        outputs = network.outputs(colours, resizing)
        return jnp.concatenate([getattr(outputs, kind) for kind in columns], axis=-1)

    widths = {"pool": inception.WIDTH, "spatial": inception.SPATIAL_WIDTH, "probabilities": inception.CLASSES}
    columns, width = {}, 0
    for kind in (kind for kind in widths if kind in {"pool", *kinds}):
        columns[kind] = slice(width, width + widths[kind])
        width += widths[kind]
    name = f"Inception {digest}" + (f", {pipeline}" if pipeline != DATA else "")
    return Features(name, width, None, facts, jax.jit(look), INCEPTION_BATCH, columns, pipeline)


def _of_dinov2(arrays: dict[str, np.ndarray], facts: dict[str, str], digest: str) -> Features:
    network = dinov2.from_arrays(arrays, position_offset=dinov2.HUB_OFFSET)  # as in published distances
    width = network.hidden_size
    forward = jax.jit(lambda images: network(dinov2.prepare(images))[1])
    return Features(f"DINOv2 {digest}", width, None, facts, forward, INCEPTION_BATCH)


def _of_clip(folder: epath.Path) -> Features:
    network = clip_vision.load(str(folder))
    if network.projection is None:
        raise UserError(f"{folder}: this CLIP has no projection, so its features cannot stand beside a text's")
    state = {".".join(map(str, path)): np.asarray(x) for path, x in _flat(network)}

    def look(images: Float[Array, "b height width channel"]) -> Float[Array, "b feature"]:
        colours = jnp.broadcast_to(images, (*images.shape[:3], 3))
        return network(clip_vision.prepare(colours, network.image_size))[1]

    whole = slice(0, network.projection.out_features)
    columns = {"pool": whole, "clip": whole}
    return Features(
        f"CLIP {arrays_lib.digest(state)[:8]}", whole.stop, None, {}, jax.jit(look), INCEPTION_BATCH, columns
    )


def _flat(network: nnx.Module) -> list[tuple[tuple[Any, ...], Any]]:
    return list(nnx.traversals.flatten_mapping(nnx.to_pure_dict(nnx.state(network, nnx.Param))).items())
