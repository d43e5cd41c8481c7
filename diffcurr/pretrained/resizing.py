"""Resizing of images as public libraries do it, each in its own way, by a matrix along each axis."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

BITS = 22  # of the fraction in Pillow's weights for pictures of 8 bits: their sums fit into 32


def tensorflow_bilinear(side: int, to: int) -> Float[np.ndarray, "to side"]:
    """The matrix of TensorFlow 1's ResizeBilinear without aligned corners, which does not antialias.

    Output position i is interpolated at input position i side / to; beyond the last input position, that one is taken.
    """
    position = np.arange(to, dtype=np.float32) * (np.float32(side) / np.float32(to))
    low = np.minimum(position.astype(int), side - 1)
    weight = position - low
    matrix = np.zeros((to, side), np.float32)
    matrix[np.arange(to), low] += 1 - weight
    matrix[np.arange(to), np.minimum(low + 1, side - 1)] += weight
    return matrix


def pillow_bicubic(side: int, to: int) -> Float[np.ndarray, "to side"]:
    """The matrix of Pillow's BICUBIC: a = -1/2, antialiased where it makes smaller, without what lies outside."""
    return _pillow_bicubic(side, to).astype(np.float32)


def pillow_bicubic_bytes(
    pixels: Int[Array, "batch height width channel"], to: int
) -> Int[Array, "batch {to} {to} channel"]:
    """Pictures of 8 bits as Pillow's BICUBIC resizes them, bit for bit: with whole weights, rounded after each axis.

    The width is resized first. Pillow 13 begins with the height of pictures that are higher than wide.

    Args:
      pixels: 0 to 255.
    """

    def matrix(side: int) -> Int[Array, "to side"]:
        weights = _pillow_bicubic(side, to) * 2**BITS
        return jnp.asarray(np.trunc(weights + np.copysign(0.5, weights)).astype(np.int32))

    def rounded(sums: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        return jnp.clip((sums + 2 ** (BITS - 1)) >> BITS, 0, 255)

    pixels = rounded(jnp.einsum("jw,bhwc->bhjc", matrix(pixels.shape[2]), pixels.astype(jnp.int32)))
    return rounded(jnp.einsum("ih,bhjc->bijc", matrix(pixels.shape[1]), pixels))


def as_pillow(
    images: Float[Array, "batch height width channel"], to: int, mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "batch {to} {to} 3"]:
    """Images in [-1, 1] rounded to 0..255, resized as by `pillow_bicubic_bytes`, and scaled by their statistics.

    Args:
      mean, std: mean and standard deviation of each colour of pixels in [0, 1]. Grey images count as three channels.
    """
    pixels = jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.int32)
    return (pillow_bicubic_bytes(pixels, to) / 255 - jnp.asarray(mean)) / jnp.asarray(std)


def _pillow_bicubic(side: int, to: int) -> Float[np.ndarray, "to side"]:
    scale = side / to
    distance = (np.arange(side) + 0.5 - (np.arange(to)[:, None] + 0.5) * scale) / max(scale, 1.0)
    matrix = _cubic(distance, -0.5)
    return matrix / matrix.sum(axis=1, keepdims=True)


def torch_bicubic(side: int, to: int, scale: float | None = None) -> Float[np.ndarray, "to side"]:
    """The matrix of PyTorch's `interpolate(mode="bicubic", align_corners=False)`: a = -3/4, edges repeated.

    Args:
      scale: input positions to an output position; side / to if None, as where PyTorch is told the size.
    """
    position = (np.arange(to) + 0.5) * (side / to if scale is None else scale) - 0.5
    low, matrix = np.floor(position).astype(int), np.zeros((to, side))
    for tap in range(-1, 3):
        np.add.at(matrix, (np.arange(to), np.clip(low + tap, 0, side - 1)), _cubic(position - low - tap, -0.75))
    return matrix.astype(np.float32)


def _cubic(x: Float[np.ndarray, "*shape"], a: float) -> Float[np.ndarray, "*shape"]:
    """Keys's cubic convolution kernel (Keys 1981, eq. 4 with a free parameter a)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


RESIZINGS: dict[str, Callable[[int, int], np.ndarray]] = {
    "tensorflow": tensorflow_bilinear,
    "pillow": pillow_bicubic,
}
"""Name -> matrix [to, side] that resizes one axis."""


def resize(
    images: Float[Array, "batch height width channel"], to: int, matrix: Callable[[int, int], np.ndarray]
) -> Float[Array, "batch {to} {to} channel"]:
    """Square images of side `to`."""
    vertical, horizontal = (jnp.asarray(matrix(side, to)) for side in images.shape[1:3])
    x = jnp.einsum("ih,bhwc->biwc", vertical, images, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("jw,biwc->bijc", horizontal, x, precision=jax.lax.Precision.HIGHEST)
