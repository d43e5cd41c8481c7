"""T5's encoder, version 1.1 (Raffel et al. 2020; Shazeer 2020 for the gates), by which Imagen and PixArt read texts.

Weights are read under Hugging Face's names, from files of the encoder alone or of the whole T5: T5 v1.1, Flan-T5, mT5.
"""

import math
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from diffcurr import stacked, weights
from diffcurr.errors import concerning
from diffcurr.pretrained import blocks, text
from diffcurr.weights import Layout

EPSILON = 1e-6  # of the norms
LENGTH = 120  # tokens of a caption, as PixArt-alpha has it
TABLES = ("shared.weight", "encoder.embed_tokens.weight")  # the same one
ATTENTION, FEED_FORWARD = "encoder.block.{}.layer.0", "encoder.block.{}.layer.1"

LAYERS = {
    "tokens": TABLES[0],
    "distances": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "norm": "encoder.final_layer_norm",
    "norm1": f"{ATTENTION}.layer_norm",
    "query": f"{ATTENTION}.SelfAttention.q",
    "key": f"{ATTENTION}.SelfAttention.k",
    "value": f"{ATTENTION}.SelfAttention.v",
    "out": f"{ATTENTION}.SelfAttention.o",
    "norm2": f"{FEED_FORWARD}.layer_norm",
    "gate": f"{FEED_FORWARD}.DenseReluDense.wi_0",
    "inner": f"{FEED_FORWARD}.DenseReluDense.wi_1",
    "outer": f"{FEED_FORWARD}.DenseReluDense.wo",
}


class T5Encoder(nnx.Module):
    """Tokens -> transformer blocks: (ids int [B, L], mask [B, L]) to the states after the last norm, float [B, L, D].

    Tokens whose mask is false (or 0) are looked at by none; their own states look at the others.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        d_kv: int,
        d_ff: int,
        num_layers: int,
        num_heads: int,
        num_buckets: int,
        max_distance: int,
        *,
        rngs: nnx.Rngs,
    ):
        """
        Args:
          d_model: width D.
          d_kv: width of each head; num_heads * d_kv need not be D.
          d_ff: width of each block's gated MLP.
          num_buckets: kinds of distances between tokens, half of them for tokens that come later; divisible by 4.
          max_distance: distance from which on all distances share a bucket.

        Raises:
          ValueError: naming the argument, if the sizes do not fit.
        """
        if num_buckets < 4 or num_buckets % 4:
            raise ValueError(f"num_buckets = {num_buckets}: must be a multiple of 4")
        if max_distance <= num_buckets // 4:
            raise ValueError(f"max_distance = {max_distance}: must be more than num_buckets / 4 = {num_buckets // 4}")
        self.num_layers, self.num_buckets, self.max_distance = num_layers, num_buckets, max_distance
        self.tokens = nnx.Param(jax.random.normal(rngs.params(), (vocab_size, d_model)))
        self.distances = nnx.Param(d_model**-0.5 * jax.random.normal(rngs.params(), (num_buckets, num_heads)))
        self.blocks = stacked.stack(lambda rngs: Block(d_model, d_kv, d_ff, num_heads, rngs), num_layers, rngs)
        self.norm = nnx.RMSNorm(d_model, epsilon=EPSILON, rngs=rngs)

    def __call__(
        self,
        ids: Int[Array | np.ndarray, "batch token"],
        mask: Bool[Array | np.ndarray, "batch token"] | Int[Array | np.ndarray, "batch token"],
    ) -> Float[Array, "batch token feature"]:
        bias = self.distances[...][buckets(ids.shape[1], self.num_buckets, self.max_distance)]
        x = self.tokens[...][jnp.asarray(ids)]
        x = stacked.scan(self.blocks, x, jnp.asarray(mask, bool)[:, None, None], bias.transpose(2, 0, 1))
        return self.norm(x)

    def torch_layout(self, arrays: Collection[str]) -> Layout:
        """Where each parameter comes from (`diffcurr.networks.convert.load_torch`).

        Args:
          arrays: the public arrays by name, or their names; the table of tokens under either name or both, and with
            the arrays of T5's decoder or without.
        """
        sources = blocks.sources(self, LAYERS, self.num_layers)
        table, other = TABLES if TABLES[0] in arrays else TABLES[::-1]
        sources[("tokens",)] = sources[("tokens",)]._replace(names=(table,))
        unused = frozenset(name for name in arrays if not _wanted(name))
        if {table, other} <= set(arrays):
            return Layout(sources, ignored=unused, copies={other: table})
        return Layout(sources, ignored=unused | {other})


class Block(nnx.Module):
    """Self-attention and an MLP gated by GELU, each after a norm and added to its input; no layer has a bias."""

    def __init__(self, d_model: int, d_kv: int, d_ff: int, num_heads: int, rngs: nnx.Rngs):
        self.norm1, self.norm2 = (nnx.RMSNorm(d_model, epsilon=EPSILON, rngs=rngs) for _ in range(2))
        self.attention = blocks.Attention(d_model, num_heads, head_width=d_kv, use_bias=False, scaled=False, rngs=rngs)
        self.gate, self.inner = (blocks.linear(d_model, d_ff, use_bias=False, rngs=rngs) for _ in range(2))
        self.outer = blocks.linear(d_ff, d_model, use_bias=False, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch token feature"],
        allowed: Bool[Array, "batch 1 1 token"],
        bias: Float[Array, "head token token"],
    ) -> Float[Array, "batch token feature"]:
        x = x + self.attention(self.norm1(x), allowed, bias)
        y = self.norm2(x)
        return x + self.outer(jax.nn.gelu(self.gate(y), approximate=True) * self.inner(y))


def buckets(length: int, num_buckets: int, max_distance: int) -> Int[np.ndarray, "{length} {length}"]:
    """The kind of the distance from each token to each other one, 0..num_buckets-1 (Raffel et al. 2020, section 2.1).

    The upper half is for tokens that come later. In each half, half of the kinds are one distance each, and the others
    grow by a constant factor up to max_distance. In float32, as the public code computes it.
    """
    relative = np.arange(length) - np.arange(length)[:, None]
    half, exact = num_buckets // 2, num_buckets // 4
    distance = np.abs(relative)
    ratio = np.log(np.maximum(distance, exact).astype(np.float32) / np.float32(exact))
    grown = exact + (ratio / np.float32(math.log(max_distance / exact)) * np.float32(half - exact)).astype(int)
    return np.where(relative > 0, half, 0) + np.where(distance < exact, distance, np.minimum(grown, half - 1))


def _wanted(name: str) -> bool:
    """Whether an array of T5 is the encoder's."""
    return not name.startswith(("decoder.", "lm_head."))


