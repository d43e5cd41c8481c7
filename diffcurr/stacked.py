"""Blocks of one kind as one module with stacked parameters: compile time does not grow with their number."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from flax import nnx
from jaxtyping import Array

Module = TypeVar("Module", bound=nnx.Module)


def stack(make: Callable[[nnx.Rngs], Module], number: int, rngs: nnx.Rngs) -> Module:
    """Blocks as one module, whose parameters have a first axis of length `number`; for `jax.lax.scan`.

    Args:
      make: makes one block, with random parameters.
    """

    @nnx.split_rngs(splits=number)
    @nnx.vmap(in_axes=0, out_axes=0)
    def stacked(rngs: nnx.Rngs) -> Module:
        return make(rngs)

    return stacked(rngs)


def scan(stacked: nnx.Module, x: Array, *others: Any) -> Array:
    """x through blocks of `stack`, one after another; each is called with (x, *others)."""
    block, params = nnx.split(stacked)

    def apply_block(x: Array, params: Any) -> tuple[Array, None]:
        return nnx.merge(block, params)(x, *others), None

    return jax.lax.scan(apply_block, x, params)[0]
