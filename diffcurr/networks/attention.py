"""Attention of tokens to each other, by their number and by the platform that a program is compiled for.

XLA writes the weights of all pairs of tokens into memory. Flash attention (Dao et al. 2022) keeps them on the chip, a
block at a time: on a TPU as a kernel in Pallas, on a GPU as cuDNN's. The numbers are equal to rounding.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from diffcurr import layout
from diffcurr.errors import first_line

ATTENDED = "attended"  # the name of what flash attention returns, for what `jax.checkpoint` may keep
FEW = 1024  # tokens; below, `auto` is XLA's, which reads and writes more memory but wastes none of a product's width
LANES = 128  # of a TPU: blocks of tokens are multiples of it


class Shape(NamedTuple):
    """What is attended: number of tokens, width of a head, dtype."""

    tokens: int
    width: int
    dtype: Any


class Choice(NamedTuple):
    """The implementation that a program is compiled with.

    Attributes:
      name: key of the implementation in `IMPLEMENTATIONS`.
      instead: of what `auto` would have taken for so many tokens, why it cannot be; empty where it can.
    """

    name: str
    instead: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Implementation:
    """One way to compute attention.

    Attributes:
      attend: (query, key, value, causal), the first three [batch, token, head, width] -> [batch, token, head, width].
      platform: the only one that it runs on; empty for all.
      refusal: why it cannot take such tokens, in words; empty if it can.
    """

    attend: Callable[[Array, Array, Array, bool], Array]
    platform: str = ""
    refusal: Callable[[Shape], str] = lambda shape: ""


def attention(
    query: Float[Array, "batch token head width"],
    key: Float[Array, "batch token head width"],
    value: Float[Array, "batch token head width"],
    *,
    name: str = "auto",
    causal: bool = False,
) -> Float[Array, "batch token head width"]:
    """Softmax(query key^T / sqrt(width)) value, of each head.

    Args:
      name: `auto`, or a row of `IMPLEMENTATIONS`.
      causal: each token sees itself and those before it.

    Raises:
      ValueError: if the named one does not run on the platform of the mesh in force, or cannot take such tokens.
    """
    shape = Shape(query.shape[1], query.shape[-1], query.dtype)
    return IMPLEMENTATIONS[choose(name, shape).name].attend(query, key, value, causal)


def choices(name: str, shape: Shape) -> dict[str, str]:
    """`choose`, in words, for the method `choices` of networks."""
    return {"attention": "; ".join(filter(None, choose(name, shape)))}


def choose(name: str, shape: Shape) -> Choice:
    """What a setting means for such tokens on the mesh in force, whose devices need not be there.

    Without a mesh, as where operations are counted, it is XLA's: a program for any platform.

    Raises:
      ValueError: as `attention` does.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return Choice("xla")
    if name != "auto":
        named = IMPLEMENTATIONS[name]
        refusal = f"is for a {named.platform.upper()}, and this is a {device.platform.upper()}"
        if named.platform in ("", device.platform):
            refusal = named.refusal(shape)
        if refusal:
            raise ValueError(f"attention = {name!r}: {refusal}; choose 'auto' or 'xla'")
        return Choice(name)
    refusal = ""
    for own, implementation in IMPLEMENTATIONS.items():
        if shape.tokens >= FEW and implementation.platform == device.platform:
            if not (refusal := implementation.refusal(shape)):
                return Choice(own)
            refusal = f"not {own}: {refusal}"
    return Choice("xla", refusal)


def _xla(query: Array, key: Array, value: Array, causal: bool) -> Array:
    return jax.nn.dot_product_attention(query, key, value, is_causal=causal)


def _flash(query: Array, key: Array, value: Array, causal: bool, *, interpret: bool = False) -> Array:
    """Pallas' kernel, on each device for its own examples and heads: XLA does not spread it by itself."""
    kernel, mesh = functools.partial(_splash, causal=causal, interpret=interpret), jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return kernel(query, key, value)
    batch, _, heads, _ = query.shape
    spec = PartitionSpec(
        layout.dividing(layout.BATCH_AXES, batch, mesh.shape), None, layout.dividing("tensor", heads, mesh.shape), None
    )
    return jax.shard_map(kernel, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)(query, key, value)


def _splash(query: Array, key: Array, value: Array, *, causal: bool, interpret: bool) -> Array:
    # Here, since importing Pallas takes a while.
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        BlockSizes,
        CausalMask,
        FullMask,
        MultiHeadMask,
        make_splash_mha_single_device,
    )

    _, tokens, heads, width = query.shape
    few = _block(tokens, 512)
    many = tokens if tokens <= 1024 else few
    # Where one block holds all keys, one kernel computes all three gradients; of several it would round partial sums.
    one = many == tokens
    blocks = BlockSizes(
        block_q=few,
        block_kv=many,
        block_kv_compute=few,
        block_q_dkv=few,
        block_kv_dkv=many,
        block_kv_dkv_compute=few,
        block_q_dq=None if one else few,
        block_kv_dq=None if one else many,
        use_fused_bwd_kernel=one,
    )
    kernel = make_splash_mha_single_device(
        MultiHeadMask([(CausalMask if causal else FullMask)((tokens, tokens))] * heads),
        block_sizes=blocks,
        residual_checkpoint_name=ATTENDED,
        interpret=interpret,
    )
    by_head = (x.transpose(0, 2, 1, 3) for x in (query * width**-0.5, key, value))
    return jax.vmap(kernel)(*by_head).transpose(0, 2, 1, 3)


def _block(tokens: int, most: int) -> int:
    """The largest multiple of a TPU's lanes that divides a number of tokens."""
    return max(size for size in range(LANES, most + 1, LANES) if tokens % size == 0)


def _flash_refusal(shape: Shape) -> str:
    if shape.tokens % LANES:
        return f"takes multiples of {LANES} tokens, and not {shape.tokens}"
    return f"takes heads of at most {LANES}, and not {shape.width}" if shape.width > LANES else ""


def _cudnn(query: Array, key: Array, value: Array, causal: bool = False) -> Array:
    return jax.nn.dot_product_attention(query, key, value, is_causal=causal, implementation="cudnn")


def is_cudnn(primitive: Any, *_: Any, **settings: Any) -> bool:
    """Whether an operation is cuDNN's attention, forwards; a policy for `jax.checkpoint`, which finds no name in it."""
    return str(primitive) == "dot_product_attention_fwd_wrapper"


def _cudnn_refusal(shape: Shape) -> str:
    if shape.dtype not in (jnp.bfloat16, jnp.float16):
        return f"takes bfloat16 or float16, and not {jnp.dtype(shape.dtype).name}"
    one = jax.ShapeDtypeStruct((1, shape.tokens, 1, shape.width), shape.dtype)
    try:
        jax.eval_shape(_cudnn, one, one, one)
    except NotImplementedError as error:
        return first_line(error)
    except RuntimeError as error:
        return f"{first_line(error).rstrip('.')}: pip install nvidia-cudnn-cu12"
    return ""


IMPLEMENTATIONS = {
    "xla": Implementation(attend=_xla),
    "flash": Implementation(attend=_flash, platform="tpu", refusal=_flash_refusal),
    "cudnn": Implementation(attend=_cudnn, platform="gpu", refusal=_cudnn_refusal),
}
NAMES = ("auto", *IMPLEMENTATIONS)
