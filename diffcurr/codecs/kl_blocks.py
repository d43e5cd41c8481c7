"""The blocks of the KL autoencoder of latent diffusion (Rombach et al. 2022), under the names of diffusers.

Attributes are named so that the path of each parameter is its public name.
"""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

EPSILON = 1e-6  # added to the variance in group normalisation


class Maker:
    """Makes layers with float32 parameters and one compute dtype, and applies blocks with or without remat."""

    def __init__(self, dtype: Any, groups: int, remat: bool, rngs: nnx.Rngs):
        self._groups, self._rngs = groups, rngs
        self.dtype, self.remat = dtype, remat

    def conv(self, inside: int, outside: int, kernel: int, *, halves: bool = False) -> nnx.Conv:
        """A convolution that keeps the size, or halves it. A halving one is padded at the bottom and right only."""
        return nnx.Conv(
            inside,
            outside,
            (kernel, kernel),
            strides=2 if halves else 1,
            padding=((0, 1), (0, 1)) if halves else kernel // 2,
            dtype=self.dtype,
            rngs=self._rngs,
        )

    def linear(self, inside: int, outside: int) -> nnx.Linear:
        return nnx.Linear(inside, outside, dtype=self.dtype, rngs=self._rngs)

    def norm(self, channels: int) -> nnx.GroupNorm:
        """Group normalisation; Flax computes its statistics in float32."""
        return nnx.GroupNorm(
            channels,
            num_groups=self._groups,
            epsilon=EPSILON,
            use_fast_variance=False,
            dtype=self.dtype,
            rngs=self._rngs,
        )


def apply(block: nnx.Module, x: Array, remat: bool) -> Array:
    """block(x); with remat, the backward pass keeps x alone and computes the block again."""
    if not remat:
        return block(x)
    graph, params = nnx.split(block)
    return jax.checkpoint(lambda params, x: nnx.merge(graph, params)(x))(params, x)


class ResnetBlock(nnx.Module):
    """Two normalised convolutions, and a skip path."""

    def __init__(self, inside: int, outside: int, make: Maker):
        self.norm1 = make.norm(inside)
        self.conv1 = make.conv(inside, outside, 3)
        self.norm2 = make.norm(outside)
        self.conv2 = make.conv(outside, outside, 3)
        self.conv_shortcut = make.conv(inside, outside, 1) if inside != outside else None

    def __call__(self, x: Float[Array, "batch height width inside"]) -> Float[Array, "batch height width outside"]:
        h = self.conv1(nnx.silu(self.norm1(x)))
        h = self.conv2(nnx.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nnx.Module):
    """Self-attention of one head over all positions, added to its input."""

    def __init__(self, channels: int, make: Maker):
        self.group_norm = make.norm(channels)
        self.to_q = make.linear(channels, channels)
        self.to_k = make.linear(channels, channels)
        self.to_v = make.linear(channels, channels)
        self.to_out = nnx.List([make.linear(channels, channels)])

    def __call__(self, x: Float[Array, "batch height width channel"]) -> Float[Array, "batch height width channel"]:
        batch, height, width, channels = x.shape
        h_btd = self.group_norm(x).reshape(batch, height * width, channels)
        query, key, value = (layer(h_btd)[:, :, None] for layer in (self.to_q, self.to_k, self.to_v))
        attended = jax.nn.dot_product_attention(query, key, value)[:, :, 0]
        return x + self.to_out[0](attended).reshape(x.shape)


class Downsample(nnx.Module):
    """Halves the resolution."""

    def __init__(self, channels: int, make: Maker):
        self.conv = make.conv(channels, channels, 3, halves=True)

    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch half_height half_width channel"]:
        return self.conv(x)


class Upsample(nnx.Module):
    """Doubles the resolution: each pixel four times, then a convolution."""

    def __init__(self, channels: int, make: Maker):
        self.conv = make.conv(channels, channels, 3)

    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch double_height double_width channel"]:
        return self.conv(x.repeat(2, axis=1).repeat(2, axis=2))


