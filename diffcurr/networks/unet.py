"""The U-Nets of Song et al. 2021 as reimplemented for EDM (Karras et al. 2022): DDPM++ and NCSN++ arrangements."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx import initializers
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from diffcurr.networks import embeddings
from diffcurr.networks.layers import Conv, Linear, keep_batch_spread

ENCODERS = ("standard", "skip", "residual")
DECODERS = ("standard", "skip")
EMBEDDINGS = ("positional", "fourier")
FOURIER_SCALE = 16.0
SKIP_SCALE = math.sqrt(0.5)
EPSILON = 1e-6


class SongUNet(nnx.Module):
    """A U-Net of residual blocks, some with attention, modulated by noise level, class and augmentation.

    DDPM++ is `embedding_type="positional"`, `encoder_type="standard"`, `resample_filter=(1, 1)`; NCSN++ is `"fourier"`,
    `"residual"`, `(1, 3, 3, 1)` with `channel_mult_noise=2`. Argument names are the public network's.

    Called with
      x: float [B, H, W, C], H = W = img_resolution;
      noise_labels: float [B], the noise level as the process gives it;
      class_labels: float [B, label_dim], or int [B] where label_dim itself stands for "no class"; None without classes;
      augment_labels: float [B, augment_dim]; None where nothing was augmented;
    it returns float32 [B, H, W, out_channels].
    """

    def __init__(
        self,
        img_resolution: int = 32,
        in_channels: int = 3,
        out_channels: int = 3,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (2, 2, 2),
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        *,
        channel_mult_emb: int = 4,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[int] = (1, 1),
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """
        Args:
          label_dim: number of classes; 0 for none.
          augment_dim: width of the augmentation labels; 0 for none.
          model_channels: width at the highest resolution, before `channel_mult` of each resolution.
          num_blocks: residual blocks a resolution (one more in the decoder).
          attn_resolutions: those with attention; the lowest resolution always has it once, in the decoder's middle.
          dropout: within each block, where a key is given.
          channel_mult_emb, channel_mult_noise: widths of the condition and of the noise level's embedding.
          dtype: compute dtype; parameters are float32.

        Raises:
          ValueError: naming the argument, if it is none of its choices or the sizes do not fit.
        """
        for name, value, choices in (
            ("embedding_type", embedding_type, EMBEDDINGS),
            ("encoder_type", encoder_type, ENCODERS),
            ("decoder_type", decoder_type, DECODERS),
        ):
            if value not in choices:
                raise ValueError(f"{name} = {value!r}: choose one of {', '.join(choices)}")
        if img_resolution % 2 ** (len(channel_mult) - 1):
            raise ValueError(
                f"channel_mult = {tuple(channel_mult)}: an image's side of {img_resolution} cannot be halved "
                f"{len(channel_mult) - 1} times"
            )
        if model_channels % 4:
            raise ValueError(f"model_channels = {model_channels}: must be divisible by 4")
        self.label_dim, self.augment_dim, self.dtype = label_dim, augment_dim, jnp.dtype(dtype)
        self.dropout, self.resample_filter = dropout, tuple(resample_filter)
        make = _Maker(self.dtype, self.resample_filter, rngs)
        noise_channels, emb_channels = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        self.noise_channels = noise_channels
        # The public network draws these frequencies once and keeps them; a static tuple of floats is kept here.
        self.frequencies = (
            tuple(float(f) for f in FOURIER_SCALE * np.random.default_rng(0).normal(size=noise_channels // 2))
            if embedding_type == "fourier"
            else None
        )
        self.map_label = make.linear(label_dim, noise_channels) if label_dim else None
        self.map_augment = make.linear(augment_dim, noise_channels, use_bias=False) if augment_dim else None
        self.map_layer0 = make.linear(noise_channels, emb_channels)
        self.map_layer1 = make.linear(emb_channels, emb_channels)

        def block(inside: int, outside: int, **settings: bool) -> UNetBlock:
            return UNetBlock(inside, outside, emb_channels, dropout, make, **settings)

        # Blocks are named and ordered as in the public network.
        enc: dict[str, nnx.Module] = {}
        width = aux_width = in_channels
        skips: list[int] = []
        for level, mult in enumerate(channel_mult):
            size = img_resolution >> level
            name = f"{size}x{size}"
            if level == 0:
                width = model_channels
                enc[f"{name}_conv"] = make.conv(in_channels, width, 3)
            else:
                enc[f"{name}_down"] = block(width, width, down=True)
                if encoder_type == "skip":
                    enc[f"{name}_aux_down"] = make.conv(aux_width, aux_width, 0, down=True)
                    enc[f"{name}_aux_skip"] = make.conv(aux_width, width, 1)
                if encoder_type == "residual":
                    enc[f"{name}_aux_residual"] = make.conv(aux_width, width, 3, down=True, fused=True)
                    aux_width = width
            skips.append(width)
            for index in range(num_blocks):
                enc[f"{name}_block{index}"] = block(width, model_channels * mult, attention=size in attn_resolutions)
                width = model_channels * mult
                skips.append(width)
        self.enc = nnx.Dict(enc)

        dec: dict[str, nnx.Module] = {}
        for level, mult in reversed(list(enumerate(channel_mult))):
            size = img_resolution >> level
            name = f"{size}x{size}"
            if level == len(channel_mult) - 1:
                dec[f"{name}_in0"] = block(width, width, attention=True)
                dec[f"{name}_in1"] = block(width, width)
            else:
                dec[f"{name}_up"] = block(width, width, up=True)
            for index in range(num_blocks + 1):
                attention = index == num_blocks and size in attn_resolutions
                dec[f"{name}_block{index}"] = block(width + skips.pop(), model_channels * mult, attention=attention)
                width = model_channels * mult
            if decoder_type == "skip" or level == 0:
                if decoder_type == "skip" and level < len(channel_mult) - 1:
                    dec[f"{name}_aux_up"] = make.conv(out_channels, out_channels, 0, up=True)
                dec[f"{name}_aux_norm"] = make.norm(width)
                dec[f"{name}_aux_conv"] = make.conv(width, out_channels, 3, scale=1e-5)
        self.dec = nnx.Dict(dec)
        self.encoder_order, self.decoder_order = tuple(enc), tuple(dec)

    @staticmethod
    def data_arguments(
        size: int, channels: int, num_classes: int, class_dropout: float, learn_variance: bool, augment_dim: int
    ) -> dict[str, Any]:
        """The arguments that follow from data and process. Without a class its labels are zeros, dropped or not."""
        del class_dropout
        return {
            "img_resolution": size,
            "in_channels": channels,
            "out_channels": channels * (2 if learn_variance else 1),
            "label_dim": num_classes,
            "augment_dim": augment_dim,
        }

    def __call__(
        self,
        x: Float[Array, "batch height width channel"],
        noise_labels: Float[Array, " batch"],
        class_labels: Float[Array, "batch label"] | Int[Array, " batch"] | None = None,
        augment_labels: Float[Array, "batch augment"] | None = None,
        *,
        dropout_key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch height width out_channel"]:
        emb = self._condition(noise_labels, class_labels, augment_labels)
        kept = itertools.repeat(None) if dropout_key is None or not self.dropout else self._kept(dropout_key, len(x))
        x = x.astype(self.dtype)

        skips: list[Array] = []
        aux = x
        for name in self.encoder_order:
            layer = self.enc[name]
            if "aux_down" in name:
                aux = layer(aux)
            elif "aux_skip" in name:
                x = skips[-1] = x + layer(aux)
            elif "aux_residual" in name:
                x = skips[-1] = aux = (x + layer(aux)) * SKIP_SCALE
            else:
                x = layer(x, emb, next(kept)) if isinstance(layer, UNetBlock) else layer(x)
                skips.append(x)

        output: Array | None = None
        for name in self.decoder_order:
            layer = self.dec[name]
            if "aux_up" in name:
                output = layer(output)
            elif "aux_norm" in name:
                normed = layer(x)
            elif "aux_conv" in name:
                more = layer(nnx.silu(normed))
                output = more if output is None else output + more
            else:
                x = jnp.concatenate([x, skips.pop()], axis=-1) if "_block" in name else x
                x = layer(x, emb, next(kept))
        assert output is not None
        return output.astype(jnp.float32)

    def _kept(self, key: PRNGKeyArray, batch: int) -> Iterator[Bool[Array, "batch height width channel"]]:
        """Which activations each block keeps, in the order of the blocks.

        Those of one shape are drawn in a loop of their own: compilers copy a generator into each of its uses, and that
        was most of the time that they took for a GPU.
        """
        layers = [(name, self.enc[name]) for name in self.encoder_order]
        layers += [(name, self.dec[name]) for name in self.decoder_order]
        sides = [(int(name.partition("x")[0]), layer) for name, layer in layers if isinstance(layer, UNetBlock)]
        shapes = [(side, side, block.out_channels) for side, block in sides]
        keys = jax.random.split(key, len(shapes))

        def draw(shape: tuple[int, ...]) -> Iterator[Array]:
            def one(key: PRNGKeyArray) -> Array:
                return keep_batch_spread(jax.random.bernoulli(key, 1.0 - self.dropout, (batch, *shape)))

            return iter(jax.lax.map(one, keys[np.asarray([other == shape for other in shapes])]))

        drawn = {shape: draw(shape) for shape in dict.fromkeys(shapes)}
        return (next(drawn[shape]) for shape in shapes)

    def _condition(self, noise_labels: Array, class_labels: Array | None, augment_labels: Array | None) -> Array:
        if self.frequencies is None:
            emb = embeddings.timestep_embedding(noise_labels, self.noise_channels, endpoint=True)
        else:
            angles = noise_labels[:, None] * (2 * np.pi * jnp.asarray(self.frequencies, jnp.float32))
            emb = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)
        emb = jnp.concatenate(jnp.split(emb, 2, axis=1)[::-1], axis=1).astype(self.dtype)  # sines first
        if self.map_label is not None:
            if class_labels is None:
                raise ValueError("this network is class-conditional: pass class_labels (zeros stand for no class)")
            if jnp.issubdtype(class_labels.dtype, jnp.integer):
                class_labels = jax.nn.one_hot(class_labels, self.label_dim)
            emb = emb + self.map_label(class_labels * np.sqrt(self.label_dim))
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels)
        return nnx.silu(self.map_layer1(nnx.silu(self.map_layer0(emb))))


class UNetBlock(nnx.Module):
    """Two convolutions around the condition, a skip path, and self-attention where wanted."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        dropout: float,
        make: "_Maker",
        *,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
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

    def __call__(
        self,
        x: Float[Array, "batch height width channel"],
        emb: Float[Array, "batch width_emb"],
        kept: Bool[Array, "batch height_out width_out channel_out"] | None = None,
    ) -> Float[Array, "batch height_out width_out channel_out"]:
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
        return (self.proj(attended.reshape(x.shape)) + x) * SKIP_SCALE


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
        if fused and down:  # the filter follows the convolution and takes no padding of its own
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


class _Maker:
    """Makes layers with float32 parameters, one compute dtype and the public network's initialisation."""

    def __init__(self, dtype: Any, resample_filter: tuple[int, ...], rngs: nnx.Rngs):
        self._dtype, self._filter, self._rngs = dtype, resample_filter, rngs

    def linear(self, in_features: int, out_features: int, *, use_bias: bool = True) -> Linear:
        xavier = initializers.xavier_uniform()
        return Linear(
            in_features, out_features, use_bias=use_bias, kernel_init=xavier, dtype=self._dtype, rngs=self._rngs
        )

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
