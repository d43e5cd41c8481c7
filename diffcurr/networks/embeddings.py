"""Fixed embeddings of time and position."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def timestep_embedding(
    t: Float[Array, " batch"], width: int, max_period: float = 10000.0, *, endpoint: bool = False
) -> Float[Array, "batch width"]:
    """Sinusoidal embedding of a time: width / 2 cosines, then as many sines, of periods 2 pi .. 2 pi max_period.

    Vaswani et al. 2017, in the order of the public ADM and DiT networks. `width` must be even.

    Args:
      endpoint: whether the last period is 2 pi max_period itself (DDPM's and EDM's networks) or just short of it.
    """
    last = width // 2 - endpoint
    frequencies = jnp.exp(-math.log(max_period) / last * jnp.arange(width // 2, dtype=jnp.float32))
    angles = t.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def position_table(grid_size: int, width: int) -> Float[np.ndarray, "token width"]:
    """Fixed sine-cosine table of a square grid of patches, row by row (He et al. 2022; Peebles & Xie 2023).

    The first half of `width` encodes the column, the second the row; each is sines, then cosines. `width` must be
    divisible by 4.
    """
    frequencies = 1.0 / 10000 ** (np.arange(width // 4, dtype=np.float64) / (width // 4))
    angles = np.arange(grid_size)[:, None] * frequencies[None]
    axis = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # [position, width / 2]
    column = np.broadcast_to(axis[None, :, :], (grid_size, grid_size, width // 2))
    row = np.broadcast_to(axis[:, None, :], (grid_size, grid_size, width // 2))
    return np.concatenate([column, row], axis=-1).reshape(grid_size**2, width).astype(np.float32)
