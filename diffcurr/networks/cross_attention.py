"""What the tokens of a picture take from a text, in the arrangement of PixArt-alpha (Chen et al. 2023)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx import initializers
from jaxtyping import Array, Bool, Float

from diffcurr.networks.layers import Linear

MakeLinear = Callable[[int, int, Any], Linear]
"""(features in, features out, initializer of the kernel) -> a dense layer."""


class TextProjection(nnx.Module):
    """The encoder's states -> the width of the network, by a two-layer MLP that all blocks share."""

    def __init__(self, text_width: int, hidden_size: int, linear: MakeLinear):
        normal = initializers.normal(0.02)
        self.inner = linear(text_width, hidden_size, normal)
        self.outer = linear(hidden_size, hidden_size, normal)

    def __call__(self, text_bld: Float[Array, "batch word text_width"]) -> Float[Array, "batch word width"]:
        return self.outer(nnx.gelu(self.inner(text_bld), approximate=True))


class CrossAttention(nnx.Module):
    """Attention of each token to the words of a text: no norm before it, no modulation, and 0 at first."""

    def __init__(self, hidden_size: int, num_heads: int, linear: MakeLinear, text_width: int = 0):
        """
        Args:
          text_width: length of the state of a word; hidden_size if 0.
        """
        self.num_heads = num_heads
        xavier = initializers.xavier_uniform()
        self.query = linear(hidden_size, hidden_size, xavier)
        self.key_value = linear(text_width or hidden_size, 2 * hidden_size, xavier)
        self.proj = linear(hidden_size, hidden_size, initializers.zeros_init())

    def keys_values(self, text_bld: Float[Array, "batch word width"]) -> Float[Array, "batch word two_widths"]:
        """Keys and, behind them, values of a text: the same whatever the picture and its noise level."""
        return self.key_value(text_bld)

    def __call__(
        self,
        tokens_btd: Float[Array, "batch token width"],
        keys_values_bld: Float[Array, "batch word two_widths"],
        mask_bl: Bool[Array, "batch word"],
    ) -> Float[Array, "batch token width"]:
        """
        Args:
          mask_bl: which words there are; what stands in the place of the others changes no bit.
        """

        def in_heads(x_bld: Array) -> Array:
            batch, length, width = x_bld.shape
            return x_bld.reshape(batch, length, self.num_heads, width // self.num_heads)

        keys, values = jnp.split(keys_values_bld, 2, axis=-1)
        found = jax.nn.dot_product_attention(
            in_heads(self.query(tokens_btd)), in_heads(keys), in_heads(values), mask=mask_bl[:, None, None, :]
        )
        return self.proj(found.reshape(tokens_btd.shape))
