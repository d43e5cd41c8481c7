"""What an array of a file of weights must be, whatever network it is for."""

import jax.numpy as jnp  # with it, NumPy knows bfloat16
import numpy as np

FLOATS = tuple(np.dtype(kind) for kind in (np.float16, jnp.bfloat16, np.float32, np.float64))


def as_float32(name: str, array: np.ndarray) -> np.ndarray:
    """The array in float32.

    Args:
      name: stands in messages.

    Raises:
      ValueError: if it holds no floats, or some that are not finite in float32.
    """
    if array.dtype not in FLOATS:
        raise ValueError(f"{name}: is of dtype {array.dtype}: weights are floats, of 16, 32 or 64 bits")
    with np.errstate(over="ignore"):
        exact = array.astype(np.float32, copy=False)
    if not np.isfinite(exact).all():
        raise ValueError(f"{name}: holds NaN or infinity: the file is damaged, or its training failed")
    return exact
