"""Noise levels drawn with a weight for each cluster."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray


def draw(
    key: PRNGKeyArray,
    weights: Float[Array | np.ndarray, " cluster"],
    edges: Float[Array | np.ndarray, " cluster+1"],
    batch_size: int,
    *,
    stratified: bool = False,
) -> Float[Array, " batch"]:
    """Draws u with a density that is proportional to the weight of the cluster it lies in.

    A uniform draw v on [0, 1) is scaled to the total weighted width; the cumulative weighted widths are inverted
    there. There is no rejection and no data-dependent shape, so `weights` may be a traced input. With every weight 1
    the draw is v itself, bit for bit. The arithmetic counts the width that each cluster lacks, which is exactly 0 where
    its weight is 1: so with weights of 0 and 1 each draw is moved, not stretched.

    Args:
      key: random key; the same key gives the same v whatever the weights.
      weights: at least 0, relative to each other: they are divided by the largest. One must be above 0 (with none,
        every draw is 0).
      edges: cluster edges, 0 = edges[0] < ... < edges[N] = 1.
      batch_size: number of draws.
      stratified: one draw from each of `batch_size` equal shares of the weighted width, in rising order, instead of
        independent draws. Each draw alone is still distributed as before if the examples of a batch are exchangeable.

    Returns:
      float32 [batch_size], each in a cluster whose weight is above 0.
    """
    v = jax.random.uniform(key, (batch_size,), jnp.float32)
    if stratified:
        v = (jnp.arange(batch_size, dtype=jnp.float32) + v) / batch_size
        v = jnp.minimum(v, jnp.float32(1.0 - 2.0**-24))  # the last stratum may round up to 1

    edges, weights = jnp.asarray(edges, jnp.float32), jnp.asarray(weights, jnp.float32)
    largest = jnp.maximum(jnp.max(weights), jnp.finfo(jnp.float32).tiny)
    weights = jnp.where(weights >= largest, 1.0, weights / largest)  # a quotient of equals may be rounded
    active = weights > 0
    lacking = (1.0 - weights) * jnp.diff(edges)
    gap_above = jnp.cumsum(lacking)  # [k]: width lacking up to the upper edge of cluster k
    gap_below = gap_above - lacking
    upper = jnp.where(active, edges[1:] - gap_above, -1.0)  # weighted width up to the upper edge; never if inactive
    w = v * (1.0 - gap_above[-1])
    below_upper = w[:, None] < upper
    last_active = jnp.max(jnp.where(active, jnp.arange(weights.shape[0]), 0))
    k = jnp.where(jnp.any(below_upper, axis=1), jnp.argmax(below_upper, axis=1), last_active)
    moved = w + gap_below[k]  # as far above the lower edge as in weighted widths
    u = moved + (moved - edges[k]) * (1.0 / jnp.where(active, weights, 1.0)[k] - 1.0)
    # The sums are rounded, so u may lie an ulp outside; the clip is the identity where every weight is 1.
    return jnp.clip(u, edges[k], jnp.nextafter(edges[k + 1], jnp.float32(0.0)))


def cluster_of(u: Float[Array, " batch"], edges: Float[Array | np.ndarray, " edge"]) -> Int[Array, " batch"]:
    """Index (0-based) of the cluster that holds each u."""
    return jnp.searchsorted(jnp.asarray(edges, jnp.float32)[1:-1], u, side="right").astype(jnp.int32)
