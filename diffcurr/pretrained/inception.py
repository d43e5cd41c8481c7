"""The network of the Fréchet inception distance: Inception-v3 as in TensorFlow's graph of December 2015.

Its weights are the user's to bring, as arrays under the names of the public PyTorch translation (docs/inception.md).
That graph differs from the later Inception-v3 in its pooling: averages leave out the padding, and the last block takes
maxima (Heusel et al. 2017 compare images by it; Szegedy et al. 2016 describe the network).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

WIDTH = 2048  # of the features, the mean over positions of the last block
SIDE = 299  # of the images that it was trained on
EPSILON = 1e-3  # of its batch normalisation


class Conv(NamedTuple):
    """A convolution with its normalisation and rectifier; `padded` to keep the size."""

    name: str
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


class Pool(NamedTuple):
    """A pooling of 3x3; padded to keep the size unless it moves by 2."""

    kind: str
    stride: int = 1


Layer: TypeAlias = Conv | Pool | tuple[Conv, ...]
"""Convolutions in a tuple are beside each other: their outputs are concatenated."""


def _rows(*layers: tuple[str, int, tuple[int, int]]) -> list[Layer]:
    return [Conv(*layer) for layer in layers]


def _block_a(pooled: int) -> list[list[Layer]]:
    return [
        _rows(("branch1x1", 64, (1, 1))),
        _rows(("branch5x5_1", 48, (1, 1)), ("branch5x5_2", 64, (5, 5))),
        _rows(("branch3x3dbl_1", 64, (1, 1)), ("branch3x3dbl_2", 96, (3, 3)), ("branch3x3dbl_3", 96, (3, 3))),
        [Pool("average"), Conv("branch_pool", pooled)],
    ]


def _block_b() -> list[list[Layer]]:
    return [
        [Conv("branch3x3", 384, (3, 3), 2, False)],
        [
            *_rows(("branch3x3dbl_1", 64, (1, 1)), ("branch3x3dbl_2", 96, (3, 3))),
            Conv("branch3x3dbl_3", 96, (3, 3), 2, False),
        ],
        [Pool("max", 2)],
    ]


def _block_c(inner: int) -> list[list[Layer]]:
    return [
        _rows(("branch1x1", 192, (1, 1))),
        _rows(("branch7x7_1", inner, (1, 1)), ("branch7x7_2", inner, (1, 7)), ("branch7x7_3", 192, (7, 1))),
        _rows(
            ("branch7x7dbl_1", inner, (1, 1)),
            ("branch7x7dbl_2", inner, (7, 1)),
            ("branch7x7dbl_3", inner, (1, 7)),
            ("branch7x7dbl_4", inner, (7, 1)),
            ("branch7x7dbl_5", 192, (1, 7)),
        ),
        [Pool("average"), Conv("branch_pool", 192)],
    ]


def _block_d() -> list[list[Layer]]:
    seven = _rows(("branch7x7x3_1", 192, (1, 1)), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1)))
    return [
        [Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), 2, False)],
        [*seven, Conv("branch7x7x3_4", 192, (3, 3), 2, False)],
        [Pool("max", 2)],
    ]


def _block_e(pool: str) -> list[list[Layer]]:
    def crossed(name: str) -> tuple[Conv, ...]:
        return (Conv(f"{name}a", 384, (1, 3)), Conv(f"{name}b", 384, (3, 1)))

    return [
        _rows(("branch1x1", 320, (1, 1))),
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
    """Called with float [B, H, W, 3] in [-1, 1], of any size, it returns the features [B, 2048].

    Normalisations are folded into the convolutions, so that each has a kernel and a bias.
    """

    def __init__(self, *, rngs: nnx.Rngs):
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

    def __call__(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch 2048"]:
        x = self._apply("", STEM, enlarge(images))
        for block, branches in BLOCKS.items():
            x = jnp.concatenate([self._apply(f"{block}.", branch, x) for branch in branches], axis=-1)
        return jnp.mean(x, axis=(1, 2))

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


def enlarge(images: Float[Array, "batch height width 3"]) -> Float[Array, "batch 299 299 3"]:
    """As the graph does it: bilinear, with the first pixels' corners upon each other, pixels p to (p - 128) / 128.

    Args:
      images: in [-1, 1], for pixels from 0 to 255.
    """
    rows, columns = (jnp.asarray(_bilinear(side)) for side in images.shape[1:3])
    x = jnp.einsum("ih,bhwc->biwc", rows, images, precision=jax.lax.Precision.HIGHEST)
    x = jnp.einsum("jw,biwc->bijc", columns, x, precision=jax.lax.Precision.HIGHEST)
    return (x * 127.5 - 0.5) / 128.0


def _bilinear(side: int) -> Float[np.ndarray, "299 side"]:
    """TensorFlow 1's ResizeBilinear along one axis: position i takes from i side / 299, and never beyond the last."""
    at = np.arange(SIDE, dtype=np.float32) * (np.float32(side) / np.float32(SIDE))
    low = np.minimum(at.astype(int), side - 1)
    share = at - low
    matrix = np.zeros((SIDE, side), np.float32)
    matrix[np.arange(SIDE), low] += 1 - share
    matrix[np.arange(SIDE), np.minimum(low + 1, side - 1)] += share
    return matrix


def is_inception(names: Collection[str]) -> bool:
    """Whether arrays of these names look like the public network's."""
    return "Mixed_7c.branch_pool.conv.weight" in names


def from_public(arrays: Mapping[str, np.ndarray]) -> Inception:
    """The network with the public translation's weights.

    Args:
      arrays: `Mixed_5b.branch1x1.conv.weight` [out, in, height, width], `.bn.weight`, `.bn.bias`, `.bn.running_mean`,
        `.bn.running_var` [out], and so on. The classifier (`fc`) and counters are not used.

    Raises:
      ValueError: naming the arrays that are missing, left over or of another shape.
    """
    network = nnx.eval_shape(lambda: Inception(rngs=nnx.Rngs(0)))
    wanted = {f"{name}.{part}" for name in network.convs for part in ("conv.weight", *NORMALISATION)}
    given = {name for name in arrays if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")}
    for what, names in (("missing", wanted - given), ("left over", given - wanted)):
        if names:
            listed = sorted(names)
            raise ValueError(
                f"arrays {what}: {', '.join(listed[:4])}" + (f" and {len(names) - 4} more" * (len(names) > 4))
            )
    for name, conv in network.convs.items():
        kernel = np.asarray(arrays[f"{name}.conv.weight"], np.float64).transpose(2, 3, 1, 0)
        scale, shift, mean, variance = (np.asarray(arrays[f"{name}.{part}"], np.float64) for part in NORMALISATION)
        if kernel.shape != conv.kernel.shape:
            raise ValueError(
                f"{name}.conv.weight: gives a kernel of {kernel.shape}, the network has {conv.kernel.shape}"
            )
        scale = scale / np.sqrt(variance + EPSILON)
        conv.kernel = nnx.Param(jnp.asarray(kernel * scale, jnp.float32))
        conv.bias = nnx.Param(jnp.asarray(shift - mean * scale, jnp.float32))
    return network