class DownBlock(nnx.Module):
    """Residual blocks at one resolution; then, but at the lowest, it is halved."""

    def __init__(self, inside: int, outside: int, layers: int, last: bool, make: Maker):
        widths = [inside, *[outside] * (layers - 1)]
        self.resnets = nnx.List([ResnetBlock(width, outside, make) for width in widths])
        self.downsamplers = None if last else nnx.List([Downsample(outside, make)])


class UpBlock(nnx.Module):
    """Residual blocks at one resolution; then, but at the highest, it is doubled."""

    def __init__(self, inside: int, outside: int, layers: int, last: bool, make: Maker):
        widths = [inside, *[outside] * (layers - 1)]
        self.resnets = nnx.List([ResnetBlock(width, outside, make) for width in widths])
        self.upsamplers = None if last else nnx.List([Upsample(outside, make)])


class MidBlock(nnx.Module):
    """A residual block, attention, and another residual block, at the lowest resolution."""

    def __init__(self, channels: int, make: Maker):
        self.resnets = nnx.List([ResnetBlock(channels, channels, make) for _ in range(2)])
        self.attentions = nnx.List([Attention(channels, make)])

    def blocks(self) -> list[nnx.Module]:
        """The blocks, in the order in which they are applied."""
        return [self.resnets[0], self.attentions[0], self.resnets[1]]


class Encoder(nnx.Module):
    """Pixels -> features at the lowest resolution."""

    def __init__(self, inside: int, widths: Sequence[int], layers: int, outside: int, make: Maker):
        """
        Args:
          inside: channels of a picture.
          widths: channels at each resolution, the highest first.
          layers: residual blocks at each resolution.
          outside: channels of the output.
        """
        self.remat = make.remat
        self.conv_in = make.conv(inside, widths[0], 3)
        before, last = [widths[0], *widths], len(widths) - 1
        self.down_blocks = nnx.List(
            [DownBlock(before[level], width, layers, level == last, make) for level, width in enumerate(widths)]
        )
        self.mid_block = MidBlock(widths[-1], make)
        self.conv_norm_out = make.norm(widths[-1])
        self.conv_out = make.conv(widths[-1], outside, 3)

    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch latent_height latent_width outside"]:
        x = self.conv_in(x)
        blocks: list[nnx.Module] = []
        for level in self.down_blocks:
            blocks += [*level.resnets, *(level.downsamplers or ())]
        for block in [*blocks, *self.mid_block.blocks()]:
            x = apply(block, x, self.remat)
        return self.conv_out(nnx.silu(self.conv_norm_out(x)))


class Decoder(nnx.Module):
    """Latents -> pixels."""

    def __init__(self, inside: int, widths: Sequence[int], layers: int, outside: int, make: Maker):
        """
        Args:
          inside: channels of a latent.
          widths: channels at each resolution, the highest first.
          layers: residual blocks of the encoder at each resolution; here there is one more.
          outside: channels of a picture.
        """
        self.remat = make.remat
        self.conv_in = make.conv(inside, widths[-1], 3)
        self.mid_block = MidBlock(widths[-1], make)
        upwards = list(reversed(widths))
        before, last = [upwards[0], *upwards], len(widths) - 1
        self.up_blocks = nnx.List(
            [UpBlock(before[level], width, layers + 1, level == last, make) for level, width in enumerate(upwards)]
        )
        self.conv_norm_out = make.norm(widths[0])
        self.conv_out = make.conv(widths[0], outside, 3)

    def __call__(
        self, z: Float[Array, "batch latent_height latent_width inside"]
    ) -> Float[Array, "batch height width outside"]:
        x = self.conv_in(z)
        blocks: list[nnx.Module] = self.mid_block.blocks()
        for level in self.up_blocks:
            blocks += [*level.resnets, *(level.upsamplers or ())]
        for block in blocks:
            x = apply(block, x, self.remat)
        return self.conv_out(nnx.silu(self.conv_norm_out(x)))
