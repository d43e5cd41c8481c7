"""The blocks of EDM's U-Nets: residual blocks with attention, convolutions that change the resolution."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx import initializers
from jaxtyping import Array, Bool, Float

from diffcurr.networks.cross_attention import CrossAttention
from diffcurr.networks.layers import Conv, Linear

SKIP_SCALE = math.sqrt(0.5)
EPSILON = 1e-6


class UNetBlock(nnx.Module):
    """Two convolutions around the condition, a skip path, and self-attention where wanted."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        dropout: float,
        make: "Maker",
        *,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
        told_text: bool = False,
    ):
        self.dropout, self.out_channels = dropout, out_channels
        self.norm0 = make.norm(in_channels)
        self.conv0 = make.conv(in_channels, out_channels, 3, up=up, down=down)
        self.affine = make.linear(emb_channels, out_channels)
        self.norm1 = make.norm(out_channels)
        self.conv1 = make.conv(out_channels, out_channels, 3, scale=1e-5)
        changes = in_channels != out_channels or up or down
        self.skip = make.conv(in_channels, out_channels, 1, up=up, down=down) if changes else None
        self.norm2 = make.norm(out_channels) if attention else None
        self.qkv = make.conv(out_channels, 3 * out_channels, 1, scale=math.sqrt(0.2)) if attention else None
        self.proj = make.conv(out_channels, out_channels, 1, scale=1e-5) if attention else None
        told = attention and told_text
        self.text = CrossAttention(out_channels, 1, make.text_linear, emb_channels) if told else None

    def __call__(
        self,
        x: Float[Array, "batch height width channel"],
        emb: Float[Array, "batch width_emb"],
        kept: Bool[Array, "batch height_out width_out channel_out"] | None = None,
        keys_values_bld: Float[Array, "batch word two_widths"] | None = None,
        mask_bl: Bool[Array, "batch word"] | None = None,
    ) -> Float[Array, "batch height_out width_out channel_out"]:
        """
        Args:
          kept: which activations are not dropped.
          keys_values_bld, mask_bl: a text, see `CrossAttention`, for a block that attends to it.
        """
        h = self.conv0(nnx.silu(self.norm0(x)))
        h = nnx.silu(self.norm1(h + self.affine(emb)[:, None, None]))
        if kept is not None:
            h = jnp.where(kept, h / (1.0 - self.dropout), 0.0)
        x = (self.conv1(h) + (x if self.skip is None else self.skip(x))) * SKIP_SCALE
        if self.qkv is None:
            return x
        assert self.norm2 is not None and self.proj is not None
        batch, height, width, channels = x.shape
        # One head; query, key and value alternate along the channels, as in the public network.
        qkv = self.qkv(self.norm2(x)).reshape(batch, height * width, 1, channels, 3)
        attended = jax.nn.dot_product_attention(qkv[..., 0], qkv[..., 1], qkv[..., 2])
        x = (self.proj(attended.reshape(x.shape)) + x) * SKIP_SCALE
        if self.text is None:
            return x
        assert keys_values_bld is not None and mask_bl is not None
        tokens_btd = x.reshape(batch, height * width, channels)
        return x + self.text(tokens_btd, keys_values_bld, mask_bl).reshape(x.shape)


class ResamplingConv(nnx.Module):
    """A convolution that may double or halve the resolution, with a smoothing filter; kernel 0 is the filter alone."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        scale: float,
        up: bool,
        down: bool,
        fused: bool,
        resample_filter: tuple[int, ...],
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.up, self.down, self.fused = up, down, fused
        self.resample_filter, self.padding = resample_filter, kernel // 2
        filter_padding = (len(resample_filter) - 1) // 2
        if fused and down:  # the filter follows the convolution and is not padded itself
            self.padding += filter_padding
        xavier = initializers.xavier_uniform()
        self.conv = (
            Conv(
                in_channels,
                out_channels,
                (kernel, kernel),
                padding=self.padding,
                kernel_init=lambda key, shape, dtype: scale * xavier(key, shape, dtype),
                dtype=dtype,
                rngs=rngs,
            )
            if kernel
            else None
        )

    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch height_out width_out channel_out"]:
        if self.fused and self.down:
            assert self.conv is not None
            return resample(self.conv(x), self.resample_filter, down=True, padding=0)
        if self.up or self.down:
            x = resample(x, self.resample_filter, down=self.down, padding=(len(self.resample_filter) - 1) // 2)
        return x if self.conv is None else self.conv(x)


def resample(
    x: Float[Array, "batch height width channel"], taps: tuple[int, ...], *, down: bool, padding: int
) -> Float[Array, "batch height_out width_out channel"]:
    """Halves or doubles the resolution, each channel by itself, with a separable filter."""
    if taps == (1, 1):  # means of four pixels, and copies: the same, and much faster than as a convolution
        if down:
            b, h, w, c = x.shape
            return jnp.mean(x.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))
        return x.repeat(2, axis=1).repeat(2, axis=2)
    row = np.asarray(taps, np.float32) / np.sum(taps)
    kernel = np.outer(row, row) * (1.0 if down else 4.0)
    channels, reach = x.shape[-1], len(taps) - 1
    return jax.lax.conv_general_dilated(
        x,
        jnp.broadcast_to(jnp.asarray(kernel, x.dtype)[:, :, None, None], (*kernel.shape, 1, channels)),
        window_strides=(2, 2) if down else (1, 1),
        padding=[(padding, padding) if down else (reach - padding, reach - padding)] * 2,
        lhs_dilation=None if down else (2, 2),
        feature_group_count=channels,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


class Maker:
    """Makes layers with float32 parameters, one compute dtype and the public network's initialisation."""

    def __init__(self, dtype: Any, resample_filter: tuple[int, ...], rngs: nnx.Rngs):
        self._dtype, self._filter, self._rngs = dtype, resample_filter, rngs

    def linear(self, in_features: int, out_features: int, *, use_bias: bool = True) -> Linear:
        xavier = initializers.xavier_uniform()
        return Linear(
            in_features, out_features, use_bias=use_bias, kernel_init=xavier, dtype=self._dtype, rngs=self._rngs
        )

    def text_linear(self, in_features: int, out_features: int, kernel_init: Any) -> Linear:
        """See `cross_attention.MakeLinear`."""
        return Linear(in_features, out_features, kernel_init=kernel_init, dtype=self._dtype, rngs=self._rngs)

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        scale: float = 1.0,
        up: bool = False,
        down: bool = False,
        fused: bool = False,
    ) -> ResamplingConv:
        return ResamplingConv(
            in_channels,
            out_channels,
            kernel,
            scale=scale,
            up=up,
            down=down,
            fused=fused,
            resample_filter=self._filter,
            dtype=self._dtype,
            rngs=self._rngs,
        )

    def norm(self, channels: int) -> nnx.GroupNorm:
        groups = min(32, channels // 4)
        return nnx.GroupNorm(
            channels,
            num_groups=groups,
            epsilon=EPSILON,
            dtype=self._dtype,
            use_fast_variance=False,
            rngs=self._rngs,
        )
