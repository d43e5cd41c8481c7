"""What sets of images are compared by: the features of a classifier that was trained on real ones, or Inception's."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from flax import nnx
from jaxtyping import Array, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from diffcurr import atomic_file
from diffcurr.errors import UserError, concerning, first_line
from diffcurr.pretrained import inception

WIDTH = 128  # of a classifier's features
BATCH = 128
INCEPTION_BATCH = 32  # smaller than a classifier's: images are enlarged to 299x299
SHIPPED = epath.Path(__file__).parents[1] / "pretrained" / "weights"


class Classifier(nnx.Module):
    """Convolutions that halve the side until it is at most 4, a dense layer, whose outputs are the features, a head.

    Called with float [B, H, W, C] in [-1, 1], it returns (features [B, 128], logits [B, num_classes]).
    """

    def __init__(self, image_size: int, channels: int, num_classes: int, *, rngs: nnx.Rngs):
        self.convs = nnx.List([nnx.Conv(channels, 32, (3, 3), rngs=rngs)])
        side, width = image_size, 32
        while side > 4:
            self.convs.append(nnx.Conv(width, min(2 * width, WIDTH), (3, 3), strides=2, rngs=rngs))
            side, width = -(-side // 2), min(2 * width, WIDTH)
        self.dense = nnx.Linear(side * side * width, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, num_classes, rngs=rngs)

    def __call__(
        self, images: Float[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch feature"], Float[Array, "batch label"]]:
        x = images
        for conv in self.convs:
            x = nnx.silu(conv(x))
        features = self.dense(x.reshape(len(x), -1))
        return features, self.head(nnx.silu(features))


class Features(NamedTuple):
    """A way to look at images.

    Attributes:
      name: as reports call it, with the first digits of the hash of its weights.
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


def train(
    images: Float[np.ndarray, "train height width channel"],
    labels: Int[np.ndarray, " train"],
    *,
    num_classes: int,
    epochs: int,
    seed: int = 0,
    after_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Classifier:
    """Trains a classifier: AdamW, learning rate 1e-3 falling to 0 by a cosine, weight decay 0.01, batches of 128.

    Args:
      images: in [-1, 1].
      after_epoch: called with (epochs done, mean loss of the last).
    """
    network = Classifier(images.shape[1], images.shape[3], num_classes, rngs=nnx.Rngs(seed))
    graph, params = nnx.split(network)
    steps = len(images) // BATCH
    optimizer = optax.adamw(optax.cosine_decay_schedule(1e-3, steps * epochs), weight_decay=0.01)

    def loss(params: Any, x: Array, y: Array) -> Array:
        logits = nnx.merge(graph, params)(x)[1]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

    @jax.jit
    def step(params: Any, state: Any, x: Array, y: Array) -> tuple[Any, Any, Array]:
        value, gradient = jax.value_and_grad(loss)(params, x, y)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state, rng = optimizer.init(params), np.random.default_rng(seed)
    for epoch in range(epochs):
        losses = []
        for rows in rng.permutation(len(images))[: steps * BATCH].reshape(steps, BATCH):
            params, state, value = step(params, state, images[rows], labels[rows])
            losses.append(value)
        after_epoch(epoch + 1, float(np.mean(jax.device_get(losses))))
    return nnx.merge(graph, params)


def accuracy(
    network: Classifier, images: Float[np.ndarray, "n height width channel"], labels: Int[np.ndarray, " n"]
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


def to_bytes(network: Classifier, facts: dict[str, str]) -> bytes:
    """A safetensors file: the weights, and facts about them."""
    state = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    arrays = {".".join(map(str, path)): np.asarray(x) for path, x in nnx.traversals.flatten_mapping(state).items()}
    return save(arrays, metadata=facts)


def load(path: epath.PathLike) -> Features:
    """The features of a classifier's file, or of the Inception network's (docs/inception.md).

    Raises:
      UserError: if there is no such file, or it holds neither.
    """
    path = epath.Path(path)
    if not path.exists():
        shipped = ", ".join(sorted(one.stem for one in SHIPPED.glob("*.safetensors")))
        raise UserError(
            f"{path}: there are no such features (shipped: {shipped}). --job=features trains a classifier of the data "
            f"set; docs/inception.md says how to bring the Inception network. Name the file as evaluation.features"
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
    size, channels, classes = json.loads(facts["shape"])
    network = Classifier(size, channels, classes, rngs=nnx.Rngs(0))
    flat = {tuple(int(p) if p.isdigit() else p for p in name.split(".")): jnp.asarray(x) for name, x in arrays.items()}
    nnx.update(network, nnx.traversals.unflatten_mapping(flat))
    forward = jax.jit(lambda images: network(images)[0])
    return Features(f"{facts['dataset']} classifier {digest}", WIDTH, (size, channels), facts, forward, 512)


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
