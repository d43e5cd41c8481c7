"""Samplers: from noise to data, through nothing but (alpha, sigma) and a denoiser, so for every process.

All of them walk a grid of noise levels from the noisiest to clean data. With epsilon-hat = (x - alpha x0-hat) / sigma
the probability-flow equation is dx = x0-hat d alpha + epsilon-hat d sigma. Its Euler step is deterministic DDIM; where
alpha is 1 it is EDM's equation in sigma, and on flow matching's linear path that of the velocity in t.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from diffcurr.processes.base import Denoised, Process
from diffcurr.processes.prediction import Level

Denoise = Callable[[Float[Array, "batch height width channel"], Float[Array, ""]], Denoised]
"""(x, native time) -> the estimate of x0 at one noise level for the whole batch."""

SOLVERS = ("adaptive", "ancestral", "ddim", "heun", "sde")


class Levels(NamedTuple):
    """A grid of noise levels from the noisiest to clean data.

    Attributes:
      time: native times at which the network is evaluated.
      alpha, sigma: one entry more than `time`; the last is clean data, (1, 0).
      length: of each step in native time; the last one's leads to clean data.
    """

    time: Float[Array, " step"]
    alpha: Float[Array, " step+1"]
    sigma: Float[Array, " step+1"]
    length: Float[Array, " step"]


def make_levels(process: Process, steps: int, last_step: float = 0.0) -> Levels:
    """The process's grid for a sampler of so many network evaluations.

    Args:
      last_step: length of the last step in native time, where the process lets it be chosen; its own choice if 0.
    """
    time = process.sampling_times(steps, last_step)
    alpha, sigma = process.alpha_sigma(time)
    length = jnp.abs(jnp.diff(jnp.asarray(time), append=process.clean_time))
    alpha, sigma = jnp.append(jnp.asarray(alpha), 1.0), jnp.append(jnp.asarray(sigma), 0.0)
    return Levels(*(part.astype(jnp.float32) for part in (jnp.asarray(time), alpha, sigma, length)))


class Churn(NamedTuple):
    """EDM's stochastic sampler (Karras et al. 2022, algorithm 2); with `amount` 0 it is the deterministic one.

    Attributes:
      amount: S_churn.
      low, high: S_tmin and S_tmax: the sigma between which noise is added.
      noise: S_noise.
    """

    amount: float = 0.0
    low: float = 0.0
    high: float = float("inf")
    noise: float = 1.0


def sample(
    key: PRNGKeyArray,
    denoise: Denoise,
    levels: Levels,
    shape: tuple[int, ...],
    *,
    solver: str = "ddim",
    eta: float = 0.0,
    churn: Churn | None = None,
    level: Callable[[Float[Array, ""]], Level] | None = None,
    tolerance: float = 1e-4,
) -> Float[Array, "batch height width channel"]:
    """Draws samples of the given shape. Jit-able; one network evaluation a level, two (but at the last) with `heun`.

    Args:
      solver: `ddim` (Song et al. 2021); `ancestral` (Ho et al. 2020: DDIM with eta = 1, whose noise has the posterior's
        variance, or the variance that the network learned); `heun` (second order; Karras et al. 2022, algorithm 1,
        where alpha is 1); `sde` (Euler-Maruyama on SiT's reverse equation with w = sigma, its last step the mean);
        `adaptive` (Dormand and Prince's of order 5 from the first level to the last, then one step to clean data).
      eta: with `ddim`, the share of the posterior's noise that each step adds.
      churn: with `heun`, for a process whose native time is sigma.
      level: with `adaptive`, the process's `level`, which has the derivatives of alpha and sigma.
      tolerance: with `adaptive`, the relative one; the absolute is a thousandth of it. (SiT's own is 1e-3, with which
        the standard deviation of Gaussian samples came out 2 % too large.)

    Raises:
      ValueError: for another solver, or where one lacks what it needs.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver = {solver!r}: choose one of {', '.join(SOLVERS)}")
    key_first, key_steps = jax.random.split(key)
    x = levels.sigma[0] * jax.random.normal(key_first, shape, jnp.float32)
    if solver == "adaptive":
        if level is None:
            raise ValueError("solver = 'adaptive': needs the process's level")
        return _adaptive(denoise, x, levels, level, tolerance)
    step: Callable[..., Array]
    if solver == "heun":
        step = _heun_step(churn or Churn(), levels.time.shape[0])
    elif solver == "sde":
        step = _sde_step
    else:
        step = _ddim_step(1.0 if solver == "ancestral" else eta)
    num_steps = levels.time.shape[0]
    inputs = (
        Step(
            time=levels.time,
            # The last is never evaluated: there sigma_next = 0.
            time_next=jnp.append(levels.time[1:], levels.time[-1]),
            alpha=levels.alpha[:-1],
            sigma=levels.sigma[:-1],
            alpha_next=levels.alpha[1:],
            sigma_next=levels.sigma[1:],
            length=levels.length,
        ),
        jax.random.split(key_steps, num_steps),
    )
    return jax.lax.scan(lambda x, at: (step(denoise, x, *at), None), x, inputs)[0]


class Step(NamedTuple):
    """From one level to the next."""

    time: Float[Array, "*step"]
    time_next: Float[Array, "*step"]
    alpha: Float[Array, "*step"]
    sigma: Float[Array, "*step"]
    alpha_next: Float[Array, "*step"]
    sigma_next: Float[Array, "*step"]
    length: Float[Array, "*step"]


def _ddim_step(eta: float) -> Callable[..., Array]:
    """Song et al. 2021, eq. 12 and 16, written for any (alpha, sigma)."""

    def step(denoise: Denoise, x: Array, s: Step, key: PRNGKeyArray) -> Array:
        x0, variance = denoise(x, s.time)
        epsilon = (x - s.alpha * x0) / s.sigma
        # Variance of q(x_t | x_s) and, eta times its root, of the posterior.
        step_variance = jnp.maximum(s.sigma**2 - (s.alpha / s.alpha_next * s.sigma_next) ** 2, 0.0)
        added = eta * (s.sigma_next / s.sigma) * jnp.sqrt(step_variance)
        mean = s.alpha_next * x0 + jnp.sqrt(jnp.maximum(s.sigma_next**2 - added**2, 0.0)) * epsilon
        if not eta:
            return mean
        if variance is not None:  # between the two in logarithm; at the last step there is no noise
            posterior, whole = jnp.maximum(added**2, 1e-30), jnp.maximum(step_variance, 1e-30)
            learned = jnp.exp(0.5 * (variance * jnp.log(whole) + (1.0 - variance) * jnp.log(posterior)))
            added = jnp.where(s.sigma_next > 0, learned, 0.0)
        return mean + added * jax.random.normal(key, x.shape, x.dtype)

    return step


def _heun_step(churn: Churn, num_steps: int) -> Callable[..., Array]:
    """Trapezoidal step of dx = x0-hat d alpha + epsilon-hat d sigma; the last one is an Euler step."""
    gamma = min(churn.amount / num_steps, 2.0**0.5 - 1.0)

    def step(denoise: Denoise, x: Array, s: Step, key: PRNGKeyArray) -> Array:
        time, sigma = s.time, s.sigma
        if churn.amount:
            more = jnp.where((sigma >= churn.low) & (sigma <= churn.high), gamma, 0.0)
            raised = sigma * (1.0 + more)
            spread = churn.noise * jnp.sqrt(jnp.maximum(raised**2 - sigma**2, 0.0))
            x = x + spread * jax.random.normal(key, x.shape, x.dtype)
            time, sigma = raised, raised
        d_alpha, d_sigma = s.alpha_next - s.alpha, s.sigma_next - sigma
        x0 = denoise(x, time).x0
        epsilon = (x - s.alpha * x0) / sigma
        euler = x + d_alpha * x0 + d_sigma * epsilon

        def correct(euler: Array) -> Array:
            x0_next = denoise(euler, s.time_next).x0
            epsilon_next = (euler - s.alpha_next * x0_next) / s.sigma_next
            return x + d_alpha * (x0 + x0_next) / 2 + d_sigma * (epsilon + epsilon_next) / 2

        return jax.lax.cond(s.sigma_next > 0, correct, lambda euler: euler, euler)

    return step


def _sde_step(denoise: Denoise, x: Array, s: Step, key: PRNGKeyArray) -> Array:
    """x + (v + w score) dt + sqrt(2 w dt) z with w = sigma, so w score = -epsilon-hat; no noise at the last step."""
    x0 = denoise(x, s.time).x0
    epsilon = (x - s.alpha * x0) / s.sigma
    mean = x + (s.alpha_next - s.alpha) * x0 + (s.sigma_next - s.sigma - s.length) * epsilon
    spread = jnp.where(s.sigma_next > 0, jnp.sqrt(2.0 * s.sigma * s.length), 0.0)
    return mean + spread * jax.random.normal(key, x.shape, x.dtype)


def _adaptive(
    denoise: Denoise, x: Array, levels: Levels, level: Callable[[Float[Array, ""]], Level], tolerance: float
) -> Array:
    import diffrax  # only here: it costs a second

    def slope(time: Any, x: Array, args: None) -> Array:
        at = level(time)
        if at.d_alpha is None or at.d_sigma is None:
            raise ValueError("solver = 'adaptive': this process has no continuous time")
        x0 = denoise(x, time).x0
        return at.d_alpha * x0 + at.d_sigma * (x - at.alpha * x0) / at.sigma

    first, last = levels.time[0], levels.time[-1]
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(slope),
        diffrax.Dopri5(),
        first,
        last,
        levels.time[1] - first,
        x,
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=1e-3 * tolerance),
        max_steps=10_000,
    )
    return denoise(solution.ys[0], last).x0
