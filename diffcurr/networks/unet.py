"""The U-Nets of Song et al. 2021 as reimplemented for EDM (Karras et al. 2022): DDPM++ and NCSN++ arrangements."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Interval, Len, MultipleOf
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from diffcurr import ranges
from diffcurr.networks import embeddings
from diffcurr.networks.cross_attention import TextProjection
from diffcurr.networks.sharded import keep_batch_spread
from diffcurr.networks.unet_blocks import SKIP_SCALE, Maker, UNetBlock

ENCODERS = ("standard", "skip", "residual")
DECODERS = ("standard", "skip")
EMBEDDINGS = ("positional", "fourier")
FOURIER_SCALE = 16.0

Multiple: TypeAlias = Annotated[int, Interval(ge=1, le=64)]


class SongUNet(nnx.Module):
    """A U-Net of residual blocks, some with attention, modulated by noise level, class and augmentation.

    Told a text, which the public network is not, it is modulated by the mean of the states of the words too, and blocks
    with attention attend to the words.

    DDPM++ is `embedding_type="positional"`, `encoder_type="standard"`, `resample_filter=(1, 1)`; NCSN++ is `"fourier"`,
    `"residual"`, `(1, 3, 3, 1)` with `channel_mult_noise=2`. Argument names are the public network's.

    Called with
      x: float [B, H, W, C], H = W = img_resolution;
      noise_labels: float [B], the noise level as the process gives it;
      condition: {"label": float [B, label_dim], or int [B] where label_dim itself stands for "no class"; "augment":
        float [B, augment_dim]; "text": float [B, L, text_width], "text_mask": bool [B, L], the states of the words of
        a text and which of them there are}, without `label` if label_dim is 0, without `augment` where nothing was
        augmented, without a text if text_width is 0; or what `once` makes of these;
      key: random key of the dropped activations; None to drop none;
    it returns float32 [B, H, W, out_channels].
    """

    DERIVED: ClassVar = ("img_resolution", "in_channels", "out_channels", "label_dim", "augment_dim", "text_width")

    @ranges.checked
    def __init__(
        self,
        img_resolution: ranges.Width = 32,
        in_channels: ranges.Width = 3,
        out_channels: ranges.Width = 3,
        label_dim: ranges.Classes = 0,
        augment_dim: ranges.Channels = 0,
        model_channels: Annotated[int, Interval(ge=4, le=2**16), MultipleOf(4)] = 128,
        channel_mult: Annotated[Sequence[Multiple], Len(1, 16)] = (2, 2, 2),
        num_blocks: ranges.Few = 4,
        attn_resolutions: Sequence[ranges.Width] = (16,),
        dropout: ranges.ShareBelowOne = 0.10,
        *,
        text_width: ranges.Classes = 0,
        channel_mult_emb: Multiple = 4,
        embedding_type: Annotated[str, ranges.OneOf(EMBEDDINGS)] = "positional",
        channel_mult_noise: Multiple = 1,
        encoder_type: Annotated[str, ranges.OneOf(ENCODERS)] = "standard",
        decoder_type: Annotated[str, ranges.OneOf(DECODERS)] = "standard",
        resample_filter: Annotated[Sequence[Multiple], Len(1, 16)] = (1, 1),
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """
        Args:
          label_dim: number of classes; 0 for none.
          augment_dim: width of the augmentation labels; 0 for none.
          text_width: width of the states of the words of a text; 0 for a network that is told none.
          model_channels: width at the highest resolution, before `channel_mult` of each resolution.
          num_blocks: residual blocks a resolution (one more in the decoder).
          channel_mult: width at each resolution, as a multiple of model_channels; each halves the one before.
          attn_resolutions: resolutions with attention; the lowest always has it once, in the decoder's middle.
          dropout: within each block, where a key is given.
          channel_mult_emb, channel_mult_noise: widths of the condition and of the noise level's embedding, as multiples
            of model_channels.
          embedding_type: embedding of the noise level: `positional` (DDPM++) or `fourier` (NCSN++).
          encoder_type: `standard`, `residual` or `skip`.
          decoder_type: `standard` or `skip`.
          resample_filter: taps of the filter that halves and doubles the resolution.
          dtype: compute dtype; parameters are float32.

        Raises:
          ValueError: naming the argument, if it is none of its choices or the sizes do not fit.
        """
        if img_resolution % 2 ** (len(channel_mult) - 1):
            raise ValueError(
                f"channel_mult = {tuple(channel_mult)}: an image's side of {img_resolution} cannot be halved "
                f"{len(channel_mult) - 1} times"
            )
        self.label_dim, self.augment_dim, self.dtype = label_dim, augment_dim, jnp.dtype(dtype)
        self.dropout, self.resample_filter = dropout, tuple(resample_filter)
        make = Maker(self.dtype, self.resample_filter, rngs)
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
        self.map_text = make.linear(text_width, noise_channels) if text_width else None
        self.text_projection = TextProjection(text_width, emb_channels, make.text_linear) if text_width else None
        self.map_layer0 = make.linear(noise_channels, emb_channels)
        self.map_layer1 = make.linear(emb_channels, emb_channels)

        def block(inside: int, outside: int, **settings: bool) -> UNetBlock:
            return UNetBlock(inside, outside, emb_channels, dropout, make, told_text=text_width > 0, **settings)

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

    @classmethod
    def from_spec(
        cls, shape: tuple[int, ...], condition: Mapping[str, Any], *, learn_variance: bool, **settings: Any
    ) -> "SongUNet":
        """The network for x of this shape and a condition of these fields (`networks.Network`).

        Raises:
          ValueError: for a condition of other fields than a class label and labels of augmentations, or an image that
            is not square.
        """
        height, width, channels = shape
        if height != width:
            raise ValueError(f"images of {height}x{width}: the U-Net takes square ones")
        fields = dict(condition)
        label, augment, text = (fields.pop(name, None) for name in ("label", "augment", "text"))
        fields.pop("text_mask", None)
        if fields:
            raise ValueError(
                f"the U-Net takes no {', '.join(fields)}: only a class label, a text and labels of augmentations"
            )
        return cls(
            img_resolution=height,
            in_channels=channels,
            out_channels=channels * (2 if learn_variance else 1),
            label_dim=label.num_classes if label else 0,
            augment_dim=augment.shape[0] if augment else 0,
            text_width=text.shape[-1] if text else 0,
            **settings,
        )

    def __call__(
        self,
        x: Float[Array, "batch height width channel"],
        noise_labels: Float[Array, " batch"],
        condition: Mapping[str, Any] = MappingProxyType({}),
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch height width out_channel"]:
        condition = self.once(condition)
        told: dict[str, Array] = condition.get("text_keys_values", {})
        mask_bl = condition.get("text_mask")
        emb = self._condition(noise_labels, condition)
        kept = itertools.repeat(None) if key is None or not self.dropout else self._kept(key, len(x))
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
                is_block = isinstance(layer, UNetBlock)
                x = layer(x, emb, next(kept), told.get(f"enc {name}"), mask_bl) if is_block else layer(x)
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
                x = layer(x, emb, next(kept), told.get(f"dec {name}"), mask_bl)
        assert output is not None
        return output.astype(jnp.float32)

    def once(self, condition: Mapping[str, Any]) -> dict[str, Any]:
        """The condition with what of it depends on neither x nor the noise level computed, for samplers.

        Of a text these are the mean of the states of its words, and keys and values for each block that attends to it.
        """
        if self.text_projection is None or "text_keys_values" in condition:
            return dict(condition)
        if "text" not in condition:
            raise ValueError("this network is told a text: its condition has no 'text'")
        text_bld, mask_bl = condition["text"].astype(jnp.float32), condition["text_mask"]
        mean_bd = jnp.mean(text_bld, axis=1, where=mask_bl[:, :, None])
        projected = self.text_projection(text_bld.astype(self.dtype))
        blocks = [(f"{part} {name}", layer) for part in ("enc", "dec") for name, layer in getattr(self, part).items()]
        told = {
            name: layer.text.keys_values(projected)
            for name, layer in blocks
            if isinstance(layer, UNetBlock) and layer.text is not None
        }
        others = {name: values for name, values in condition.items() if name != "text"}
        return others | {"text_mean": mean_bd, "text_keys_values": told}

    def _kept(self, key: PRNGKeyArray, batch: int) -> Iterator[Bool[Array, "batch height width channel"]]:
        """Which activations each block keeps, in the order of the blocks.

        Masks of one shape are drawn in one loop: compilers copy a random generator into each of its uses, which took
        most of the time of compiling for a GPU.
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

    def _condition(self, noise_labels: Array, condition: Mapping[str, Any]) -> Array:
        if self.frequencies is None:
            emb = embeddings.timestep_embedding(noise_labels, self.noise_channels, endpoint=True)
        else:
            angles = noise_labels[:, None] * (2 * np.pi * jnp.asarray(self.frequencies, jnp.float32))
            emb = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)
        emb = jnp.concatenate(jnp.split(emb, 2, axis=1)[::-1], axis=1).astype(self.dtype)  # sines first
        if self.map_label is not None:
            if "label" not in condition:
                raise ValueError("this network is class-conditional: its condition has no 'label'")
            class_labels = condition["label"]
            if jnp.issubdtype(class_labels.dtype, jnp.integer):
                class_labels = jax.nn.one_hot(class_labels, self.label_dim)
            emb = emb + self.map_label(class_labels * np.sqrt(self.label_dim))
        if self.map_text is not None:
            mean_bd = condition["text_mean"]
            size_b1 = jnp.sqrt(jnp.mean(jnp.square(mean_bd), axis=-1, keepdims=True))  # units differ among encoders
            emb = emb + self.map_text((mean_bd / size_b1).astype(self.dtype))
        if self.map_augment is not None and "augment" in condition:
            emb = emb + self.map_augment(condition["augment"])
        return nnx.silu(self.map_layer1(nnx.silu(self.map_layer0(emb))))
