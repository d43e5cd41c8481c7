"""Means of Monte Carlo samples with less variance, by regression on quantities whose mean is known to be 0.

Such quantities are called control variates. What they explain of the samples is removed from them; the mean does not
change, except for a bias that vanishes as 1 / samples (Owen 2013, Monte Carlo theory, methods and examples, 8.9).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Estimate(NamedTuple):
    """Means over samples, with what is needed to regress them on a further control variate.

    Attributes:
      value: the means.
      standard_error: standard errors of the means.
      residual: what the control variates do not explain of the samples.
      leverage: variance of a mean, in units of the variance of its residuals.
      degrees: degrees of freedom of the residuals.
    """

    value: Float[Array, " pair"]
    standard_error: Float[Array, " pair"]
    residual: Float[Array, "pair sample"]
    leverage: Float[Array, "..."]
    degrees: int


def regress(y: Float[Array, "pair sample"], controls: Float[Array, "sample control"]) -> Estimate:
    """Estimates the mean of y over samples as the intercept of a least-squares fit on control variates.

    Args:
      y: samples, separately for each pair of timesteps.
      controls: control variates of each sample, the same ones for all pairs.
    """
    scaled = controls / jnp.maximum(jnp.std(controls, axis=0), 1e-30)
    design = jnp.concatenate([jnp.ones_like(scaled[:, :1]), scaled], axis=1)
    inverse = jnp.linalg.pinv(design)
    fit = y @ inverse.T  # [pair, coefficient]
    leverage = jnp.sum(jnp.square(inverse[0]))
    return _estimate(fit[:, 0], y - fit @ design.T, leverage, y.shape[1] - design.shape[1])


def regress_further(y: Estimate, control: Estimate) -> Estimate:
    """Regresses an estimate on one more control variate, which may differ from pair to pair.

    The result is that of a single fit on all control variates (Frisch-Waugh-Lovell theorem).

    Args:
      y: estimate of the mean, from `regress`.
      control: the further control variate, from `regress` on the same control variates as `y`.
    """
    square = jnp.maximum(jnp.sum(jnp.square(control.residual), axis=1), 1e-30)
    slope = jnp.sum(y.residual * control.residual, axis=1) / square
    residual = y.residual - slope[:, None] * control.residual
    leverage = y.leverage + jnp.square(control.value) / square
    return _estimate(y.value - slope * control.value, residual, leverage, y.degrees - 1)


def _estimate(
    value: Float[Array, " pair"], residual: Float[Array, "pair sample"], leverage: Float[Array, "..."], degrees: int
) -> Estimate:
    variance = jnp.sum(jnp.square(residual), axis=1) / degrees
    return Estimate(value, jnp.sqrt(variance * leverage), residual, leverage, degrees)
