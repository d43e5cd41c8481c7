"""Samplers: from noise to data, through nothing but (alpha, sigma) and a denoiser.

All of them walk the same grid of noise levels from the noisiest to clean data. With epsilon-hat = (x - alpha x0-hat) /
sigma and the noise ratio rho = sigma / alpha, the probability-flow equation is d(x / alpha) / d rho = epsilon-hat;
an Euler step of it is deterministic DDIM.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Denoise = Callable[[Float[Array, "batch height width channel"], Float[Array, ""]], Array]
"""(x, u) -> the estimate of x0 at one noise level for the whole batch."""

SOLVERS = ("ancestral", "ddim", "heun")


class Levels(NamedTuple):
    """A grid of noise levels from the noisiest to clean data.

    Attributes:
      u: where the network is evaluated, falling.
      alpha, sigma: one entry more than u; the last is clean data, (1, 0).
    """

    u: Float[Array, " step"]
    alpha: Float[Array, " step+1"]
    sigma: Float[Array, " step+1"]


def make_levels(u: Float[Array, " step"], alpha: Float[Array, " step"], sigma: Float[Array, " step"]) -> Levels:
    """Appends clean data, (alpha, sigma) = (1, 0), to a grid of falling noise levels."""
    return Levels(u, jnp.append(alpha, 1.0), jnp.append(sigma, 0.0))


def sample(
    key: PRNGKeyArray,
    denoise: Denoise,
    levels: Levels,
    shape: tuple[int, ...],
    *,
    solver: str = "ddim",
    eta: float = 0.0,
) -> Float[Array, "batch height width channel"]:
    """Draws samples of the given shape. Jit-able; one network evaluation a level, two (but at the last) with `heun`.

    Args:
      solver: `ddim` (Song et al. 2021), `ancestral` (Ho et al. 2020: DDIM with eta = 1, whose noise has the
        posterior's variance), or `heun` (second order, Karras et al. 2022, algorithm 1 on rho).
      eta: with `ddim`, the share of the posterior's noise that each step adds.
    """
    if solver == "heun":
        step = _heun_step
    elif solver in ("ddim", "ancestral"):
        step = _ddim_step(1.0 if solver == "ancestral" else eta)
    else:
        raise ValueError(f"solver = {solver!r}: choose one of {', '.join(SOLVERS)}")

    key_first, key_steps = jax.random.split(key)
    x = levels.sigma[0] * jax.random.normal(key_first, shape, jnp.float32)
    num_steps = levels.u.shape[0]
    u_next = jnp.append(levels.u[1:], levels.u[-1])  # the last is never evaluated: there sigma' = 0
    inputs = (
        levels.u,
        u_next,
        jnp.stack([levels.alpha[:-1], levels.sigma[:-1]], axis=1),
        jnp.stack([levels.alpha[1:], levels.sigma[1:]], axis=1),
        jax.random.split(key_steps, num_steps),
    )
    x, _ = jax.lax.scan(lambda x, level: (step(denoise, x, *level), None), x, inputs)
    return x


def _ddim_step(eta: float) -> Callable[..., Array]:
    """Song et al. 2021, eq. 12 and 16, written for any (alpha, sigma)."""

    def step(denoise: Denoise, x: Array, u: Array, u_next: Array, now: Array, following: Array, key: Array) -> Array:
        del u_next
        (alpha, sigma), (alpha_next, sigma_next) = now, following
        x0 = denoise(x, u)
        epsilon = (x - alpha * x0) / sigma
        added = eta * (sigma_next / sigma) * jnp.sqrt(jnp.maximum(sigma**2 - (alpha / alpha_next * sigma_next) ** 2, 0))
        x = alpha_next * x0 + jnp.sqrt(jnp.maximum(sigma_next**2 - added**2, 0)) * epsilon
        return x + added * jax.random.normal(key, x.shape, x.dtype) if eta else x

    return step


def _heun_step(denoise: Denoise, x: Array, u: Array, u_next: Array, now: Array, following: Array, key: Array) -> Array:
    """Trapezoidal step of d(x / alpha) / d rho = epsilon-hat; the last one, to rho = 0, is an Euler step."""
    del key
    (alpha, sigma), (alpha_next, sigma_next) = now, following
    y, rho, rho_next = x / alpha, sigma / alpha, sigma_next / alpha_next
    slope = (y - denoise(x, u)) / rho
    y_euler = y + (rho_next - rho) * slope

    def correct(y_euler: Array) -> Array:
        slope_next = (y_euler - denoise(alpha_next * y_euler, u_next)) / rho_next
        return y + (rho_next - rho) * (slope + slope_next) / 2

    return alpha_next * jax.lax.cond(sigma_next > 0, correct, lambda y_euler: y_euler, y_euler)
