"""Samplers against a data set whose denoiser is known: independent Gaussian pixels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcurr.processes import DDPM, EDM, Denoised, Flow, Process
from diffcurr.sampling import solvers
from diffcurr.sampling.guidance import guided_denoiser

MEAN, STD = 0.3, 0.5
PROCESS = DDPM("cosine")


def exact_denoiser(process: Process, variance: float | None = None) -> solvers.Denoise:
    """E[x0 | x] for x0 ~ N(MEAN, STD^2)."""

    def denoise(x: jax.Array, time: jax.Array) -> Denoised:
        alpha, sigma = process.alpha_sigma(time)
        x0 = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)
        return Denoised(x0, None if variance is None else jnp.full_like(x, variance))

    return denoise


EDM_STOCHASTIC = solvers.Churn(40.0, 0.05, 50.0, 1.003)
SAMPLERS = {
    "ddim": (PROCESS, 1000, {"solver": "ddim"}),
    "ddim-eta": (PROCESS, 1000, {"solver": "ddim", "eta": 0.5}),
    "ancestral": (PROCESS, 1000, {"solver": "ancestral"}),
    "heun on DDPM": (PROCESS, 200, {"solver": "heun"}),
    "EDM": (EDM(), 128, {"solver": "heun"}),
    "EDM, stochastic": (EDM(), 256, {"solver": "heun", "churn": EDM_STOCHASTIC}),
    "flow, heun": (Flow(), 64, {"solver": "heun"}),
    "flow, trigonometric": (Flow(path="trigonometric"), 64, {"solver": "heun"}),
    "flow, adaptive": (Flow(), 64, {"solver": "adaptive", "level": Flow().level}),
    "flow, sde": (Flow(), 1000, {"solver": "sde"}),
    "EDM, adaptive": (EDM(), 64, {"solver": "adaptive", "level": EDM().level}),
}


@pytest.mark.parametrize(("process", "steps", "settings"), SAMPLERS.values(), ids=SAMPLERS)
def test_samples_have_the_mean_and_covariance_of_the_data(process: Process, steps: int, settings: dict) -> None:
    levels, denoise = solvers.make_levels(process, steps), exact_denoiser(process)
    draw = jax.jit(lambda key: solvers.sample(key, denoise, levels, (10_000, 2, 1, 1), **settings))
    x = np.asarray(draw(jax.random.key(3)))[:, :, 0, 0]
    np.testing.assert_allclose(x.mean(axis=0), MEAN, atol=4 * STD / 100)
    # The standard error of a variance of 10,000 Gaussian samples is sqrt(2 / 10,000) of it; 4 of them.
    np.testing.assert_allclose(np.cov(x.T), STD**2 * np.eye(2), atol=4 * STD**2 * np.sqrt(2 / 10_000))


def test_error_falls_at_the_order_of_the_solver() -> None:
    """A sample of the exact flow keeps its rank: x = MEAN + STD * (first noise's normal score)."""

    def error(solver: str, steps: int) -> float:
        # On a smooth grid of rho from 20 to 0.02, so that the order shows and the last jump to 0 is negligible.
        rho = jnp.exp(jnp.linspace(jnp.log(20.0), jnp.log(0.02), steps))
        x_first = jax.random.normal(jax.random.split(jax.random.key(0))[0], (64, 1, 1, 1))

        grid = solvers.Levels(rho, jnp.ones(steps + 1), jnp.append(rho, 0.0), -jnp.diff(rho, append=0.0))
        denoise = exact_denoiser(EDM())
        got = solvers.sample(jax.random.key(0), denoise, grid, (64, 1, 1, 1), solver=solver)
        start = 20.0 * x_first
        want_at_last = MEAN + (start - MEAN) * jnp.sqrt((STD**2 + 0.02**2) / (STD**2 + 20.0**2))
        want = MEAN + STD**2 / (STD**2 + 0.02**2) * (
            want_at_last - MEAN
        )  # the last, Euler step to 0, is exact denoising
        return float(jnp.sqrt(jnp.mean(jnp.square(got - want))))

    for solver, order in (("ddim", 1), ("heun", 2)):
        slope = np.log2(error(solver, 32) / error(solver, 64))
        assert abs(slope - order) < 0.35, (solver, slope)


@pytest.mark.parametrize("learned", [None, 0.0, 0.4, 1.0])
def test_ancestral_is_the_ddpm_posterior(learned: float | None) -> None:
    """One step against Ho et al. 2020, eq. 7, at consecutive timesteps; or with the variance that was learned."""
    t = 300
    beta, a = PROCESS.betas[t], PROCESS.alphas_cumprod
    x = jnp.full((200_000, 1, 1, 1), 0.7)
    times = jnp.asarray([t, t - 1], jnp.float32)
    alpha, sigma = PROCESS.alpha_sigma(times)
    at = solvers.Step(times[0], times[1], alpha[0], sigma[0], alpha[1], sigma[1], jnp.float32(1))
    x0 = -0.2
    fraction = None if learned is None else jnp.full_like(x, learned)
    got = solvers._ddim_step(1.0)(lambda x, t: Denoised(jnp.full_like(x, x0), fraction), x, at, jax.random.key(0))
    mean = np.sqrt(a[t - 1]) * beta / (1 - a[t]) * x0 + np.sqrt(1 - beta) * (1 - a[t - 1]) / (1 - a[t]) * 0.7
    posterior = (1 - a[t - 1]) / (1 - a[t]) * beta
    variance = posterior if learned is None else np.exp(learned * np.log(beta) + (1 - learned) * np.log(posterior))
    np.testing.assert_allclose(np.mean(got), mean, atol=5 * np.sqrt(variance / 200_000))
    np.testing.assert_allclose(np.var(got), variance, rtol=0.02)


def test_unknown_solver() -> None:
    levels = solvers.make_levels(PROCESS, 2)
    with pytest.raises(ValueError, match="solver = 'euler'"):
        solvers.sample(jax.random.key(0), exact_denoiser(PROCESS), levels, (1, 1, 1, 1), solver="euler")


def test_guidance() -> None:
    """The network's epsilon is its label, so x0 is linear in it and guidance extrapolates from "no class"."""
    evaluations = []

    def network(x: jax.Array, t: jax.Array, y: jax.Array | None) -> jax.Array:
        evaluations.append(x.shape[0])
        assert y is not None
        return jnp.broadcast_to(y.astype(jnp.float32)[:, None, None, None], x.shape)

    x, time, labels = jnp.zeros((2, 1, 1, 2)), jnp.float32(500), jnp.asarray([0, 1])
    alpha, sigma = PROCESS.alpha_sigma(time)

    def x0(scale: float, channel: int = 0, **settings: Any) -> np.ndarray:
        denoise = guided_denoiser(network, PROCESS, labels, null_label=5, scale=scale, **settings)
        return np.asarray(denoise(x, time).x0)[:, 0, 0, channel]

    factor = float(-sigma / alpha)
    np.testing.assert_allclose(x0(1.0), factor * np.array([0, 1]), rtol=1e-6)
    np.testing.assert_allclose(x0(3.0), factor * (5 + 3 * (np.array([0, 1]) - 5)), rtol=1e-5)
    assert evaluations == [2, 4]
    np.testing.assert_allclose(x0(3.0, clip=1.0), [1, 1])
    # Outside the interval, and in the channels that are left out, the scale is 1.
    np.testing.assert_allclose(x0(3.0, interval=(0.6, 0.9)), x0(1.0), rtol=1e-5)
    np.testing.assert_allclose(x0(3.0, interval=(0.4, 0.6)), x0(3.0), rtol=1e-5)
    np.testing.assert_allclose(x0(3.0, channel=1, channels=1), x0(1.0), rtol=1e-5)
    np.testing.assert_allclose(x0(3.0, channel=0, channels=1), x0(3.0), rtol=1e-5)
