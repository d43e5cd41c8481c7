"""DINOv2 (Oquab et al. 2023): a transformer whose features tell pictures apart without labels.

Weights are read under Hugging Face's names, from the safetensors files that Meta publishes there, such as
`facebook/dinov2-large` (those with registers are other networks). The Fréchet distance in the features of ViT-L/14 is
FD-DINOv2 (Stein et al. 2023).
"""

import math
import re
from collections.abc import Callable, Collection, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from diffcurr import weights
from diffcurr.pretrained import blocks, resizing
from diffcurr.stacked import scan, stack
from diffcurr.weights import Layout, Path, Source, Transform

EPSILON = 1e-6  # of the layer norms
HEAD_WIDTH = 64  # of every published size: S 384 / 6 heads, B 768 / 12, L 1024 / 16, g 1536 / 24
SIDE = 224  # of the images that FD-DINOv2 looks at
HUB_OFFSET = 0.1  # `position_offset` of the network that Meta's hub gives, and so of published figures of FD-DINOv2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in [0, 1]

LAYERS = {
    "patches": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
    "norm1": "encoder.layer.{}.norm1",
    "norm2": "encoder.layer.{}.norm2",
    "query": "encoder.layer.{}.attention.q_proj",
    "key": "encoder.layer.{}.attention.k_proj",
    "value": "encoder.layer.{}.attention.v_proj",
    "out": "encoder.layer.{}.attention.o_proj",
}
OLD_LAYERS = {  # in the published files
    "query": "encoder.layer.{}.attention.attention.query",
    "key": "encoder.layer.{}.attention.attention.key",
    "value": "encoder.layer.{}.attention.attention.value",
    "out": "encoder.layer.{}.attention.output.dense",
}
MLP = {"inner": "encoder.layer.{}.mlp.fc1", "outer": "encoder.layer.{}.mlp.fc2"}
SWIGLU = {"inner": "encoder.layer.{}.mlp.weights_in", "outer": "encoder.layer.{}.mlp.weights_out"}
WHOLE = {  # parameters that are no layer's kernel, scale or bias
    "cls_token": "embeddings.cls_token",
    "positions": "embeddings.position_embeddings",
    "scale1": "encoder.layer.{}.layer_scale1.lambda1",
    "scale2": "encoder.layer.{}.layer_scale2.lambda1",
}


