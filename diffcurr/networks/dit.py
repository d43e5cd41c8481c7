"""DiT with adaLN-Zero blocks (Peebles & Xie, "Scalable Diffusion Models with Transformers", 2023).

Told a text, its blocks attend to it as those of PixArt-alpha do (Chen et al. 2023), whose one modulation for all blocks
is the setting `shared_modulation`.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Interval
from flax import nnx
from flax.nnx import initializers
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from diffcurr import ranges
from diffcurr.networks import attention as attention_lib
from diffcurr.networks import embeddings
from diffcurr.networks.cross_attention import CrossAttention, MakeLinear, TextProjection
from diffcurr.networks.layers import Linear
from diffcurr.networks.patches import patchify, unpatchify
from diffcurr.networks.remat import REMAT_POLICIES, in_scan
from diffcurr.stacked import stack

TIME_FEATURES = 256  # width of the sinusoidal time embedding, a constant of the public network


class DiT(nnx.Module):
    """Patches -> transformer blocks modulated by time and class -> patches.

    The blocks are one block with stacked parameters, applied by `jax.lax.scan`.

    Called with
      x: float [B, H, W, C], H = W = input_size;
      t: float [B], the time as the process gives it (0..T-1 for DDPM);
      condition: {"label": int [B]} in 0..num_classes, where num_classes itself stands for "no class", unless that is 0;
        {"text": float [B, L, text_width], "text_mask": bool [B, L]}, the states of the words of a text and which of
        them there are, unless text_width is 0; or what `once` makes of these;
    it returns float32 [B, H, W, C], or [B, H, W, 2C] with learn_sigma.
    """

    DERIVED: ClassVar = ("input_size", "in_channels", "num_classes", "learn_sigma", "class_dropout_prob", "text_width")

    @ranges.checked
    def __init__(
        self,
        input_size: ranges.Width = 32,
        patch_size: ranges.Width = 2,
        in_channels: ranges.Width = 4,
        hidden_size: ranges.Width = 1152,
        depth: ranges.Few = 28,
        num_heads: ranges.Few = 16,
        num_classes: ranges.Classes = 1000,
        learn_sigma: bool = True,
        *,
        mlp_ratio: Annotated[float, Interval(gt=0, le=64)] = 4.0,
        class_dropout_prob: ranges.Share = 0.1,
        text_width: ranges.Classes = 0,
        shared_modulation: bool = False,
        attention: Annotated[str, ranges.OneOf(attention_lib.NAMES)] = "auto",
        remat: Annotated[str, ranges.OneOf(REMAT_POLICIES)] = "none",
        scan_unroll: ranges.Few = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """
        Args:
          input_size: height and width of x, in pixels (or latent positions).
          patch_size: side of a patch; must divide input_size.
          hidden_size: width; divisible by num_heads and by 4.
          depth: number of blocks.
          num_heads: attention heads of each block.
          mlp_ratio: width of each block's MLP, as a multiple of hidden_size.
          num_classes: 0 for an unconditional network.
          learn_sigma: output twice the channels, for a learned variance.
          class_dropout_prob: the share of labels that training replaces by "no class"; above 0 the label table has a
            row for it. The dropping itself is the train step's, which owns all randomness.
          text_width: width of the states of the words of a text; 0 for a network that is told none.
          shared_modulation: compute one modulation for all blocks, to which each adds a table of learned numbers, as
            PixArt-alpha does, instead of one for each block: a third of their parameters less.
          attention: how tokens attend to each other: `xla`, `flash` (on a TPU), `cudnn` (on a GPU), or `auto`, which
            takes XLA's below 1,024 tokens and from there on what the platform has. The numbers are equal to rounding.
          remat: what the backward pass keeps: `none` (recompute nothing), `dots` (keep weight products), `full`.
          scan_unroll: blocks written out per iteration of the scan.
          dtype: compute dtype; parameters are float32.

        Raises:
          ValueError: naming the argument, if the sizes do not fit.
        """
        if input_size % patch_size:
            raise ValueError(f"patch_size = {patch_size}: must divide the image's side of {input_size}")
        if hidden_size % num_heads or hidden_size % 4:
            raise ValueError(f"hidden_size = {hidden_size}: must be divisible by num_heads = {num_heads} and by 4")
        self.input_size, self.patch_size = input_size, patch_size
        self.hidden_size, self.depth, self.learn_sigma = hidden_size, depth, learn_sigma
        self.out_channels = in_channels * (2 if learn_sigma else 1)
        self.remat, self.scan_unroll, self.dtype = remat, scan_unroll, jnp.dtype(dtype)
        self.shares_modulation = shared_modulation
        self.attention, self.head_width = attention, hidden_size // num_heads
        self.choices()  # which refuses what does not run here

        linear = _linear_factory(self.dtype, rngs)
        normal, zeros = initializers.normal(0.02), initializers.zeros_init()
        self.x_embedder = linear(patch_size**2 * in_channels, hidden_size, initializers.xavier_uniform())
        self.t_embedder_in = linear(TIME_FEATURES, hidden_size, normal)
        self.t_embedder_out = linear(hidden_size, hidden_size, normal)
        self.y_embedder = (
            nnx.Embed(
                num_classes + (1 if class_dropout_prob > 0 else 0),
                hidden_size,
                embedding_init=normal,
                rngs=rngs,
            )
            if num_classes
            else None
        )

        settings: dict[str, Any] = {
            "told_text": text_width > 0,
            "shared_modulation": shared_modulation,
            "attention": attention,
        }
        self.blocks = stack(
            lambda rngs: Block(hidden_size, num_heads, mlp_ratio, self.dtype, **settings, rngs=rngs), depth, rngs
        )
        if shared_modulation:
            self.shared_modulation = linear(hidden_size, 6 * hidden_size, normal)
            self.final_table = _table(2, hidden_size, rngs)
        else:
            self.final_modulation = linear(hidden_size, 2 * hidden_size, zeros)
        self.final_linear = linear(hidden_size, patch_size**2 * self.out_channels, zeros)
        self.text_projection = TextProjection(text_width, hidden_size, linear) if text_width else None

    @classmethod
    def from_spec(
        cls, shape: tuple[int, ...], condition: Mapping[str, Any], *, learn_variance: bool, **settings: Any
    ) -> "DiT":
        """The network for x of this shape and a condition of these fields (`networks.Network`).

        Raises:
          ValueError: for a condition that holds more than a class label and a text, or an image that is not square.
        """
        height, width, channels = shape
        if height != width:
            raise ValueError(f"images of {height}x{width}: DiT takes square ones")
        fields = dict(condition)
        label, text = fields.pop("label", None), fields.pop("text", None)
        fields.pop("text_mask", None)
        if fields:
            raise ValueError(f"DiT takes no {', '.join(fields)}; for dataset.augment choose song_unet, or set it to 0")
        return cls(
            input_size=height,
            in_channels=channels,
            num_classes=label.num_classes if label else 0,
            class_dropout_prob=float(label.droppable) if label else 0.0,
            text_width=text.shape[-1] if text else 0,
            learn_sigma=learn_variance,
            **settings,
        )

    def __call__(
        self,
        x: Float[Array, "batch height width channel"],
        t: Float[Array, " batch"],
        condition: Mapping[str, Any] = MappingProxyType({}),
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch height width out_channel"]:
        return self._output(x, t, condition, key, None)[0]

    @property
    def num_tokens(self) -> int:
        """Tokens of an x, row by row."""
        return (self.input_size // self.patch_size) ** 2

    def with_block(
        self,
        block: int,
        x: Float[Array, "batch height width channel"],
        t: Float[Array, " batch"],
        condition: Mapping[str, Any] = MappingProxyType({}),
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "batch height width out_channel"], Float[Array, "batch token token_width"]]:
        """(the output, what comes out of a block, counted from 1), in one forward pass (`networks.Alignable`)."""
        return self._output(x, t, condition, key, block)

    def _output(
        self, x: Array, t: Array, condition: Mapping[str, Any], key: PRNGKeyArray | None, kept_block: int | None
    ) -> tuple[Array, Any]:
        """(the output, what comes out of the block that is kept; None where none is)."""
        del key  # nothing is dropped
        height, width = x.shape[1:3]
        p = self.patch_size
        tokens_btd = self.x_embedder(patchify(x.astype(self.dtype), p))
        position = embeddings.position_table(height // p, self.hidden_size)
        tokens_btd = tokens_btd + jnp.asarray(position, self.dtype)

        time_bf = embeddings.timestep_embedding(t, TIME_FEATURES).astype(self.dtype)
        told_bd = self.t_embedder_out(nnx.silu(self.t_embedder_in(time_bf)))
        if self.y_embedder is not None:
            if "label" not in condition:
                raise ValueError("this network is class-conditional: its condition has no 'label'")
            told_bd = told_bd + self.y_embedder(condition["label"]).astype(self.dtype)
        condition_bd = nnx.silu(told_bd)
        modulation = self.shared_modulation(condition_bd) if self.shares_modulation else condition_bd
        text, keys_values, mask_bl = self._text_of(condition)

        block_def, block_params = nnx.split(self.blocks)

        def apply_block(tokens_btd: Array, of_block: tuple[Any, Array | None]) -> tuple[Array, None]:
            params, keys_values_bld = of_block
            block = nnx.merge(block_def, params)
            if text is not None:
                keys_values_bld = block.text.keys_values(text)
            return block(tokens_btd, modulation, keys_values_bld, mask_bl), None

        apply_block = in_scan(apply_block, self.remat)
        of_blocks = (block_params, keys_values)
        kept_btd: Array | None = None

        def apply_and_keep(carry: tuple[Array, Array], numbered: tuple[Array, Any]) -> tuple[tuple[Array, Array], None]:
            number, of_block = numbered
            out_btd, _ = apply_block(carry[0], of_block)
            return (out_btd, jnp.where(number == kept_block, out_btd, carry[1])), None

        if kept_block is None:
            tokens_btd, _ = jax.lax.scan(apply_block, tokens_btd, of_blocks, unroll=self.scan_unroll)
        else:  # a second carry: two scans would copy the parameters, and have the block's program twice
            numbered, first = (jnp.arange(1, self.depth + 1), of_blocks), (tokens_btd, tokens_btd)
            last, _ = jax.lax.scan(apply_and_keep, first, numbered, unroll=self.scan_unroll)
            tokens_btd, kept_btd = last

        if self.shares_modulation:
            shift_bd, scale_bd = (told_bd + row_d for row_d in self.final_table[...].astype(self.dtype))
        else:
            shift_bd, scale_bd = jnp.split(self.final_modulation(condition_bd), 2, axis=-1)
        tokens_btd = self.final_linear(modulate(layer_norm(tokens_btd), shift_bd, scale_bd))
        return unpatchify(tokens_btd.astype(jnp.float32), p, height, width), kept_btd

    def choices(self) -> dict[str, str]:
        """How its tokens attend to each other on the mesh in force.

        Raises:
          ValueError: if what `attention` names does not run there, or cannot take these tokens.
        """
        return attention_lib.choices(self.attention, attention_lib.Shape(self.num_tokens, self.head_width, self.dtype))

    def once(self, condition: Mapping[str, Any]) -> dict[str, Any]:
        """The condition with what of it depends on neither x nor t computed: keys and values of the text in each block.

        Samplers take it instead of the condition, so as to project a text once and not once a step.
        """
        text, _, mask_bl = self._text_of(condition)
        if text is None:
            return dict(condition)
        block_def, block_params = nnx.split(self.blocks)
        keys_values = jax.lax.map(lambda params: nnx.merge(block_def, params).text.keys_values(text), block_params)
        others = {name: values for name, values in condition.items() if name != "text"}
        return others | {"text_mask": mask_bl, "text_keys_values": keys_values}

    def _text_of(self, condition: Mapping[str, Any]) -> tuple[Array | None, Array | None, Array | None]:
        """(the text in the width of the network, or keys and values of all blocks, or neither; its mask)."""
        if self.text_projection is None:
            return None, None, None
        if "text_keys_values" in condition:
            return None, condition["text_keys_values"], condition["text_mask"]
        if "text" not in condition:
            raise ValueError("this network is told a text: its condition has no 'text'")
        return self.text_projection(condition["text"].astype(self.dtype)), None, condition["text_mask"]


class Block(nnx.Module):
    """Self-attention and a two-layer MLP, each modulated and gated by the condition (adaLN-Zero).

    Between them stands attention to a text, where there is one.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        mlp_ratio: float,
        dtype: Any,
        *,
        told_text: bool,
        shared_modulation: bool,
        attention: str,
        rngs: nnx.Rngs,
    ):
        self.num_heads, self.attention = num_heads, attention
        linear = _linear_factory(dtype, rngs)
        xavier = initializers.xavier_uniform()
        hidden_mlp = int(hidden_size * mlp_ratio)
        if shared_modulation:
            self.modulation_table = _table(6, hidden_size, rngs)
        else:
            self.modulation = linear(hidden_size, 6 * hidden_size, initializers.zeros_init())
        self.qkv = linear(hidden_size, 3 * hidden_size, xavier)
        self.proj = linear(hidden_size, hidden_size, xavier)
        self.fc1 = linear(hidden_size, hidden_mlp, xavier)
        self.fc2 = linear(hidden_mlp, hidden_size, xavier)
        self.text = CrossAttention(hidden_size, num_heads, linear) if told_text else None

    def __call__(
        self,
        tokens_btd: Float[Array, "batch token width"],
        condition: Float[Array, "batch width"] | Float[Array, "batch six_widths"],
        keys_values_bld: Float[Array, "batch word two_widths"] | None = None,
        mask_bl: Bool[Array, "batch word"] | None = None,
    ) -> Float[Array, "batch token width"]:
        """
        Args:
          condition: what the modulation follows from; or, where all blocks share one, that.
          keys_values_bld, mask_bl: the text, see `CrossAttention`.
        """
        if hasattr(self, "modulation_table"):
            modulation = condition + self.modulation_table[...].astype(condition.dtype).reshape(-1)
        else:
            modulation = self.modulation(condition)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = jnp.split(modulation, 6, axis=-1)

        h_btd = modulate(layer_norm(tokens_btd), shift_attn, scale_attn)
        batch, num_tokens, width = h_btd.shape
        heads = (batch, num_tokens, self.num_heads, width // self.num_heads)
        query, key, value = (part.reshape(heads) for part in self.qkv.in_parts(h_btd, 3))
        attended = attention_lib.attention(query, key, value, name=self.attention)
        tokens_btd = tokens_btd + gate_attn[:, None] * self.proj(attended.reshape(batch, num_tokens, width))
        if self.text is not None:
            assert keys_values_bld is not None and mask_bl is not None
            tokens_btd = tokens_btd + self.text(tokens_btd, keys_values_bld, mask_bl)

        h_btd = modulate(layer_norm(tokens_btd), shift_mlp, scale_mlp)
        return tokens_btd + gate_mlp[:, None] * self.fc2(nnx.gelu(self.fc1(h_btd), approximate=True))


def _table(rows: int, width: int, rngs: nnx.Rngs) -> nnx.Param[Array]:
    """Numbers that are added to a modulation."""
    return nnx.Param(jax.random.normal(rngs.params(), (rows, width)) / math.sqrt(width))


def _linear_factory(dtype: Any, rngs: nnx.Rngs) -> MakeLinear:
    """Dense layers with float32 parameters, this compute dtype and zero biases."""

    def linear(in_features: int, out_features: int, kernel_init: Any) -> Linear:
        return Linear(in_features, out_features, kernel_init=kernel_init, dtype=dtype, rngs=rngs)

    return linear


def layer_norm(x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    """Layer normalisation without learned scale or shift, its statistics in float32, epsilon 1e-6."""
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + 1e-6)).astype(x.dtype)


def modulate(
    x_btd: Float[Array, "batch token width"],
    shift_bd: Float[Array, "batch width"],
    scale_bd: Float[Array, "batch width"],
) -> Float[Array, "batch token width"]:
    """x (1 + scale) + shift, the same for every token."""
    return x_btd * (1 + scale_bd[:, None]) + shift_bd[:, None]