def sizes(folder: text.PathLike) -> dict[str, int]:
    """The arguments of `T5Encoder` for a folder, from its config.json; the defaults are those of the public code.

    Raises:
      UserError: if it is that of another network, also of the first T5, whose MLPs are not gated.
    """
    files = text.Folder(folder)
    config = files.config()
    known = {
        "model_type": ("t5", "mt5"),
        "feed_forward_proj": "gated-gelu",
        "layer_norm_epsilon": EPSILON,
    }
    with concerning(str(files.path / text.CONFIG)):
        required: dict[str, Any] = {"model_type": None, "feed_forward_proj": "relu"}
        text.check_config(required | config, known, "a T5 of version 1.1, such as google/flan-t5-xxl")
        return {
            "vocab_size": text.whole_number(config, "vocab_size", 32128),
            "d_model": text.whole_number(config, "d_model", 512),
            "d_kv": text.whole_number(config, "d_kv", 64),
            "d_ff": text.whole_number(config, "d_ff", 2048),
            "num_layers": text.whole_number(config, "num_layers", 6),
            "num_heads": text.whole_number(config, "num_heads", 8),
            "num_buckets": text.whole_number(config, "relative_attention_num_buckets", 32),
            "max_distance": text.whole_number(config, "relative_attention_max_distance", 128),
        }


def load(folder: text.PathLike, *, batch_size: int = text.BATCH_SIZE) -> text.Encoder:
    """The encoder of a folder, such as that of `google/flan-t5-xxl`.

    Args:
      batch_size: texts that are encoded at a time.

    Raises:
      UserError: naming the file that is missing, cannot be read, or is another network's.
    """
    files = text.Folder(folder)
    found = sizes(folder)
    with concerning(str(files.path)):
        network = nnx.eval_shape(lambda: T5Encoder(**found, rngs=nnx.Rngs(0)))
        arrays = files.arrays(_wanted)
        weights.load(network, arrays, network.torch_layout(arrays))
        tokenizer = files.tokenizer()
        return text.Encoder(
            network,
            lambda network, ids, mask: text.Encoded(network(ids, mask)),
            tokenizer,
            pad_id=files.token_id("pad_token", tokenizer),
            width=found["d_model"],
            vocab_size=found["vocab_size"],
            batch_size=batch_size,
        )
