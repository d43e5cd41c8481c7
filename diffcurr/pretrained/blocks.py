"""What pretrained networks share: attention, CLIP's blocks, and the names of public arrays."""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from diffcurr import ranges, weights
from diffcurr.weights import Path, Source

PRECISION = jax.lax.Precision.HIGHEST  # as PyTorch's float32
LOWEST = float(np.finfo(np.float32).min)  # the score of what is not looked at; minus infinity would make empty rows NaN

linear = functools.partial(nnx.Linear, precision=PRECISION)
layer_norm = functools.partial(nnx.LayerNorm, use_fast_variance=False)

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # Hendrycks & Gimpel 2016, section 2
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}
"""`hidden_act` of a public config -> the function."""


class Attention(nnx.Module):
    """Self-attention of several heads (Vaswani et al. 2017, section 3.2): float [B, T, D] -> [B, T, D].

    Called with `allowed`, bool [B or 1, 1, T or 1, T], a token looks at those that are allowed: the others change
    nothing, bit for bit. `bias`, float [H, T, T], is added to the scores.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        head_width: int | None = None,
        use_bias: bool = True,
        scaled: bool = True,
        rngs: nnx.Rngs,
    ):
        """
        Args:
          width: D.
          head_width: width / num_heads if None.
          use_bias: whether the dense layers have one.
          scaled: whether scores are divided by the root of the heads' width.
        """
        self.num_heads, self.head_width = num_heads, head_width or width // num_heads
        self.scale, inner = self.head_width**-0.5 if scaled else 1.0, num_heads * self.head_width
        self.query, self.key, self.value = (linear(width, inner, use_bias=use_bias, rngs=rngs) for _ in range(3))
        self.out = linear(inner, width, use_bias=use_bias, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch token feature"],
        allowed: Bool[Array, "#batch 1 #token token"] | None = None,
        bias: Float[Array, "head token token"] | None = None,
    ) -> Float[Array, "batch token feature"]:
        q, k, v = (
            layer(x).reshape(*x.shape[:2], self.num_heads, self.head_width)
            for layer in (self.query, self.key, self.value)
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, precision=PRECISION) * self.scale
        scores = scores if bias is None else scores + bias
        scores = scores if allowed is None else jnp.where(allowed, scores, LOWEST)
        found = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), v, precision=PRECISION)
        return self.out(found.reshape(*x.shape[:2], -1))


class CLIPBlock(nnx.Module):
    """Self-attention and an MLP, each after a norm and added to its input; of both of CLIP's towers."""

    def __init__(
        self, hidden_size: int, intermediate_size: int, num_heads: int, hidden_act: str, epsilon: float, rngs: nnx.Rngs
    ):
        self.hidden_act = hidden_act
        self.norm1, self.norm2 = (layer_norm(hidden_size, epsilon=epsilon, rngs=rngs) for _ in range(2))
        self.attention = Attention(hidden_size, num_heads, rngs=rngs)
        self.fc1 = linear(hidden_size, intermediate_size, rngs=rngs)
        self.fc2 = linear(intermediate_size, hidden_size, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch token feature"], allowed: Bool[Array, "1 1 token token"] | None = None
    ) -> Float[Array, "batch token feature"]:
        x = x + self.attention(self.norm1(x), allowed)
        return x + self.fc2(ACTIVATIONS[self.hidden_act](self.fc1(self.norm2(x))))


CLIP_NAMES = {
    "norm1": "encoder.layers.{}.layer_norm1",
    "norm2": "encoder.layers.{}.layer_norm2",
    "query": "encoder.layers.{}.self_attn.q_proj",
    "key": "encoder.layers.{}.self_attn.k_proj",
    "value": "encoder.layers.{}.self_attn.v_proj",
    "out": "encoder.layers.{}.self_attn.out_proj",
    "fc1": "encoder.layers.{}.mlp.fc1",
    "fc2": "encoder.layers.{}.mlp.fc2",
}
"""Layer of a `CLIPBlock` -> its public name."""


def check_activation(hidden_act: str) -> None:
    """Raises ValueError if there is no such activation."""
    ranges.check({"hidden_act": Annotated[str, ranges.OneOf(ACTIVATIONS)]}, {"hidden_act": hidden_act})


def check_heads(hidden_size: int, num_heads: int) -> None:
    """Raises ValueError if the width cannot be divided among the heads."""
    if hidden_size % num_heads:
        raise ValueError(f"hidden_size = {hidden_size}: must be divisible by num_heads = {num_heads}")


def sources(network: nnx.Module, names: Mapping[str, str], num_layers: int, prefix: str = "") -> dict[Path, Source]:
    """Where each parameter of a network comes from, for `weights.Layout`.

    Args:
      names: last name of a layer -> its public name, or that of a parameter that is no layer's -> its public array;
        with {} in place of the number of a block, for what is in `network.blocks`.
      prefix: stands before every public name.
    """
    found = {}
    for path in weights.parameters_of(network):
        kind, stacked = str(path[-1]), path[0] == "blocks"
        public = names.get(kind) or f"{names[str(path[-2])]}.{'bias' if kind == 'bias' else 'weight'}"
        numbered = [public.format(number) for number in range(num_layers)] if stacked else [public]
        transform = weights.kernel if kind == "kernel" else weights.same
        found[path] = Source(tuple(prefix + name for name in numbered), transform, stacked)
    return found
