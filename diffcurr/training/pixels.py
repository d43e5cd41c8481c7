"""The error of reconstructed pixels as the logarithm of a density (Ramesh et al. 2021, appendix A.3)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

LOG_SCALES = (-5.0, 5.0)  # the lowest is a third of the step between two values of 8 bits


def logit_laplace(
    x: Float[Array, "*shape"], location: Float[Array, "*shape"], log_scale: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """-log of the density exp(-|logit x - location| / b) / (2 b x (1 - x)), b = exp(log_scale), of x in (0, 1).

    The log-scale is clipped: pixels that are always black would otherwise have a density without limit.
    """
    log_scale = jnp.clip(log_scale, *LOG_SCALES)
    logit = jnp.log(x) - jnp.log1p(-x)
    distance = jnp.abs(logit - location) * jnp.exp(-log_scale)
    return distance + jnp.log(2.0) + log_scale + jnp.log(x) + jnp.log1p(-x)
