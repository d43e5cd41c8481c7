"""Averages of parameters with power-function profiles, and any other such average from stored ones, after training.

Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2), section 3 and appendix
C. This file needs NumPy, JAX and jaxtyping: take it.

An average at step t weighs the parameters after step s <= t in proportion to s^gamma. Its relative width sigma_rel is
the standard deviation of that profile over t: 0.05 is narrow, 0.10 wide. Averages of two widths, stored from time to
time, give that of any width at any stored step, by least squares of their profiles.

    average = jax.tree.map(jnp.copy, params)
    average = update(average, params, step, gamma_of(0.05))                          # after each step, counted from 1
    best = reconstruct(snapshots, steps, gammas, target_sigma_rel=0.08, time=steps[-1])
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

WIDEST = 0.28
"""sigma_rel below which gamma is positive: it is 1 / sqrt(12) = 0.289 for the mean over all steps."""


def gamma_of(sigma_rel: float) -> float:
    """The exponent gamma of the profile of a relative width: the root of (gamma + 1) / (gamma + 2)^2 / (gamma + 3) =
    sigma_rel^2 that is above 0.

    Raises:
      ValueError: if the width is not in (0, 0.28].
    """
    if not 0 < sigma_rel <= WIDEST:
        raise ValueError(f"relative width {sigma_rel}: must be above 0 and at most {WIDEST}")
    power = 1 / sigma_rel**2
    return float(np.roots([1, 7, 16 - power, 12 - power]).real.max())


def width_of(gamma: float) -> float:
    """The relative width sigma_rel of a profile; inverse of `gamma_of`."""
    return float(np.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2))


def share_of(step: Int[Array, ""] | int, gamma: float) -> Float[Array, ""]:
    """1 - beta_t: the share of the newest parameters in the average after step t, 1 at the first step.

    beta_t = (1 - 1 / t)^(gamma + 1). It is computed without the difference, of which float32 would lose all but a few
    digits late in a run.

    Args:
      step: t, steps taken, from 1.
    """
    return -jnp.expm1((gamma + 1) * jnp.log1p(-1 / jnp.asarray(step, jnp.float32)))


def update(average: Any, params: Any, step: Int[Array, ""] | int, gamma: float) -> Any:
    """The average after a step. Jit-able.

    Args:
      average: average after the step before; any finite values before the first.
      params: the parameters after the step.
      step: steps taken, from 1.
    """
    share = share_of(step, gamma)
    # The difference keeps an average of equal parameters equal to them, over any number of steps.
    return jax.tree.map(lambda a, p: a + share.astype(a.dtype) * (p - a), average, params)


def profile(steps: int, gamma: float) -> Float[np.ndarray, " step"]:
    """The weight of the parameters after each of steps 1..t in the average after step t; float64, of sum 1.

    It is the integral of (gamma + 1) s^gamma / t^(gamma + 1) over each step.
    """
    return np.diff((np.arange(steps + 1) / steps) ** (gamma + 1))


def inner_product(
    time_a: Float[np.ndarray, "..."] | float,
    gamma_a: Float[np.ndarray, "..."] | float,
    time_b: Float[np.ndarray, "..."] | float,
    gamma_b: Float[np.ndarray, "..."] | float,
) -> Float[np.ndarray, "..."]:
    """The integral over time of the product of two profiles, (gamma + 1) s^gamma / t^(gamma + 1) on [0, t]."""
    a, b = np.asarray(gamma_a, np.float64) + 1, np.asarray(gamma_b, np.float64) + 1
    time_a, time_b = np.asarray(time_a, np.float64), np.asarray(time_b, np.float64)
    both = np.minimum(time_a, time_b)
    return np.asarray(a * b / (a + b - 1) / both * (both / time_a) ** a * (both / time_b) ** b)


class Fit(NamedTuple):
    """How stored averages make another.

    Attributes:
      weights: weight of each stored average.
      error: distance of the profiles, over the length of the one that is wanted.
    """

    weights: Float[np.ndarray, " snapshot"]
    error: float


def fit(times: Sequence[float], gammas: Sequence[float], target_sigma_rel: float, time: float) -> Fit:
    """The sum of stored profiles that is nearest to another, by least squares, of weights that sum to 1.

    The paper leaves the sum free. Here it is held, so that what does not change during training is recovered exactly.

    Args:
      times, gammas: step and exponent of each stored average.
      target_sigma_rel: relative width of the wanted average.
      time: its step.

    Raises:
      ValueError: if nothing is stored, or for a width that cannot be.
    """
    if not len(times):
        raise ValueError("no stored average: there is nothing to reconstruct from")
    target = gamma_of(target_sigma_rel)
    t, g = np.asarray(times, np.float64), np.asarray(gammas, np.float64)
    products = inner_product(t[:, None], g[:, None], t[None], g[None])
    wanted = inner_product(t, g, float(time), target)
    # With profiles of length 1 the equations are as well conditioned as they get; near copies get small weights. The
    # last equation is that of the sum.
    lengths = np.sqrt(np.diag(products))
    sums = np.linalg.norm(lengths) / lengths
    equations = np.block([[products / np.outer(lengths, lengths), sums[:, None]], [sums, np.zeros((1, 1))]])
    right = np.append(wanted / lengths, np.linalg.norm(lengths))
    weights = np.linalg.lstsq(equations, right, rcond=1e-13)[0][:-1] / lengths
    whole = float(inner_product(time, target, time, target))
    missed = whole - 2 * weights @ wanted + weights @ products @ weights
    return Fit(weights, float(np.sqrt(max(missed, 0.0) / whole)))


def reconstruct(
    snapshots: Iterable[Any],
    times: Sequence[float],
    gammas: Sequence[float],
    target_sigma_rel: float,
    time: float,
) -> Any:
    """The average of another width, from stored ones.

    Args:
      snapshots: the stored averages, pytrees of arrays, one after another: only one has to be in memory.
      times, gammas: step and exponent of each.
      target_sigma_rel: relative width of the wanted average.
      time: its step.

    Returns:
      A pytree of float32 arrays of NumPy.

    Raises:
      ValueError: if nothing is stored, or for a width that cannot be.
    """
    weights, total = fit(times, gammas, target_sigma_rel, time).weights, None
    for weight, snapshot in zip(weights, snapshots, strict=True):
        part = jax.tree.map(lambda x, w=weight: np.asarray(x, np.float64) * w, snapshot)
        total = part if total is None else jax.tree.map(np.add, total, part)
    return jax.tree.map(lambda x: x.astype(np.float32), total)
