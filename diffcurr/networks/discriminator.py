"""A network that tells pictures from reconstructions, in the manner of StyleGAN2's (Karras et al. 2020)."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

SLOPE = 0.2  # of the leaky rectifier below 0
GROUP = 4  # pictures whose spread one picture is told
SMALLEST = 4  # side at which the picture is no longer halved
MOST = 512  # channels


class Discriminator(nnx.Module):
    """Residual blocks that halve the side, the spread within the batch, a score: high for what looks real.

    Called with float [B, H, W, C] in [-1, 1], it returns float32 [B]. Parameters are drawn with a variance of 1 and
    multiplied by a constant where they are used, so that all learn equally fast (Karras et al. 2018).
    """

    def __init__(
        self, sides: tuple[int, int], in_channels: int, channels: int, *, dtype: Any = "float32", rngs: nnx.Rngs
    ):
        """
        Args:
          sides: height and width of the pictures.
          in_channels: channels of the pictures.
          channels: channels of the first block; each has twice as many as the one before, up to `MOST`.
          dtype: compute dtype; parameters are float32.
        """
        self.dtype = jnp.dtype(dtype)
        self.from_picture = Conv(in_channels, channels, 1, rngs)
        self.blocks = nnx.List([])
        height, width = sides
        while max(height, width) > SMALLEST:
            self.blocks.append(Block(channels, min(2 * channels, MOST), rngs))
            height, width, channels = -(-height // 2), -(-width // 2), min(2 * channels, MOST)
        self.last = Conv(channels + 1, channels, 3, rngs)
        self.hidden, self.score = Conv(height * width * channels, channels, 1, rngs), Conv(channels, 1, 1, rngs)

    def __call__(self, images: Float[Array, "batch height width channel"]) -> Float[Array, " batch"]:
        x = rectified(self.from_picture(images.astype(self.dtype)))
        for block in self.blocks:
            x = block(x)
        x = rectified(self.last(with_spread(x)))
        x = rectified(self.hidden(x.reshape(len(x), 1, 1, -1)))
        return self.score(x).astype(jnp.float32).reshape(-1)


class Conv(nnx.Module):
    """A convolution with an equalised learning rate, which keeps the size."""

    def __init__(self, inside: int, outside: int, size: int, rngs: nnx.Rngs):
        self.gain = 1.0 / math.sqrt(inside * size * size)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (size, size, inside, outside)))
        self.bias = nnx.Param(jnp.zeros(outside))

    def __call__(self, x: Float[Array, "batch height width inside"]) -> Float[Array, "batch height width outside"]:
        kernel = (self.kernel[...] * self.gain).astype(x.dtype)
        found = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return found + self.bias[...].astype(x.dtype)


class Block(nnx.Module):
    """Two convolutions beside a shorter way, to half the side."""

    def __init__(self, inside: int, outside: int, rngs: nnx.Rngs):
        self.first, self.second = Conv(inside, inside, 3, rngs), Conv(inside, outside, 3, rngs)
        self.shortcut = Conv(inside, outside, 1, rngs)

    def __call__(self, x: Float[Array, "batch height width inside"]) -> Float[Array, "batch low narrow outside"]:
        long = rectified(self.second(halved(rectified(self.first(x)))))
        return (long + self.shortcut(halved(x))) / math.sqrt(2.0)


def rectified(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """A leaky rectifier that keeps the mean square."""
    return nnx.leaky_relu(x, SLOPE) * math.sqrt(2.0)


def halved(x: Float[Array, "batch height width channel"]) -> Float[Array, "batch low narrow channel"]:
    """Every second pixel of the picture blurred with (1, 3, 3, 1) / 8 along both axes; an odd side is rounded up."""
    for axis in (1, 2):
        side = x.shape[axis]
        edges = [(0, 0)] * x.ndim
        edges[axis] = (1, 1 + side % 2)
        padded, number = jnp.pad(x, edges), -(-side // 2)
        taps = [
            jax.lax.slice_in_dim(padded, first, first + 2 * (number - 1) + 1, stride=2, axis=axis) for first in range(4)
        ]
        x = (taps[0] + 3.0 * (taps[1] + taps[2]) + taps[3]) / 8.0
    return x


def with_spread(x: Float[Array, "batch height width channel"]) -> Float[Array, "batch height width more"]:
    """A last channel with the mean standard deviation over a group of pictures (Karras et al. 2018, section 3).

    Groups are of `GROUP` pictures, or of the largest number below that divides the batch.
    """
    batch, height, width, channels = x.shape
    group = next(size for size in range(min(GROUP, batch), 0, -1) if batch % size == 0)
    grouped = x.reshape(group, batch // group, height, width, channels).astype(jnp.float32)
    spread = jnp.sqrt(jnp.var(grouped, axis=0) + 1e-8)
    mean = jnp.tile(jnp.mean(spread, axis=(1, 2, 3)), group)
    channel = jnp.broadcast_to(mean[:, None, None, None], (batch, height, width, 1))
    return jnp.concatenate([x, channel.astype(x.dtype)], axis=-1)
