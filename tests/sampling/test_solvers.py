"""Samples would not have the distribution that the denoiser stands for, here of independent Gaussian pixels."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from diffcurr import experiment, parts
from diffcurr.conditioning import Class
from diffcurr.errors import UserError
from diffcurr.processes import DDPM, EDM, Denoised, Flow, Process
from diffcurr.processes.base import array_module, inside
from diffcurr.processes.density import LogitNormal
from diffcurr.processes.prediction import Level, Prediction, V
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


GRIDS = {name: (*sampler, "process") for name, sampler in SAMPLERS.items()}
GRIDS |= {  # the adaptive solver takes its own steps between the ends
    f"{name}, evenly": (*sampler, "log_snr")
    for name, sampler in SAMPLERS.items()
    if not isinstance(sampler[-1], Adaptive)
}


@pytest.mark.parametrize(("process", "steps", "solver", "spacing"), GRIDS.values(), ids=GRIDS)
def test_samples_have_the_mean_and_covariance_of_the_data(
    process: Process, steps: int, solver: Solver, spacing: str
) -> None:
    solver.check(process)
    levels, denoise = solvers.make_grid(process, steps, spacing=spacing), exact_denoiser(process)
    draw = jax.jit(lambda key: solvers.sample(key, denoise, levels, (10_000, 2, 1, 1), solver))
    x = np.asarray(draw(jax.random.key(3)))[:, :, 0, 0]
    np.testing.assert_allclose(x.mean(axis=0), MEAN, atol=4 * STD / 100)
    # The standard error of a variance of 10,000 Gaussian samples is sqrt(2 / 10,000) of it; 4 of them.
    np.testing.assert_allclose(np.cov(x.T), STD**2 * np.eye(2), atol=4 * STD**2 * np.sqrt(2 / 10_000))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guest(Process):
    """A continuous process that does not say the derivatives of its path, with t = 1 in noise."""

    prediction: Prediction = dataclasses.field(default_factory=V)
    clean_time = 0.0

    def path_time(self, q: Any) -> Any:
        return inside(q)

    def path_share(self, time: Any) -> Any:
        return time

    def alpha_sigma(self, time: Any) -> Any:
        xp = array_module(time)
        return xp.cos(np.pi / 2 * time), xp.sin(np.pi / 2 * time)

    def sampling_times(self, steps: int, last_step: float = 0.0) -> np.ndarray:
        return np.linspace(0.99, 1.0 / steps, steps)


@pytest.mark.parametrize(
    ("process", "last_step"),
    [
        (EDM(), 0.0),
        (EDM(p_mean=-0.4, sigma_min=0.01), 0.0),
        (Guest(), 0.0),
        (Flow(), 0.02),
        (Flow(path="trigonometric"), 0.0),
        (Flow(density=LogitNormal()), 0.0),
    ],
)
@pytest.mark.parametrize("steps", [3, 18])
def test_levels_spaced_evenly_in_log_snr(process: Process, last_step: float, steps: int) -> None:
    """Between the first and the last level of the process's own grid; where that begins in pure noise, from -12 on."""
    own = process.sampling_times(steps, last_step)
    found = solvers.sampling_times(process, steps, last_step, "log_snr")
    assert found.dtype == np.float64 and len(found) == steps
    np.testing.assert_array_equal(found[[0, -1]], own[[0, -1]])
    with np.errstate(divide="ignore"):
        alpha, sigma = process.alpha_sigma(found)
        log_snr = 2 * np.log(alpha / sigma)
    even = np.linspace(max(log_snr[0], -12.0), log_snr[-1], steps)
    np.testing.assert_allclose(log_snr[1:], even[1:], atol=1e-6)
    assert np.ptp(process.alpha_sigma(own)[1] - sigma) > 0.01, "its own are others"
    levels = solvers.make_grid(process, steps, last_step, "log_snr")
    np.testing.assert_allclose(levels.time, found, rtol=1e-6)
    assert np.all(levels.length > 0) and float(levels.length.sum()) == pytest.approx(
        abs(process.clean_time - found[0]), rel=1e-5
    )


