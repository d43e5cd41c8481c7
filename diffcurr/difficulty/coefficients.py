"""The coefficients of the relative entropy's exponents and upper bound; `relative_entropy` defines the symbols."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float


class Coefficients(NamedTuple):
    """Coefficients of the exponents, for each pair of timesteps.

    Relative to the own component at s, the exponent of component j at s is s_a A + s_b B, and at t it is
    t_a A + t_b B + ratio_n (|x_i|^2 - |x_j|^2) + own term. `ratio_a` and `ratio_b` are t_a - s_a and t_b - s_b, which
    would lose their accuracy in float32. The last four fields are the coefficients of the own term.
    """

    s_a: Float[Array | np.ndarray, " pair"]
    s_b: Float[Array | np.ndarray, " pair"]
    t_a: Float[Array | np.ndarray, " pair"]
    t_b: Float[Array | np.ndarray, " pair"]
    ratio_a: Float[Array | np.ndarray, " pair"]
    ratio_b: Float[Array | np.ndarray, " pair"]
    ratio_n: Float[Array | np.ndarray, " pair"]
    log_volume: Float[Array | np.ndarray, " pair"]
    eps_norm: Float[Array | np.ndarray, " pair"]
    own_norm: Float[Array | np.ndarray, " pair"]
    own_eps: Float[Array | np.ndarray, " pair"]


class Bound(NamedTuple):
    """Coefficients of the dimension and of the mean of |x_i|^2 in the upper bound, for each pair of timesteps."""

    volume: Float[Array | np.ndarray, " pair"]
    norm: Float[Array | np.ndarray, " pair"]


def coefficients_of(alphas: Float[np.ndarray, "..."], sigmas: Float[np.ndarray, "..."]) -> tuple[Coefficients, Bound]:
    """Computes the coefficients in float64, in which differences of neighbouring timesteps are accurate enough.

    Args:
      alphas: factor of the data at each of T timesteps, from the least noise to the most.
      sigmas: standard deviation of the noise at each timestep.

    Raises:
      ValueError: if the two are not equally long sequences of at least two finite numbers, or a sigma is not above 0.
    """
    alphas, sigmas = np.asarray(alphas, np.float64), np.asarray(sigmas, np.float64)
    if alphas.ndim != 1 or alphas.shape != sigmas.shape or len(alphas) < 2:
        raise ValueError(
            f"alphas and sigmas have shapes {alphas.shape} and {sigmas.shape}: give two sequences of equal length"
        )
    if not (np.all(np.isfinite(alphas)) and np.all(np.isfinite(sigmas)) and np.all(sigmas > 0)):
        raise ValueError(
            f"alphas and sigmas must be finite, and sigmas must be above 0, but the smallest sigma is {sigmas.min()}: "
            f"leave out the timestep of clean data"
        )
    alphas = np.maximum(alphas, 1e-9)  # at 0, a component that is infinitely far away would look like any other
    (a_s, a_t), (s_s, s_t) = (alphas[:-1], alphas[1:]), (sigmas[:-1], sigmas[1:])
    shrink = (s_t**2 - s_s**2) / s_t**2  # 1 - sigma_s^2 / sigma_t^2
    volume = 0.5 * (shrink + np.log1p(-shrink))
    coefficients = Coefficients(
        s_a=-(a_s**2) / (2 * s_s**2),
        s_b=-a_s / s_s,
        t_a=-a_t * a_s / (2 * s_t**2),
        t_b=-a_t * s_s / s_t**2,
        # From |x - alpha_t x_j|^2, with x_i . (x_i - x_j) = (A + |x_i|^2 - |x_j|^2) / 2.
        ratio_a=a_s**2 / (2 * s_s**2) - a_t * a_s / (2 * s_t**2),
        ratio_b=a_s / s_s - a_t * s_s / s_t**2,
        ratio_n=-a_t * (a_s - a_t) / (2 * s_t**2),
        log_volume=volume,
        eps_norm=0.5 * shrink,
        own_norm=-((a_s - a_t) ** 2) / (2 * s_t**2),
        own_eps=-(a_s - a_t) * s_s / s_t**2,
    )
    return coefficients, Bound(volume=-volume, norm=(a_s - a_t) ** 2 / (2 * s_t**2))