class DINOv2(nnx.Module):
    """Patches -> transformer blocks: images float [B, H, W, 3] to (states [B, 1 + N, D], pooled [B, D]).

    Images are scaled as by `prepare`. One has N = (H // patch_size) (W // patch_size) patches; pixels that do not fill
    one are left out. States are those after the last norm, the class token's first; `pooled` is the class token's.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        swiglu: bool = False,
        *,
        position_offset: float = 0.0,
        rngs: nnx.Rngs,
    ):
        """
        Args:
          image_size: side of the images that the position embeddings are for; at other sides they are interpolated.
          hidden_size: width D; divisible by num_heads.
          mlp_ratio: width of each block's MLP, as a multiple of hidden_size; with swiglu, two thirds of it.
          swiglu: whether MLPs are gated by SiLU (the largest published network's are), else GELU.
          position_offset: added to the number of patches along an axis when the scale of the interpolation is computed:
            0 is Hugging Face's, `HUB_OFFSET` that of the network on Meta's hub.

        Raises:
          ValueError: naming the argument, if the sizes do not fit.
        """
        if hidden_size % num_heads:
            raise ValueError(f"hidden_size = {hidden_size}: must be divisible by num_heads = {num_heads}")
        if image_size < patch_size:
            raise ValueError(f"image_size = {image_size}: must hold a patch of patch_size = {patch_size}")
        self.patch_size, self.hidden_size, self.num_layers, self.swiglu = patch_size, hidden_size, num_layers, swiglu
        self.side, self.position_offset = image_size // patch_size, position_offset
        self.patches = nnx.Conv(
            3,
            hidden_size,
            (patch_size, patch_size),
            strides=patch_size,
            padding="VALID",
            precision=blocks.PRECISION,
            rngs=rngs,
        )
        self.cls_token = nnx.Param(jnp.zeros(hidden_size))
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1 + self.side**2, hidden_size)))

        def block(rngs: nnx.Rngs) -> Block:
            return Block(hidden_size, num_heads, inner_width(hidden_size, mlp_ratio, swiglu), swiglu, rngs=rngs)

        self.blocks = stack(block, num_layers, rngs)
        self.norm = nnx.LayerNorm(hidden_size, epsilon=EPSILON, use_fast_variance=False, rngs=rngs)

    def __call__(
        self, images_bhwc: Float[Array, "batch height width 3"]
    ) -> tuple[Float[Array, "batch token feature"], Float[Array, "batch feature"]]:
        x = self.patches(images_bhwc)
        rows, columns = x.shape[1:3]
        token_b1d = jnp.broadcast_to(self.cls_token[...], (len(x), 1, self.hidden_size))
        x = jnp.concatenate([token_b1d, x.reshape(len(x), rows * columns, self.hidden_size)], axis=1)
        states = self.norm(scan(self.blocks, x + self._positions(rows, columns)))
        return states, states[:, 0]

    def _positions(self, rows: int, columns: int) -> Float[Array, "token feature"]:
        positions = self.positions[...]
        if rows == columns == self.side:
            return positions

        def matrix(to: int) -> Array:
            return jnp.asarray(resizing.torch_bicubic(self.side, to, self.side / (to + self.position_offset)))

        grid = positions[1:].reshape(self.side, self.side, self.hidden_size)
        grid = jnp.einsum("ih,jw,hwd->ijd", matrix(rows), matrix(columns), grid, precision=blocks.PRECISION)
        return jnp.concatenate([positions[:1], grid.reshape(rows * columns, self.hidden_size)])

    def torch_layout(self, arrays: Collection[str]) -> Layout:
        """Where each parameter comes from (`diffcurr.networks.convert.load_torch`).

        Args:
          arrays: the public arrays by name, or their names; attention as in the published files, or as in newer ones.
        """
        old = any(".attention.attention." in name for name in arrays)
        layers = LAYERS | (OLD_LAYERS if old else {}) | (SWIGLU if self.swiglu else MLP)
        sources = {path: self._source(path, layers) for path in weights.parameters_of(self)}
        return Layout(sources, ignored=frozenset({"embeddings.mask_token"}))

    def _source(self, path: Path, layers: Mapping[str, str]) -> Source:
        kind, stacked = str(path[-1]), path[0] == "blocks"
        if kind in WHOLE:
            public, transform = WHOLE[kind], weights.same
            if kind in ("cls_token", "positions"):
                transform = _without_axes(1 if kind == "cls_token" else 2)
        else:
            public = f"{layers[str(path[-2])]}.{'bias' if kind == 'bias' else 'weight'}"
            transform = weights.kernel if kind == "kernel" else weights.same
        names = tuple(public.format(layer) for layer in range(self.num_layers)) if stacked else (public,)
        return Source(names, transform, stacked)


class Block(nnx.Module):
    """Self-attention and an MLP, each after a norm and before a learned scale of its channels."""

    def __init__(self, hidden_size: int, num_heads: int, inner: int, swiglu: bool, *, rngs: nnx.Rngs):
        self.swiglu = swiglu
        self.norm1, self.norm2 = (blocks.layer_norm(hidden_size, epsilon=EPSILON, rngs=rngs) for _ in range(2))
        self.attention = blocks.Attention(hidden_size, num_heads, rngs=rngs)
        self.inner = blocks.linear(hidden_size, 2 * inner if swiglu else inner, rngs=rngs)
        self.outer = blocks.linear(inner, hidden_size, rngs=rngs)
        self.scale1, self.scale2 = nnx.Param(jnp.ones(hidden_size)), nnx.Param(jnp.ones(hidden_size))

    def __call__(self, x: Float[Array, "batch token feature"]) -> Float[Array, "batch token feature"]:
        x = x + self.scale1[...] * self.attention(self.norm1(x))
        inner = self.inner(self.norm2(x))
        if self.swiglu:
            gate, inner = jnp.split(inner, 2, axis=-1)
            inner = nnx.silu(gate) * inner
        else:
            inner = jax.nn.gelu(inner, approximate=False)
        return x + self.scale2[...] * self.outer(inner)


def inner_width(hidden_size: int, mlp_ratio: float, swiglu: bool) -> int:
    """The width of a block's MLP; that of a gated one is two thirds of it, rounded up to a multiple of 8."""
    width = int(hidden_size * mlp_ratio)
    return (int(width * 2 / 3) + 7) // 8 * 8 if swiglu else width


def is_dinov2(names: Collection[str]) -> bool:
    """Says whether the names of arrays look like those of a published DINOv2."""
    return "embeddings.cls_token" in names and "encoder.layer.0.layer_scale1.lambda1" in names


def sizes_of(arrays: Mapping[str, np.ndarray], num_heads: int | None = None) -> dict[str, int | float | bool]:
    """The arguments of `DINOv2` for the network of these arrays, from their names and shapes.

    Args:
      num_heads: hidden_size / 64 if None, as in every published network.

    Raises:
      ValueError: if arrays that say the sizes are missing or of other shapes.
    """
    swiglu = "encoder.layer.0.mlp.weights_in.weight" in arrays
    inner = (SWIGLU if swiglu else MLP)["outer"].format(0) + ".weight"
    position, width, patch = (
        _shape(arrays, name, axes)
        for name, axes in ((WHOLE["positions"], 3), (inner, 2), (f"{LAYERS['patches']}.weight", 4))
    )
    hidden_size, side = patch[0], math.isqrt(max(position[1] - 1, 0))
    if side**2 + 1 != position[1] or not side or patch[2] != patch[3]:
        raise ValueError(f"position embeddings {position} and patches {patch}: are not of square images and patches")
    if num_heads is None and (hidden_size < HEAD_WIDTH or hidden_size % HEAD_WIDTH):
        raise ValueError(f"hidden_size = {hidden_size}: is no multiple of {HEAD_WIDTH}; give num_heads")
    layers = [re.fullmatch(r"encoder\.layer\.([0-9]{1,4})\.norm1\.weight", name) for name in arrays]
    ratios = [factor / hidden_size for factor in ((1.5 * width[1],) if swiglu else (width[1], width[1] + 0.5))]
    fitting = [ratio for ratio in ratios if inner_width(hidden_size, ratio, swiglu) == width[1]]
    if not fitting:
        raise ValueError(f"{inner}: has shape {width}: gated MLPs are a multiple of 8 wide")
    return {
        "image_size": side * patch[2],
        "patch_size": patch[2],
        "hidden_size": hidden_size,
        "num_layers": sum(one is not None for one in layers),
        "num_heads": hidden_size // HEAD_WIDTH if num_heads is None else num_heads,
        "mlp_ratio": fitting[0],
        "swiglu": swiglu,
    }


def from_arrays(arrays: Mapping[str, np.ndarray], num_heads: int | None = None, position_offset: float = 0.0) -> DINOv2:
    """The network whose weights a published file holds; its sizes are those of the arrays.

    Raises:
      ValueError: if arrays are missing, left over, of another shape, no floats or not finite; the message names them.
    """
    sizes = sizes_of(arrays, num_heads)
    network = nnx.eval_shape(
        lambda: DINOv2(**sizes, position_offset=position_offset, rngs=nnx.Rngs(0))  # type: ignore[arg-type]
    )
    weights.load(network, arrays, network.torch_layout(arrays))
    return network


def prepare(images: Float[Array, "batch height width channel"]) -> Float[Array, "batch 224 224 3"]:
    """Images in [-1, 1] of any size as FD-DINOv2's public code (dgm-eval) shows them to the network.

    They are rounded to 0..255, resized to 224x224 as Pillow does it (bicubic, antialiased, rounded after each axis),
    and scaled by the mean and standard deviation of ImageNet's pixels. Grey images count as three equal channels.
    """
    return resizing.as_pillow(images, SIDE, MEAN, STD)


def normalised(
    images: Float[Array, "batch height width channel"], side: int, matrix: Callable[[int, int], np.ndarray]
) -> Float[Array, "batch {side} {side} 3"]:
    """Images in [-1, 1] scaled by the mean and standard deviation of ImageNet's pixels, then resized.

    Args:
      matrix: see `resizing.resize`.
    """
    x = jnp.broadcast_to((images + 1) / 2, (*images.shape[:3], 3))
    return resizing.resize((x - jnp.asarray(MEAN)) / jnp.asarray(STD), side, matrix)


def _without_axes(ndim: int) -> Transform:
    """Three axes, those before the last `ndim` of length 1 <-> the last `ndim`; as it is, if there are others."""

    def without(array: np.ndarray) -> np.ndarray:
        lead = array.ndim - ndim
        return array.reshape(array.shape[lead:]) if lead > 0 and set(array.shape[:lead]) == {1} else array

    return Transform(without, lambda array: array.reshape((1,) * (3 - ndim) + array.shape))


def _shape(arrays: Mapping[str, np.ndarray], name: str, axes: int) -> tuple[int, ...]:
    if name not in arrays:
        raise ValueError(f"arrays missing: {name}: give the file as published")
    shape = np.shape(arrays[name])
    if len(shape) != axes or min(shape) < 1:
        raise ValueError(f"{name}: has shape {shape}, which is none of a DINOv2's: give the file as published")
    return shape
