"""A small classifier whose features images are compared by; digits' and Fashion-MNIST's weights are shipped."""

import re

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from safetensors.numpy import save

from diffcurr.pretrained import arrays as arrays_lib

WIDTH = 128  # number of features
LIMITS = {"side": 1024, "channels": 16, "classes": 100_000}


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


def to_bytes(network: Classifier, facts: dict[str, str]) -> bytes:
    """A safetensors file: the weights, and facts about them, among them those that `from_arrays` needs."""
    state = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    arrays = {_name(path): np.asarray(x) for path, x in nnx.traversals.flatten_mapping(state).items()}
    return save(arrays, metadata=facts)


def from_arrays(arrays: dict[str, np.ndarray], facts: dict[str, str]) -> Classifier:
    """The classifier whose weights and facts a file of `to_bytes` holds.

    Args:
      arrays: floats by name, as many and of such shapes as the network has.
      facts: `shape`, which `shape_of` reads.

    Raises:
      ValueError: naming the fact, or the array, that is not what it must be.
    """
    side, channels, classes = shape_of(facts)
    network = nnx.eval_shape(lambda: Classifier(side, channels, classes, rngs=nnx.Rngs(0)))
    state = nnx.traversals.flatten_mapping(nnx.to_pure_dict(nnx.state(network, nnx.Param)))
    arrays_lib.check(arrays, {_name(path): x.shape for path, x in state.items()})
    found = {path: jnp.asarray(arrays[_name(path)], jnp.float32) for path in state}
    nnx.update(network, nnx.traversals.unflatten_mapping(found))
    return network


def shape_of(facts: dict[str, str]) -> tuple[int, int, int]:
    """(side of the images, channels, classes), from the fact `shape`: such as "[8, 1, 10]".

    Raises:
      ValueError: if it is missing, something else, or beyond `LIMITS`.
    """
    given = facts.get("shape", "")
    numbers = re.fullmatch(r"\[([0-9]{1,6}), ?([0-9]{1,6}), ?([0-9]{1,6})\]", given)
    side, channels, classes = map(int, numbers.groups()) if numbers else (0, 0, 0)
    if not all(1 <= size <= LIMITS[name] for name, size in zip(LIMITS, (side, channels, classes), strict=True)):
        limits = ", ".join(f"{name} 1 to {limit}" for name, limit in LIMITS.items())
        raise ValueError(f"its fact shape = {given!a:.80}: must be [side, channels, classes], {limits}")
    return side, channels, classes


def _name(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))
