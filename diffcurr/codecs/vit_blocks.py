"""The towers of ViT-VQGAN: plain transformer blocks with a norm before each part (Dosovitskiy et al. 2021)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx import initializers
from jaxtyping import Array, Float

from diffcurr.networks import embeddings
from diffcurr.networks.layers import Linear
from diffcurr.networks.remat import in_scan
from diffcurr.stacked import stack


class Block(nnx.Module):
    """Self-attention and a two-layer MLP, each after a norm and added to its input."""

    def __init__(self, width: int, heads: int, mlp: int, dtype: Any, rngs: nnx.Rngs):
        self.heads = heads
        self.norm1, self.norm2 = (norm(width, dtype, rngs) for _ in range(2))
        self.qkv, self.proj = linear(width, 3 * width, dtype, rngs), linear(width, width, dtype, rngs)
        self.fc1, self.fc2 = linear(width, mlp, dtype, rngs), linear(mlp, width, dtype, rngs)

    def __call__(self, x_btd: Float[Array, "batch token width"]) -> Float[Array, "batch token width"]:
        batch, tokens, width = x_btd.shape
        heads = (batch, tokens, self.heads, width // self.heads)
        query, key, value = (part.reshape(heads) for part in self.qkv.in_parts(self.norm1(x_btd), 3))
        attended = jax.nn.dot_product_attention(query, key, value)
        x_btd = x_btd + self.proj(attended.reshape(batch, tokens, width))
        return x_btd + self.fc2(nnx.gelu(self.fc1(self.norm2(x_btd)), approximate=True))


class Tower(nnx.Module):
    """A dense layer, positions, blocks, a norm and a dense layer: a grid of vectors to a grid of other vectors.

    The blocks are one block with stacked parameters, applied by `jax.lax.scan`.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        *,
        depth: int,
        width: int,
        heads: int,
        mlp: int,
        remat: str,
        scan_unroll: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        """
        Args:
          inside: numbers of a vector that goes in.
          outside: numbers of one that comes out.
          depth: number of blocks.
          width: width of the blocks; divisible by heads and by 4.
          heads: attention heads of each block.
          mlp: width of the MLP of each block.
          remat: what the backward pass keeps, a key of `networks.remat.REMAT_POLICIES`.
          scan_unroll: blocks written out per iteration of the scan.
          dtype: compute dtype.
        """
        self.width, self.remat, self.scan_unroll, self.dtype = width, remat, scan_unroll, dtype
        self.x_embedder = linear(inside, width, dtype, rngs)
        self.blocks = stack(lambda rngs: Block(width, heads, mlp, dtype, rngs), depth, rngs)
        self.final_norm = norm(width, dtype, rngs)
        self.final_linear = linear(width, outside, dtype, rngs)

    def __call__(self, x: Float[Array, "batch row column inside"]) -> Float[Array, "batch row column outside"]:
        """float32, whatever the compute dtype."""
        batch, rows, columns, _ = x.shape
        side = max(rows, columns)
        positions = embeddings.position_table(side, self.width).reshape(side, side, self.width)[:rows, :columns]
        tokens_btd = self.x_embedder(x.astype(self.dtype).reshape(batch, rows * columns, -1))
        tokens_btd = tokens_btd + jnp.asarray(positions.reshape(-1, self.width), self.dtype)

        block_def, block_params = nnx.split(self.blocks)

        def apply_block(tokens_btd: Array, params: Any) -> tuple[Array, None]:
            return nnx.merge(block_def, params)(tokens_btd), None

        apply_block = in_scan(apply_block, self.remat)
        tokens_btd, _ = jax.lax.scan(apply_block, tokens_btd, block_params, unroll=self.scan_unroll)
        found = self.final_linear(self.final_norm(tokens_btd))
        return found.astype(jnp.float32).reshape(batch, rows, columns, -1)


def linear(inside: int, outside: int, dtype: Any, rngs: nnx.Rngs) -> Linear:
    """A dense layer with float32 parameters and this compute dtype."""
    return Linear(inside, outside, kernel_init=initializers.xavier_uniform(), dtype=dtype, rngs=rngs)


def norm(width: int, dtype: Any, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer normalisation with scale and bias; Flax computes its statistics in float32."""
    return nnx.LayerNorm(width, epsilon=1e-6, use_fast_variance=False, dtype=dtype, rngs=rngs)
