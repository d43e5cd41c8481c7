"""Noise levels drawn from the active clusters alone."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


def masked_quantiles(
    key: PRNGKeyArray,
    mask: Bool[Array | np.ndarray, " cluster"],
    edges: Float[Array | np.ndarray, " cluster+1"],
    batch_size: int,
    *,
    stratified: bool = False,
) -> Float[Array, " batch"]:
    """Draws u uniformly from the union of the active clusters.

    A uniform draw v on [0, 1) is scaled to the total active width and then moved up by the width of the inactive
    clusters below it. There is no rejection and no data-dependent shape, so `mask` may be a traced input. With every
    cluster active the scale is exactly 1 and the shift exactly 0: the draw is v itself, bit for bit.

    Args:
      key: random key; the same key gives the same v whatever the mask.
      mask: which clusters are active; at least one must be (with none, every draw is 0).
      edges: cluster edges, 0 = edges[0] < ... < edges[N] = 1.
      batch_size: number of draws.
      stratified: one draw from each of `batch_size` equal shares of the active union, in rising order, instead of
        independent draws. Each draw alone is still uniform if the rows of the batch are exchangeable.

    Returns:
      float32 [batch_size], each in an active cluster.
    """
    v = jax.random.uniform(key, (batch_size,), jnp.float32)
    if stratified:
        v = (jnp.arange(batch_size, dtype=jnp.float32) + v) / batch_size
        v = jnp.minimum(v, jnp.float32(1.0 - 2.0**-24))  # the last stratum may round up to 1

    edges = jnp.asarray(edges, jnp.float32)
    inactive_width = jnp.where(mask, 0.0, jnp.diff(edges))
    gap_above = jnp.cumsum(inactive_width)  # [k]: inactive width up to the upper edge of cluster k
    gap_below = gap_above - inactive_width
    upper = jnp.where(mask, edges[1:] - gap_above, -1.0)  # active width up to the upper edge; never chosen if inactive
    w = v * (1.0 - gap_above[-1])
    below_upper = w[:, None] < upper
    last_active = jnp.max(jnp.where(mask, jnp.arange(mask.shape[0]), 0))
    k = jnp.where(jnp.any(below_upper, axis=1), jnp.argmax(below_upper, axis=1), last_active)
    # The sums are rounded, so w may lie an ulp outside; the clip is the identity when every cluster is active.
    return jnp.clip(w + gap_below[k], edges[k], jnp.nextafter(edges[k + 1], jnp.float32(0.0)))


def cluster_of(u: Float[Array, " batch"], edges: Float[Array | np.ndarray, " edge"]) -> Int[Array, " batch"]:
    """Index (0-based) of the cluster that holds each u."""
    return jnp.searchsorted(jnp.asarray(edges, jnp.float32)[1:-1], u, side="right").astype(jnp.int32)
