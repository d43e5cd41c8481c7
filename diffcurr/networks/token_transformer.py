"""The causal transformer of vector-quantised image modelling (Yu et al. 2022): tokens of a picture, one after another.

The grid of tokens is read row by row. In front of it stands a token of the condition, the class or nothing, so that
each position predicts its own token from those before it.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx import initializers
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffcurr import ranges
from diffcurr.networks import attention as attention_lib
from diffcurr.networks.layers import Linear
from diffcurr.networks.remat import REMAT_POLICIES, in_scan
from diffcurr.networks.sharded import keep_batch_spread
from diffcurr.stacked import stack


class Cache(NamedTuple):
    """Keys and values of all blocks at all positions; what a position has not yet been computed for is 0.

    Attributes:
      keys, values: [block, batch, token, head, size of a head], in the compute dtype.
    """

    keys: Float[Array, "block batch token head size"]
    values: Float[Array, "block batch token head size"]


class TokenTransformer(nnx.Module):
    """Tokens and a condition -> the logits of each token, given those before it.

    The blocks are one block with stacked parameters, applied by `jax.lax.scan`: compile time does not grow with depth.

    Called with
      tokens: int [B, rows, columns] in 0..num_codes - 1;
      condition: {"label": int [B]} in 0..num_classes, where num_classes itself stands for "no class", unless that is 0;
      key: random key of dropout, in training;
    it returns float32 [B, rows * columns, num_codes].
    """

    DERIVED: ClassVar = ("rows", "columns", "num_codes", "num_classes", "class_dropout_prob")

    @ranges.checked
    def __init__(
        self,
        rows: ranges.Width = 32,
        columns: ranges.Width = 32,
        num_codes: ranges.Classes = 8192,
        num_classes: ranges.Classes = 1000,
        *,
        hidden_size: ranges.Width = 1536,
        mlp_size: ranges.Width = 6144,
        depth: ranges.Few = 24,
        num_heads: ranges.Few = 16,
        dropout: ranges.ShareBelowOne = 0.0,
        class_dropout_prob: ranges.Share = 0.1,
        attention: Annotated[str, ranges.OneOf(attention_lib.NAMES)] = "auto",
        remat: Annotated[str, ranges.OneOf(REMAT_POLICIES)] = "none",
        scan_unroll: ranges.Few = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """
        Args:
          rows: number of rows of the grid of tokens.
          columns: number of columns of the grid of tokens.
          num_codes: number of codes, of which each token is one.
          num_classes: 0 for an unconditional network.
          hidden_size: width; divisible by num_heads.
          mlp_size: width of each block's MLP.
          depth: number of blocks.
          num_heads: attention heads of each block.
          dropout: share of the activations that training drops: of the first ones, and of what each part of a block
            adds.
          class_dropout_prob: the share of labels that training replaces by "no class"; above 0 the prefix has a row for
            it. The dropping itself is the train step's, which owns all randomness.
          attention: how tokens attend to those before them, see `DiT`.
          remat: what the backward pass keeps: `none` (recompute nothing), `dots` (keep weight products), `full`.
          scan_unroll: blocks written out per iteration of the scan.
          dtype: compute dtype; parameters and logits are float32.

        Raises:
          ValueError: naming the argument, if the sizes do not fit.
        """
        if hidden_size % num_heads:
            raise ValueError(f"hidden_size = {hidden_size}: must be divisible by num_heads = {num_heads}")
        self.rows, self.columns, self.num_codes, self.num_classes = rows, columns, num_codes, num_classes
        self.depth, self.num_heads, self.head_size = depth, num_heads, hidden_size // num_heads
        self.dropout, self.remat, self.scan_unroll, self.dtype = dropout, remat, scan_unroll, jnp.dtype(dtype)

        self.attention = attention
        self.choices()  # which refuses what does not run here

        told = num_classes + (1 if class_dropout_prob > 0 else 0) if num_classes else 1
        self.prefix = _table(told, hidden_size, rngs)
        self.codes = _table(num_codes, hidden_size, rngs)
        self.positions = _table(rows * columns, hidden_size, rngs)

        self.blocks = stack(
            lambda rngs: Block(hidden_size, mlp_size, num_heads, depth, attention, self.dtype, rngs=rngs), depth, rngs
        )
        self.final_norm = _norm(hidden_size, self.dtype, rngs)
        self.head = _linear(hidden_size, num_codes, 0.02, self.dtype, rngs)

    @classmethod
    def from_spec(
        cls, shape: tuple[int, ...], condition: Mapping[str, Any], *, learn_variance: bool, **settings: Any
    ) -> "TokenTransformer":
        """The network for a grid of tokens, of shape (rows, columns, number of codes), and a condition of these fields.

        Raises:
          ValueError: for a condition that holds more than a class label.
        """
        del learn_variance  # of processes
        rows, columns, num_codes = shape
        fields = dict(condition)
        label = fields.pop("label", None)
        if fields:
            raise ValueError(f"the token transformer takes no {', '.join(fields)}; choose conditioning class or none")
        return cls(
            rows,
            columns,
            num_codes,
            label.num_classes if label else 0,
            class_dropout_prob=float(label.droppable) if label else 0.0,
            **settings,
        )

    def choices(self) -> dict[str, str]:
        """How its tokens attend to each other on the mesh in force.

        Raises:
          ValueError: if what `attention` names does not run there, or cannot take these tokens.
        """
        return attention_lib.choices(self.attention, attention_lib.Shape(self.length, self.head_size, self.dtype))

    @property
    def length(self) -> int:
        """Tokens of a picture."""
        return self.rows * self.columns

    def __call__(
        self,
        tokens: Int[Array, "batch row column"],
        condition: Mapping[str, Any],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch token code"]:
        x_btd, _ = self._blocks(tokens, condition, key, averages=False)
        return self._logits(x_btd)

    def features(
        self, tokens: Int[Array, "batch row column"], condition: Mapping[str, Any]
    ) -> Float[Array, "block batch width"]:
        """What comes out of each block, averaged over the tokens, float32 (for a linear probe, as Yu et al. 2022)."""
        averages: Array = self._blocks(tokens, condition, None, averages=True)[1]
        return averages

    def _blocks(
        self, tokens: Array, condition: Mapping[str, Any], key: PRNGKeyArray | None, *, averages: bool
    ) -> tuple[Array, Any]:
        """(what comes out of the last block, averages over the tokens of what comes out of each, if asked for)."""
        before = tokens.reshape(len(tokens), -1)[:, :-1]
        seen = jnp.concatenate([self._prefix(condition, len(tokens))[:, None], self.codes[...][before]], axis=1)
        x_btd = keep_batch_spread((seen + self.positions[...]).astype(self.dtype))
        keys = None
        if key is not None and self.dropout:
            x_btd = _dropped(x_btd, self.dropout, jax.random.fold_in(key, 0))
            keys = jax.random.split(jax.random.fold_in(key, 1), self.depth)
        block_def, block_params = nnx.split(self.blocks)

        def apply_block(x_btd: Array, of_block: tuple[Any, PRNGKeyArray | None]) -> tuple[Array, Array | None]:
            params, key = of_block
            x_btd = nnx.merge(block_def, params)(x_btd, self.dropout, key)
            return x_btd, jnp.mean(x_btd.astype(jnp.float32), axis=1) if averages else None

        apply_block = in_scan(apply_block, self.remat)
        found: tuple[Array, Any] = jax.lax.scan(apply_block, x_btd, (block_params, keys), unroll=self.scan_unroll)
        return found

    def empty_cache(self, batch: int) -> Cache:
        """The cache before the first token of so many pictures."""
        shape = (self.depth, batch, self.length, self.num_heads, self.head_size)
        return Cache(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))

    def advance(
        self, cache: Cache, position: Int[Array, ""], before: Int[Array, " batch"], condition: Mapping[str, Any]
    ) -> tuple[Float[Array, "batch code"], Cache]:
        """(the logits of the token at a position, the cache with that position).

        Args:
          cache: with all positions before it.
          position: number of the token, from 0, row by row.
          before: the token at the position before; of no account at the first.
        """
        seen = jnp.where(position == 0, self._prefix(condition, len(before)), self.codes[...][before])
        x_btd = keep_batch_spread((seen + self.positions[...][position])[:, None].astype(self.dtype))
        block_def, block_params = nnx.split(self.blocks)

        def apply_block(x_btd: Array, of_block: tuple[Any, Cache]) -> tuple[Array, Cache]:
            params, known = of_block
            return nnx.merge(block_def, params).advance(x_btd, known, position)

        x_btd, added = jax.lax.scan(apply_block, x_btd, (block_params, cache))
        cache = jax.tree.map(lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, position, axis=2), cache, added)
        return self._logits(x_btd)[:, 0], cache

    def _prefix(self, condition: Mapping[str, Any], batch: int) -> Float[Array, "batch width"]:
        if not self.num_classes:
            return jnp.broadcast_to(self.prefix[...], (batch, self.prefix.shape[1]))
        if "label" not in condition:
            raise ValueError("this network is class-conditional: its condition has no 'label'")
        return self.prefix[...][condition["label"]]

    def _logits(self, x_btd: Float[Array, "batch token width"]) -> Float[Array, "batch token code"]:
        return self.head(self.final_norm(x_btd)).astype(jnp.float32)


class Block(nnx.Module):
    """Causal self-attention and a two-layer MLP, each after a norm, and added to what came in."""

    def __init__(
        self, width: int, mlp_size: int, num_heads: int, depth: int, attention: str, dtype: Any, *, rngs: nnx.Rngs
    ):
        self.num_heads, self.attention = num_heads, attention
        added = 0.02 / math.sqrt(2 * depth)  # what a block adds is smaller in deep networks (Radford et al. 2019)
        self.norm1, self.norm2 = _norm(width, dtype, rngs), _norm(width, dtype, rngs)
        self.qkv = _linear(width, 3 * width, 0.02, dtype, rngs)
        self.proj = _linear(width, width, added, dtype, rngs)
        self.fc1 = _linear(width, mlp_size, 0.02, dtype, rngs)
        self.fc2 = _linear(mlp_size, width, added, dtype, rngs)

    def __call__(
        self, x_btd: Float[Array, "batch token width"], dropout: float, key: PRNGKeyArray | None
    ) -> Float[Array, "batch token width"]:
        found = attention_lib.attention(*self._in_heads(x_btd), name=self.attention, causal=True)
        attended = self.proj(found.reshape(x_btd.shape))
        x_btd = x_btd + (attended if key is None else _dropped(attended, dropout, jax.random.fold_in(key, 0)))
        found = self._mlp(x_btd)
        return x_btd + (found if key is None else _dropped(found, dropout, jax.random.fold_in(key, 1)))

    def advance(
        self, x_btd: Float[Array, "batch 1 width"], known: Cache, position: Int[Array, ""]
    ) -> tuple[Float[Array, "batch 1 width"], Cache]:
        """(the block's output at a position, keys and values there); `known` are this block's of earlier positions."""
        query, *added = self._in_heads(x_btd)
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(x, new, position, axis=1) for x, new in zip(known, added, strict=True)
        )
        seen = jnp.arange(keys.shape[1]) <= position
        attended = jax.nn.dot_product_attention(query, keys, values, mask=seen[None, None, None])
        x_btd = x_btd + self.proj(attended.reshape(x_btd.shape))
        return x_btd + self._mlp(x_btd), Cache(*added)

    def _in_heads(self, x_btd: Array) -> list[Array]:
        """Queries, keys and values, [batch, token, head, size]."""
        batch, tokens, width = x_btd.shape
        heads = (batch, tokens, self.num_heads, width // self.num_heads)
        return [part.reshape(heads) for part in self.qkv.in_parts(self.norm1(x_btd), 3)]

    def _mlp(self, x_btd: Array) -> Array:
        return self.fc2(nnx.gelu(self.fc1(self.norm2(x_btd)), approximate=True))


def _dropped(x: Float[Array, "..."], share: float, key: PRNGKeyArray) -> Float[Array, "..."]:
    """A share of the values 0, the others larger by as much (Srivastava et al. 2014)."""
    kept = jax.random.bernoulli(key, 1.0 - share, x.shape)
    return jnp.where(kept, x / (1.0 - share), 0.0).astype(x.dtype)


def _table(rows: int, width: int, rngs: nnx.Rngs) -> nnx.Param[Array]:
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), (rows, width)))


def _norm(width: int, dtype: Any, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """A layer norm with a learned scale and shift; its statistics are computed in float32."""
    return nnx.LayerNorm(width, epsilon=1e-6, use_fast_variance=False, dtype=dtype, rngs=rngs)


def _linear(inside: int, outside: int, scale: float, dtype: Any, rngs: nnx.Rngs) -> Linear:
    return Linear(inside, outside, kernel_init=initializers.normal(scale), dtype=dtype, rngs=rngs)
