"""A number for each array of a state that changes with any one of its bits: what a checkpoint is held against.

Each element's bits are multiplied by an odd number that only its position has, and summed modulo 2^32: an odd factor is
invertible, so no change of a single element cancels.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped, UInt32

from diffcurr.training.state import TrainState

ROW = 2**14  # elements that NumPy takes at a time, so that they stay in a core's cache


def fingerprint(state: TrainState) -> tuple[UInt32[np.ndarray, " leaf"], bool]:
    """(a number for each leaf, whether all parameters are finite)."""
    parameters = (state.params, state.ema, state.averages)
    if _in_memory(state):
        finite = all(_finite(np.asarray(x)) for x in jax.tree.leaves(parameters))
    else:
        finite = bool(_all_finite(parameters))
    return prints(state), finite


def prints(tree: Any) -> UInt32[np.ndarray, " leaf"]:
    """A number for each array, computed where they lie: a CPU by NumPy, which reads memory once, XLA several times."""
    if _in_memory(tree):
        return np.array([_print(np.asarray(x)) for x in jax.tree.leaves(tree)], np.uint32)
    found: UInt32[np.ndarray, " leaf"] = jax.device_get(_on_devices(tree))
    return found


def _in_memory(tree: Any) -> bool:
    """Whether every array lies whole in the memory of this process."""
    places: set[Any] = set().union(*(x.devices() for x in jax.tree.leaves(tree)))
    return len(places) == 1 and places.pop().platform == "cpu"


@jax.jit
def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


@jax.jit
def _on_devices(tree: Any) -> UInt32[Array, " leaf"]:
    def of_leaf(x: Array) -> Array:
        unsigned = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
        bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
        position = jnp.zeros(x.shape, jnp.uint32)
        for axis, size in enumerate(x.shape):
            position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        return jnp.sum(bits * (2 * position + 1), dtype=jnp.uint32)

    numbers = [of_leaf(x) for x in jax.tree.leaves(tree)]
    return jnp.stack(numbers) if numbers else jnp.zeros((0,), jnp.uint32)  # a rule may have no state


def _print(x: Shaped[np.ndarray, "..."]) -> int:
    bits = np.ascontiguousarray(x).reshape(-1).view(f"uint{8 * x.dtype.itemsize}").astype(np.uint32, copy=False)
    whole = len(bits) // ROW
    factors = 2 * np.arange(ROW, dtype=np.uint32) + 1
    # bit (2 position + 1), where position = ROW row + place: the rows' sums take what is common to a row.
    rows = bits[: whole * ROW].reshape(whole, ROW)
    before = 2 * ROW * np.arange(whole + 1, dtype=np.uint64)
    sums = np.einsum("ij,j->i", rows, factors) + before[:-1].astype(np.uint32) * rows.sum(axis=1, dtype=np.uint32)
    rest = bits[whole * ROW :] * (factors[: len(bits) % ROW] + before[-1].astype(np.uint32))
    return (int(sums.sum(dtype=np.uint32)) + int(rest.sum(dtype=np.uint32))) % 2**32


def _finite(x: Shaped[np.ndarray, "..."]) -> bool:
    flat = x.reshape(-1)
    return all(np.isfinite(flat[start : start + 4 * ROW]).all() for start in range(0, len(flat), 4 * ROW))
