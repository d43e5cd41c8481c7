"""Large pictures in overlapping tiles, so that memory grows with the tile and not with the picture."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

OVERLAP = 4  # neighbours share at least 1 / OVERLAP of a tile


def places(
    length: int, tile: int, enlarged: int = 1
) -> tuple[Int[np.ndarray, " tile"], Float[np.ndarray, "tile position"]]:
    """Where the tiles along an axis begin, and the share that each has in what is made of its positions.

    Tiles lie evenly from edge to edge. Shares rise and fall linearly where tiles overlap, and sum to 1 everywhere.

    Args:
      length: positions of the axis, no fewer than a tile's.
      tile: positions of a tile, at least `OVERLAP`.
      enlarged: positions that are made of each one; the shares are theirs.
    """
    number = 1 + math.ceil((length - tile) / (tile - tile // OVERLAP))
    starts = np.rint(np.linspace(0, length - tile, number)).astype(np.int32)
    middle = (np.arange(tile * enlarged) + 0.5) / enlarged
    shares = np.ones((number, tile * enlarged))
    for before, overlap in enumerate(starts[:-1] + tile - starts[1:]):
        shares[before] = np.minimum(shares[before], (tile - middle) / overlap)
        shares[before + 1] = np.minimum(shares[before + 1], middle / overlap)
    parts = [slice(start * enlarged, (start + tile) * enlarged) for start in starts]
    total = np.zeros(length * enlarged)
    for part, share in zip(parts, shares, strict=True):
        total[part] += share
    return starts, np.stack([share / total[part] for part, share in zip(parts, shares, strict=True)])


def blended(
    function: Callable[[Array], Array],
    x: Float[Array, "batch height width inside"],
    tile: int,
    *,
    up: int = 1,
    down: int = 1,
) -> Float[Array, "batch height_out width_out outside"]:
    """function(x), made of one tile after another where a side is longer than a tile. Jit-able.

    Args:
      function: [batch, h, w, inside] -> [batch, h * up / down, w * up / down, outside].
      tile: side of a tile, in positions of x or of what is made of it, whichever has fewer.
      up, down: how much larger or smaller the result is than x; one of them is 1.
    """
    sides = [side // down for side in x.shape[1:3]]
    if max(sides) <= tile:
        return function(x)
    height, width = (min(side, tile) for side in sides)
    rows, of_rows = places(sides[0], height, up)
    columns, of_columns = places(sides[1], width, up)
    starts = np.stack([np.repeat(rows, len(columns)), np.tile(columns, len(rows))], axis=1)
    shares = np.repeat(of_rows, len(columns), axis=0), np.tile(of_columns, (len(rows), 1))

    def one(x: Array, start: Array) -> Array:
        corner, size = (0, *(start * down), 0), (len(x), height * down, width * down, x.shape[-1])
        return function(jax.lax.dynamic_slice(x, corner, size))

    # A loop, and not a call for each tile written out: the function is compiled once.
    def add(whole: Array, place: tuple[Array, ...]) -> tuple[Array, None]:
        start, of_rows, of_columns = place
        made = one(x, start) * of_rows[:, None, None] * of_columns[:, None]
        corner = (0, *(start * up), 0)
        before = jax.lax.dynamic_slice(whole, corner, made.shape)
        return jax.lax.dynamic_update_slice(whole, before + made, corner), None

    made = jax.eval_shape(one, x, jax.ShapeDtypeStruct((2,), jnp.int32))
    whole = jnp.zeros((len(x), sides[0] * up, sides[1] * up, made.shape[-1]), made.dtype)
    in_turn = (jnp.asarray(starts), *(jnp.asarray(share, made.dtype) for share in shares))
    return jax.lax.scan(add, whole, in_turn)[0]
