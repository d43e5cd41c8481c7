"""The network of the Fréchet inception distance (Heusel et al. 2017): Inception-v3 as TensorFlow published it in 2015.

Szegedy et al. 2016 describe Inception-v3. The graph of December 2015, which the distance uses, differs from the later
one in its pooling: average pooling does not count the padding, and the last block uses max pooling. The weights are not
shipped; docs/inception.md says where to get them. They are read under the names of the public PyTorch translation.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from diffcurr.pretrained import resizing as resizing_lib
from diffcurr.pretrained.arrays import check

WIDTH = 2048  # number of features: the channels of the last block, averaged over positions
SIDE = 299  # height and width of the images that the network was trained on
EPSILON = 1e-3  # added to the variance in batch normalisation
CLASSES = 1008  # logits of the graph of 2015
# ADM's evaluator takes the spatial features of sFID (Nash et al. 2021) from the graph's tensor `mixed_6/conv:0`. The
# blocks mixed, mixed_1, ... are the translation's Mixed_5b, Mixed_5c, ...: mixed_6 is Mixed_6d, and mixed_6/conv its
# first branch, branch1x1. The node of a layer's own name is its last one, the ReLU after the batch normalisation (nodes
# mixed_6/conv/Conv2D and mixed_6/conv/batchnorm come before it). So these are the block's first channels.
SPATIAL_BLOCK, SPATIAL_CHANNELS = "Mixed_6d", 7
SPATIAL_WIDTH = 17 * 17 * SPATIAL_CHANNELS


class Outputs(NamedTuple):
    """What the evaluators of the literature take from the network.

    Attributes:
      pool: features of the Fréchet distance, and of precision and recall.
      spatial: features of sFID: the first 7 channels at the 17x17 positions of the block `Mixed_6d`.
      probabilities: probability of each class, for the Inception score; as in ADM's evaluator, without the bias of the
        logits.
    """

    pool: Float[Array, "batch 2048"]
    spatial: Float[Array, "batch 2023"]
    probabilities: Float[Array, "batch 1008"]


class Conv(NamedTuple):
    """A convolution, followed by batch normalisation and a ReLU.

    Attributes:
      name: name of the layer in the public PyTorch translation, within its block.
      width: number of output channels.
      kernel: height and width of the kernel.
      stride: stride along both axes.
      padded: whether the input is padded with zeros, so that stride 1 keeps its size.
    """

    name: str
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


class Pool(NamedTuple):
    """A pooling over windows of 3x3 pixels, `average` or `max`. With stride 1 the input is padded to keep its size."""

    kind: str
    stride: int = 1


Layer: TypeAlias = Conv | Pool | tuple[Conv, ...]
"""A layer of a branch. The convolutions in a tuple have the same input, and their outputs are concatenated."""


def _convs(*layers: tuple[str, int, tuple[int, int]]) -> list[Layer]:
    return [Conv(*layer) for layer in layers]


def _block_a(pooled: int) -> list[list[Layer]]:
    return [
        _convs(("branch1x1", 64, (1, 1))),
        _convs(("branch5x5_1", 48, (1, 1)), ("branch5x5_2", 64, (5, 5))),
        _convs(("branch3x3dbl_1", 64, (1, 1)), ("branch3x3dbl_2", 96, (3, 3)), ("branch3x3dbl_3", 96, (3, 3))),
        [Pool("average"), Conv("branch_pool", pooled)],
    ]


def _block_b() -> list[list[Layer]]:
    return [
        [Conv("branch3x3", 384, (3, 3), 2, False)],
        [
            *_convs(("branch3x3dbl_1", 64, (1, 1)), ("branch3x3dbl_2", 96, (3, 3))),
            Conv("branch3x3dbl_3", 96, (3, 3), 2, False),
        ],
        [Pool("max", 2)],
    ]


def _block_c(inner: int) -> list[list[Layer]]:
    return [
        _convs(("branch1x1", 192, (1, 1))),
        _convs(("branch7x7_1", inner, (1, 1)), ("branch7x7_2", inner, (1, 7)), ("branch7x7_3", 192, (7, 1))),
        _convs(
            ("branch7x7dbl_1", inner, (1, 1)),
            ("branch7x7dbl_2", inner, (7, 1)),
            ("branch7x7dbl_3", inner, (1, 7)),
            ("branch7x7dbl_4", inner, (7, 1)),
            ("branch7x7dbl_5", 192, (1, 7)),
        ),
        [Pool("average"), Conv("branch_pool", 192)],
    ]


def _block_d() -> list[list[Layer]]:
    seven = _convs(("branch7x7x3_1", 192, (1, 1)), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1)))
    return [
        [Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), 2, False)],
        [*seven, Conv("branch7x7x3_4", 192, (3, 3), 2, False)],
        [Pool("max", 2)],
    ]


def _block_e(pool: str) -> list[list[Layer]]:
    def crossed(name: str) -> tuple[Conv, ...]:
        return (Conv(f"{name}a", 384, (1, 3)), Conv(f"{name}b", 384, (3, 1)))

    return [
        _convs(("branch1x1", 320, (1, 1))),
        [Conv("branch3x3_1", 384), crossed("branch3x3_2")],
        [Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, (3, 3)), crossed("branch3x3dbl_3")],
        [Pool(pool), Conv("branch_pool", 192)],
    ]


STEM: list[Layer] = [
    Conv("Conv2d_1a_3x3", 32, (3, 3), 2, False),
    Conv("Conv2d_2a_3x3", 32, (3, 3), 1, False),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    Pool("max", 2),
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3), 1, False),
    Pool("max", 2),
]
BLOCKS: dict[str, list[list[Layer]]] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _block_b(),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _block_d(),
    "Mixed_7b": _block_e("average"),
    "Mixed_7c": _block_e("max"),
}
NORMALISATION = ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")


class Inception(nnx.Module):
    """Inception-v3: images float [B, H, W, 3] in [-1, 1], of any size, to features [B, 2048].

    Batch normalisation is folded into the convolutions, so each of them has only a kernel and a bias.
    """

    def __init__(self, *, with_classes: bool = False, rngs: nnx.Rngs):
        """
        Args:
          with_classes: whether it has the classifier, which `outputs` needs.
        """
        convs: dict[str, nnx.Conv] = {}

        def add(prefix: str, layers: Sequence[Layer], width: int) -> int:
            for layer in layers:
                if isinstance(layer, Pool):
                    continue
                side_by_side = (layer,) if isinstance(layer, Conv) else layer
                for conv in side_by_side:
                    convs[prefix + conv.name] = nnx.Conv(
                        width,
                        conv.width,
                        conv.kernel,
                        strides=conv.stride,
                        padding="SAME" if conv.padded else "VALID",
                        precision=jax.lax.Precision.HIGHEST,
                        rngs=rngs,
                    )
                width = sum(conv.width for conv in side_by_side)
            return width

        width = add("", STEM, 3)
        for block, branches in BLOCKS.items():
            width = sum(add(f"{block}.", branch, width) for branch in branches)
        self.convs = nnx.Dict(convs)
        self.head = nnx.Param(jnp.zeros((WIDTH, CLASSES))) if with_classes else None

    def __call__(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch 2048"]:
        return self._features(enlarge(images))[0]

    def outputs(self, images: Float[Array, "batch height width 3"], resizing: str = "tensorflow") -> Outputs:
        """Everything that the evaluators of the literature look at.

        Args:
          images: pixels in [-1, 1], of any size.
          resizing: see `enlarge`.

        Raises:
          ValueError: if there is no such resizing, or the network has no classifier.
        """
        if self.head is None:
            raise ValueError("fc.weight: is not among the weights: give the public translation with its classifier")
        pool, spatial = self._features(enlarge(images, resizing))
        logits = jnp.matmul(pool, self.head[...], precision=jax.lax.Precision.HIGHEST)
        return Outputs(pool, spatial, jax.nn.softmax(logits, axis=-1))

    def _features(
        self, x: Float[Array, "batch 299 299 3"]
    ) -> tuple[Float[Array, "batch 2048"], Float[Array, "batch 2023"]]:
        x = self._apply("", STEM, x)
        for block, branches in BLOCKS.items():
            x = jnp.concatenate([self._apply(f"{block}.", branch, x) for branch in branches], axis=-1)
            if block == SPATIAL_BLOCK:
                spatial = x[..., :SPATIAL_CHANNELS].reshape(len(x), SPATIAL_WIDTH)
        return jnp.mean(x, axis=(1, 2)), spatial

    def _apply(self, prefix: str, layers: Sequence[Layer], x: Array) -> Array:
        for layer in layers:
            if isinstance(layer, Pool):
                x = _pool(layer, x)
            else:
                side_by_side = (layer,) if isinstance(layer, Conv) else layer
                x = jnp.concatenate([nnx.relu(self.convs[prefix + conv.name](x)) for conv in side_by_side], axis=-1)
        return x


def _pool(
    pool: Pool, x: Float[Array, "batch height width channel"]
) -> Float[Array, "batch height_out width_out channel"]:
    window, strides, padding = (3, 3), (pool.stride, pool.stride), "VALID" if pool.stride == 2 else "SAME"
    if pool.kind == "max":
        return nnx.max_pool(x, window, strides, padding)
    return nnx.avg_pool(x, window, strides, padding, count_include_pad=False)


def enlarge(
    images: Float[Array, "batch height width 3"], resizing: str = "tensorflow"
) -> Float[Array, "batch 299 299 3"]:
    """Resizes images to 299x299 and scales their pixels: a pixel p from 0 to 255 becomes (p - 128) / 128.

    Args:
      images: pixels in [-1, 1], where -1 is p = 0 and 1 is p = 255.
      resizing: `tensorflow` is what the first layers of the TensorFlow graph do (bilinear, as by TensorFlow 1 without
        aligned corners), and so ADM's and EDM's; `pillow` is clean-fid's (Parmar et al. 2022): Pillow's antialiased
        bicubic, clipped to 0..255 but not rounded.

    Raises:
      ValueError: if there is no such resizing.
    """
    if resizing not in resizing_lib.RESIZINGS:
        raise ValueError(f"resizing = {resizing!r}: must be one of {', '.join(resizing_lib.RESIZINGS)}")
    x = resizing_lib.resize(images, SIDE, resizing_lib.RESIZINGS[resizing])
    return (x * 127.5 - 0.5) / 128.0 if resizing == "tensorflow" else (jnp.clip(x, -1, 1) * 127.5 - 0.5) / 128.0


def is_inception(names: Collection[str]) -> bool:
    """Says whether the names of arrays look like those of the public PyTorch translation."""
    return "Mixed_7c.branch_pool.conv.weight" in names


def from_public(arrays: Mapping[str, np.ndarray]) -> Inception:
    """Makes the network with the weights of the public PyTorch translation.

    Args:
      arrays: the weights by name. Each convolution, such as `Mixed_5b.branch1x1`, has `.conv.weight`
        [out, in, height, width] and `.bn.weight`, `.bn.bias`, `.bn.running_mean` and `.bn.running_var` [out]. The
        classifier's `fc.weight` [1008, 2048] may be left out. Its `fc.bias` and the counters of batches are ignored.

    Raises:
      ValueError: if arrays are missing, left over, of another shape, no floats or not finite; the message names them.
    """
    classes = "fc.weight" in arrays
    network = nnx.eval_shape(lambda: Inception(with_classes=classes, rngs=nnx.Rngs(0)))
    shapes: dict[str, tuple[int, ...]] = {"fc.weight": (CLASSES, WIDTH)} if classes else {}
    for name, conv in network.convs.items():
        height, width, inside, outside = conv.kernel.shape
        shapes[f"{name}.conv.weight"] = (outside, inside, height, width)
        shapes |= {f"{name}.{part}": (outside,) for part in NORMALISATION}
    ignored = {name for name in arrays if name == "fc.bias" or name.endswith(".num_batches_tracked")}
    check({name: array for name, array in arrays.items() if name not in ignored}, shapes)
    for name, conv in network.convs.items():
        kernel = np.asarray(arrays[f"{name}.conv.weight"], np.float64).transpose(2, 3, 1, 0)
        scale, shift, mean, variance = (np.asarray(arrays[f"{name}.{part}"], np.float64) for part in NORMALISATION)
        if variance.min() < 0:
            raise ValueError(f"{name}.bn.running_var: holds {variance.min():.3g}: a variance is not negative")
        scale = scale / np.sqrt(variance + EPSILON)
        conv.kernel = nnx.Param(jnp.asarray(kernel * scale, jnp.float32))
        conv.bias = nnx.Param(jnp.asarray(shift - mean * scale, jnp.float32))
    if classes:
        network.head = nnx.Param(jnp.asarray(arrays["fc.weight"], jnp.float32).T)
    return network
