"""A small classifier whose features images are compared by; digits' and Fashion-MNIST's weights are shipped."""

import json

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from safetensors.numpy import save

WIDTH = 128  # number of features


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
    """A safetensors file: the weights, and facts about them."""
    state = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    arrays = {".".join(map(str, path)): np.asarray(x) for path, x in nnx.traversals.flatten_mapping(state).items()}
    return save(arrays, metadata=facts)


def from_arrays(arrays: dict[str, np.ndarray], facts: dict[str, str]) -> Classifier:
    """The classifier whose weights and facts a file of `to_bytes` holds."""
    network = Classifier(*json.loads(facts["shape"]), rngs=nnx.Rngs(0))
    flat = {tuple(int(p) if p.isdigit() else p for p in name.split(".")): jnp.asarray(x) for name, x in arrays.items()}
    nnx.update(network, nnx.traversals.unflatten_mapping(flat))
    return network
