"""Samplers against a data set whose denoiser is known: independent Gaussian pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcurr.processes import DDPM
from diffcurr.sampling import solvers
from diffcurr.sampling.guidance import guided_denoiser

MEAN, STD = 0.3, 0.5
PROCESS = DDPM("cosine")


def exact_denoise(x: jax.Array, u: jax.Array) -> jax.Array:
    """E[x0 | x] for x0 ~ N(MEAN, STD^2)."""
    alpha, sigma = PROCESS.alpha_sigma(u)
    return MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)


def levels(steps: int) -> solvers.Levels:
    u = jnp.asarray(PROCESS.sampling_levels(steps), jnp.float32)
    return solvers.make_levels(u, *PROCESS.alpha_sigma(u))


def samples(steps: int, **settings: object) -> np.ndarray:
    draw = jax.jit(lambda key: solvers.sample(key, exact_denoise, levels(steps), (10_000, 2, 1, 1), **settings))
    return np.asarray(draw(jax.random.key(3)))[:, :, 0, 0]


@pytest.mark.parametrize(
    "settings",
    [{"solver": "ddim"}, {"solver": "ddim", "eta": 0.5}, {"solver": "ancestral"}, {"solver": "heun"}],
    ids=["ddim", "ddim-eta", "ancestral", "heun"],
)
def test_samples_have_the_mean_and_covariance_of_the_data(settings: dict) -> None:
    x = samples(1000, **settings)
    np.testing.assert_allclose(x.mean(axis=0), MEAN, atol=4 * STD / 100)
    # The standard error of a variance of 10,000 Gaussian samples is sqrt(2 / 10,000) of it; 4 of them.
    np.testing.assert_allclose(np.cov(x.T), STD**2 * np.eye(2), atol=4 * STD**2 * np.sqrt(2 / 10_000))


def test_error_falls_at_the_order_of_the_solver() -> None:
    """A sample of the exact flow keeps its rank: x = MEAN + STD * (first noise's normal score)."""

    def error(solver: str, steps: int) -> float:
        # On a smooth grid of rho from 20 to 0.02, so that the order shows and the last jump to 0 is negligible.
        rho = jnp.exp(jnp.linspace(jnp.log(20.0), jnp.log(0.02), steps))
        x_first = jax.random.normal(jax.random.split(jax.random.key(0))[0], (64, 1, 1, 1))

        def denoise(y: jax.Array, u: jax.Array) -> jax.Array:
            return MEAN + STD**2 / (STD**2 + u**2) * (y - MEAN)

        grid = solvers.Levels(rho, jnp.ones(steps + 1), jnp.append(rho, 0.0))
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


def test_ancestral_is_the_ddpm_posterior() -> None:
    """One step against Ho et al. 2020, eq. 7, at consecutive timesteps."""
    t = 300
    beta, a = PROCESS.betas[t], PROCESS.alphas_cumprod
    x = jnp.full((200_000, 1, 1, 1), 0.7)
    u = jnp.asarray([(t + 0.5) / 1000, (t - 0.5) / 1000], jnp.float32)
    alpha, sigma = PROCESS.alpha_sigma(u)
    step = solvers._ddim_step(1.0)
    now, following = jnp.stack([alpha[0], sigma[0]]), jnp.stack([alpha[1], sigma[1]])
    x0 = -0.2
    got = step(lambda x, u: jnp.full_like(x, x0), x, u[0], u[1], now, following, jax.random.key(0))
    mean = np.sqrt(a[t - 1]) * beta / (1 - a[t]) * x0 + np.sqrt(1 - beta) * (1 - a[t - 1]) / (1 - a[t]) * 0.7
    variance = (1 - a[t - 1]) / (1 - a[t]) * beta
    np.testing.assert_allclose(np.mean(got), mean, atol=5 * np.sqrt(variance / 200_000))
    np.testing.assert_allclose(np.var(got), variance, rtol=0.02)


def test_unknown_solver() -> None:
    with pytest.raises(ValueError, match="solver = 'euler'"):
        solvers.sample(jax.random.key(0), exact_denoise, levels(2), (1, 1, 1, 1), solver="euler")


def test_guidance() -> None:
    """The network's epsilon is its label, so x0 is linear in it and guidance extrapolates from "no class"."""
    evaluations = []

    def network(x: jax.Array, t: jax.Array, y: jax.Array | None) -> jax.Array:
        evaluations.append(x.shape[0])
        assert y is not None
        return jnp.broadcast_to(y.astype(jnp.float32)[:, None, None, None], x.shape)

    x, u, labels = jnp.zeros((2, 1, 1, 1)), jnp.float32(0.5), jnp.asarray([0, 1])
    alpha, sigma = PROCESS.alpha_sigma(u)

    def x0(scale: float, clip: float | None = None) -> np.ndarray:
        denoise = guided_denoiser(network, PROCESS, labels, null_label=5, scale=scale, clip=clip)
        return np.asarray(denoise(x, u))[:, 0, 0, 0]

    factor = float(-sigma / alpha)
    np.testing.assert_allclose(x0(1.0), factor * np.array([0, 1]), rtol=1e-6)
    np.testing.assert_allclose(x0(3.0), factor * (5 + 3 * (np.array([0, 1]) - 5)), rtol=1e-5)
    assert evaluations == [2, 4]
    np.testing.assert_allclose(x0(3.0, clip=1.0), [1, 1])