@pytest.mark.parametrize("process", [DDPM(), PROCESS, DDPM(num_timesteps=50)])
@pytest.mark.parametrize("steps", [2, 20, 50])
def test_timesteps_spaced_nearly_evenly_in_log_snr(process: DDPM, steps: int) -> None:
    """Each once; fewer than are asked for where several would fall on one."""
    found = solvers.sampling_times(process, steps, spacing="log_snr")
    assert (found[0], found[-1]) == (process.num_timesteps - 1, 0)
    assert np.all(found == np.round(found)) and np.all(np.diff(found) < 0) and len(found) <= steps
    known = np.log(process.alphas_cumprod) - np.log1p(-process.alphas_cumprod)
    low, high = max(known[-1], -12.0), known[0]
    gap = (high - low) / (steps - 1)
    assert steps == 2 or np.max(np.diff(known[found.astype(int)][1:])) < gap + np.max(np.abs(np.diff(known[:-1])))
    for wanted in np.linspace(low, high, steps)[1:-1]:  # each stands for what is asked for
        at = process.time_at(np.array([wanted]))[0]
        assert np.min(np.abs(found - at)) <= 0.5
    assert process.num_timesteps == 50 or steps == 2 or len(found) > 0.7 * steps


def test_unknown_spacing_and_levels_that_are_no_ones() -> None:
    assert set(solvers.SPACINGS) == {"process", "log_snr"}
    with pytest.raises(UserError, match=r"sampling.*spacing = 'even': choose one of process, log_snr"):
        tiny.experiment(sampling__spacing="even")
    assert tiny.experiment(sampling__spacing="log_snr").sampling.spacing == "log_snr"
    # A grid of EDM that lies outside what is trained on.
    with pytest.raises(ValueError, match="the process's noise levels lie in"):
        solvers.sampling_times(EDM(p_std=0.3), 18, spacing="log_snr")


def test_error_falls_at_the_order_of_the_solver() -> None:
    """A sample of the exact flow keeps its rank: x = MEAN + STD * (first noise's normal score)."""

    def error(solver: Solver, steps: int) -> float:
        # On a smooth grid of rho from 20 to 0.02, so that the order shows and the last jump to 0 is negligible.
        rho = jnp.exp(jnp.linspace(jnp.log(20.0), jnp.log(0.02), steps))
        x_first = jax.random.normal(jax.random.split(jax.random.key(0))[0], (64, 1, 1, 1))

        process = EDM()
        alpha, sigma, length = jnp.ones(steps + 1), jnp.append(rho, 0.0), -jnp.diff(rho, append=0.0)
        grid = solvers.Grid(rho, alpha, sigma, length, process.level)
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
    levels, denoise = solvers.make_grid(PROCESS, 20), exact_denoiser(PROCESS)
    ancestral, ddim = (
        solvers.sample(jax.random.key(0), denoise, levels, (8, 2, 2, 1), solver)
        for solver in (Ancestral(), DDIM(eta=1.0))
    )
    np.testing.assert_array_equal(ancestral, ddim)


def test_a_grid_knows_the_level_at_any_time() -> None:
    """What the adaptive solver asks for between the levels of the grid."""
    levels = solvers.make_grid(Flow(path="trigonometric"), 4)
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


def test_what_depends_on_the_condition_alone_is_computed_once() -> None:
    """For samples with and without guidance, whose conditions stand in pairs; and each call is told the result."""
    made, told = [], []

    class Network:
        def once(self, condition: dict[str, jax.Array]) -> dict[str, jax.Array]:
            made.append(condition["label"].shape)
            return {"twice": 2 * condition["label"]}

        def __call__(self, x: jax.Array, t: jax.Array, condition: dict[str, jax.Array]) -> jax.Array:
            told.append(np.asarray(condition["twice"]).tolist())
            return x

    condition, null = {"label": jnp.asarray([1, 2])}, {"label": jnp.asarray([5, 5])}
    denoise = guided_denoiser(Network(), PROCESS, condition, null, scale=2.0)
    for time in (100.0, 500.0, 900.0):
        denoise(jnp.ones((2, 1, 1, 2)), jnp.float32(time))
    assert made == [(4,)] and told == [[2, 10, 4, 10]] * 3
