"""Samples would not have the distribution that the denoiser stands for, here of independent Gaussian pixels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcurr import experiment, parts
from diffcurr.conditioning import Class
from diffcurr.errors import UserError
from diffcurr.processes import DDPM, EDM, Denoised, Flow, Process
from diffcurr.processes.prediction import Level
from diffcurr.sampling import solvers
from diffcurr.sampling.guidance import guided_denoiser
from diffcurr.sampling.solvers import DDIM, SDE, SOLVERS, Adaptive, Ancestral, Heun, Solver
from diffcurr.sampling.solvers.base import Step

MEAN, STD = 0.3, 0.5
PROCESS = DDPM(schedule="cosine")


def exact_denoiser(process: Process, variance: float | None = None) -> solvers.Denoise:
    """E[x0 | x] for x0 ~ N(MEAN, STD^2)."""

    def denoise(x: jax.Array, time: jax.Array) -> Denoised:
        alpha, sigma = process.alpha_sigma(time)
        x0 = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)
        return Denoised(x0, None if variance is None else jnp.full_like(x, variance))

    return denoise


SAMPLERS: dict[str, tuple[Process, int, Solver]] = {
    "ddim": (PROCESS, 1000, DDIM()),
    "ddim-eta": (PROCESS, 1000, DDIM(eta=0.5)),
    "ancestral": (PROCESS, 1000, Ancestral()),
    "heun on DDPM": (PROCESS, 200, Heun()),
    "EDM": (EDM(), 128, Heun()),
    "EDM, stochastic": (EDM(), 256, Heun(churn=(40.0, 0.05, 50.0, 1.003))),
    "flow, heun": (Flow(), 64, Heun()),
    "flow, trigonometric": (Flow(path="trigonometric"), 64, Heun()),
    "flow, adaptive": (Flow(), 64, Adaptive()),
    "flow, sde": (Flow(), 1000, SDE()),
    "EDM, adaptive": (EDM(), 64, Adaptive()),
}


@pytest.mark.parametrize(("process", "steps", "solver"), SAMPLERS.values(), ids=SAMPLERS)
def test_samples_have_the_mean_and_covariance_of_the_data(process: Process, steps: int, solver: Solver) -> None:
    solver.check(process)
    levels, denoise = solvers.make_levels(process, steps), exact_denoiser(process)
    draw = jax.jit(lambda key: solvers.sample(key, denoise, levels, (10_000, 2, 1, 1), solver))
    x = np.asarray(draw(jax.random.key(3)))[:, :, 0, 0]
    np.testing.assert_allclose(x.mean(axis=0), MEAN, atol=4 * STD / 100)
    # The standard error of a variance of 10,000 Gaussian samples is sqrt(2 / 10,000) of it; 4 of them.
    np.testing.assert_allclose(np.cov(x.T), STD**2 * np.eye(2), atol=4 * STD**2 * np.sqrt(2 / 10_000))


def test_error_falls_at_the_order_of_the_solver() -> None:
    """A sample of the exact flow keeps its rank: x = MEAN + STD * (first noise's normal score)."""

    def error(solver: Solver, steps: int) -> float:
        # On a smooth grid of rho from 20 to 0.02, so that the order shows and the last jump to 0 is negligible.
        rho = jnp.exp(jnp.linspace(jnp.log(20.0), jnp.log(0.02), steps))
        x_first = jax.random.normal(jax.random.split(jax.random.key(0))[0], (64, 1, 1, 1))

        process = EDM()
        alpha, sigma, length = jnp.ones(steps + 1), jnp.append(rho, 0.0), -jnp.diff(rho, append=0.0)
        grid = solvers.Levels(rho, alpha, sigma, length, process.level)
        denoise = exact_denoiser(process)
        got = solvers.sample(jax.random.key(0), denoise, grid, (64, 1, 1, 1), solver)
        start = 20.0 * x_first
        want_at_last = MEAN + (start - MEAN) * jnp.sqrt((STD**2 + 0.02**2) / (STD**2 + 20.0**2))
        want = MEAN + STD**2 / (STD**2 + 0.02**2) * (
            want_at_last - MEAN
        )  # the last, Euler step to 0, is exact denoising
        return float(jnp.sqrt(jnp.mean(jnp.square(got - want))))

    for solver, order in ((DDIM(), 1), (Heun(), 2)):
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
    at = Step(times[0], times[1], alpha[0], sigma[0], alpha[1], sigma[1], jnp.float32(1))
    x0 = -0.2
    fraction = None if learned is None else jnp.full_like(x, learned)
    got = Ancestral().step(lambda x, t: Denoised(jnp.full_like(x, x0), fraction), x, at, jax.random.key(0), 1000)
    mean = np.sqrt(a[t - 1]) * beta / (1 - a[t]) * x0 + np.sqrt(1 - beta) * (1 - a[t - 1]) / (1 - a[t]) * 0.7
    posterior = (1 - a[t - 1]) / (1 - a[t]) * beta
    variance = posterior if learned is None else np.exp(learned * np.log(beta) + (1 - learned) * np.log(posterior))
    np.testing.assert_allclose(np.mean(got), mean, atol=5 * np.sqrt(variance / 200_000))
    np.testing.assert_allclose(np.var(got), variance, rtol=0.02)


def test_ancestral_is_ddim_with_all_of_the_noise() -> None:
    levels, denoise = solvers.make_levels(PROCESS, 20), exact_denoiser(PROCESS)
    ancestral, ddim = (
        solvers.sample(jax.random.key(0), denoise, levels, (8, 2, 2, 1), solver)
        for solver in (Ancestral(), DDIM(eta=1.0))
    )
    np.testing.assert_array_equal(ancestral, ddim)


def test_a_grid_knows_the_level_at_any_time() -> None:
    """What the adaptive solver asks for between the levels of the grid."""
    levels = solvers.make_levels(Flow(path="trigonometric"), 4)
    at = levels.at(levels.time)
    assert isinstance(at, Level)
    np.testing.assert_allclose(at.alpha, levels.alpha[:-1], atol=1e-6)
    np.testing.assert_allclose(at.sigma, levels.sigma[:-1], atol=1e-6)
    np.testing.assert_allclose(levels.time + levels.length, [*levels.time[1:], 1.0], atol=1e-6)


def test_unknown_solver() -> None:
    assert parts.TABLES["sampling.solver"] is SOLVERS and experiment
    with pytest.raises(UserError, match=r"sampling\.solver\.name = 'euler': choose one of ddim, ancestral, heun, sde"):
        parts.build("sampling.solver", {"name": "euler"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adaptive(tolerance=0.0), "tolerance = 0.0: must be a number in"),
        (lambda: Heun(churn=(1.0, 2.0)), r"churn = \(1.0, 2.0\): must be a sequence of 4"),
        (lambda: Heun(churn=(-1.0, 0.0, 1.0, 1.0)), "churn = .*: must be a sequence of 4, each a number of at least 0"),
        (lambda: Heun(churn=(40.0, 0.05, 50.0, 1.003)).check(Flow()), "churn = .*: needs the process edm"),
        (lambda: Adaptive().check(DDPM()), "solver = 'adaptive': needs continuous time, which DDPM lacks"),
        (lambda: SDE().check(DDPM()), "solver = 'sde': needs continuous time, which DDPM lacks"),
    ],
)
def test_rejects(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_guidance() -> None:
    """The network's epsilon is its label, so x0 is linear in it and guidance extrapolates from "no class"."""
    evaluations = []

    def network(x: jax.Array, t: jax.Array, condition: dict[str, jax.Array]) -> jax.Array:
        evaluations.append(x.shape[0])
        return jnp.broadcast_to(condition["label"].astype(jnp.float32)[:, None, None, None], x.shape)

    x, time, condition = jnp.zeros((2, 1, 1, 2)), jnp.float32(500), {"label": jnp.asarray([0, 1])}
    null = Class(num_classes=5).null(condition)
    alpha, sigma = PROCESS.alpha_sigma(time)

    def x0(scale: float, channel: int = 0, **settings: Any) -> np.ndarray:
        denoise = guided_denoiser(network, PROCESS, condition, null, scale=scale, **settings)
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


def test_without_a_condition_there_is_nothing_to_guide() -> None:
    evaluations = []

    def network(x: jax.Array, t: jax.Array, condition: dict[str, jax.Array]) -> jax.Array:
        assert condition == {}
        evaluations.append(x.shape[0])
        return x

    x, time = jnp.ones((2, 1, 1, 2)), jnp.float32(500)
    plain, guided = (guided_denoiser(network, PROCESS, {}, {}, scale=scale)(x, time).x0 for scale in (1.0, 3.0))
    np.testing.assert_array_equal(plain, guided)
    assert evaluations == [2, 2]


def test_guidance_takes_the_conditional_networks_variance() -> None:
    def network(x: jax.Array, t: jax.Array, condition: dict[str, jax.Array]) -> jax.Array:
        label = condition["label"].astype(jnp.float32)[:, None, None, None]
        return jnp.concatenate([x, jnp.broadcast_to(label / 10, x.shape)], axis=-1)

    condition, null = ({"label": jnp.asarray(labels)} for labels in ([0, 10], [5, 5]))
    process = DDPM(learn_variance=True)
    found = guided_denoiser(network, process, condition, null, scale=3.0)(jnp.zeros((2, 1, 1, 1)), jnp.float32(500))
    assert found.variance is not None
    np.testing.assert_allclose(found.variance[:, 0, 0, 0], [0.5, 1.0])
