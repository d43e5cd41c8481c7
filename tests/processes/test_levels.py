"""Every process: the three names of a noise level, and conversions between predictions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffcurr.processes import DDPM, EDM, Flow, Process, prediction
from diffcurr.processes.prediction import PREDICTIONS, Level

PROCESSES = {
    "DDPM": DDPM(),
    "DDPM, cosine": DDPM("cosine", num_timesteps=100),
    "DDPM, SpeeD": DDPM(distribution="speed"),
    "EDM": EDM(),
    "flow": Flow(),
    "flow, trigonometric": Flow(path="trigonometric"),
    "flow, logit-normal": Flow(distribution="logit_normal", mean=0.3, std=0.8),
}


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_noise_grows_with_u_and_the_names_agree(process: Process) -> None:
    u = process.level_midpoints
    time = process.time(u)
    again = process.time(np.asarray(process.quantile(time)))
    np.testing.assert_allclose(again, time, rtol=1e-9, atol=1e-12)
    if isinstance(process, DDPM):
        assert np.all(np.diff(process.log_snr(u)) <= 0)
    else:
        np.testing.assert_allclose(process.quantile(time), u, rtol=1e-9)
        assert np.all(np.diff(process.log_snr(u)) < 0)
    # On the device the same, in float32.
    inner = np.asarray(process.quantile(process.time(u[5:-5])))  # not where two timesteps meet
    device = process.time(jnp.asarray(inner, jnp.float32))
    assert device.dtype == jnp.float32
    np.testing.assert_allclose(device, process.time(inner), rtol=2e-5)
    alpha, sigma = process.alpha_sigma(device)
    exact = process.exact_alpha_sigma(inner)
    np.testing.assert_allclose(alpha, exact[0], rtol=2e-5)
    np.testing.assert_allclose(sigma, exact[1], rtol=2e-5)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_every_quantile_has_a_finite_loss(process: Process) -> None:
    """The first and the last that the draw can give too."""
    u = jnp.asarray([0.0, 2.0**-24, 0.3, 0.9, 1.0 - 2.0**-24], jnp.float32)
    x0, noise = (jax.random.normal(jax.random.key(i), (5, 4, 4, 1)) for i in range(2))
    loss = process.loss(lambda x, t: 0.1 * x + expand(t, x), x0, u, noise)
    assert loss.shape == (5,) and np.all(np.isfinite(loss)) and np.all(loss > 0)


def expand(t: jax.Array, x: jax.Array) -> jax.Array:
    return 1e-3 * prediction.expand(t, x)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_sampling_times(process: Process) -> None:
    """From the noisiest towards clean data, inside the process's own range."""
    times = process.sampling_times(12)
    log_snr = 2 * np.log(np.maximum(process.alpha_sigma(times)[0], 1e-30) / process.alpha_sigma(times)[1])
    assert len(times) == 12 and np.all(np.diff(log_snr) > 0)
    assert (process.clean_time - times[-1]) * (times[-1] - times[0]) > 0


def test_edm_in_numbers() -> None:
    published = [80, 57.58598, 40.78557, 28.37458, 19.35245, 12.91008, 8.40094, 5.31519, 3.25682]
    published += [1.92334, 1.08817, 0.58535, 0.29644, 0.13952, 0.05995, 0.02293, 0.00753, 0.002]
    np.testing.assert_allclose(EDM().sampling_times(18), published, rtol=1e-3, atol=5e-6)
    for number, edges in ((5, [0.1097, 0.2222, 0.4082, 0.8269]), (10, [0.0647, 0.1097, 0.1605, 0.2222, 0.3012])):
        inner = EDM().time(np.arange(1, number) / number)
        np.testing.assert_allclose(inner[: len(edges)], edges, atol=6e-5)
    np.testing.assert_allclose(EDM().time(np.array([0.7, 0.9])), [0.5651, 1.4019], atol=6e-5)


def test_flow_runs_from_noise_at_0_to_data_at_1() -> None:
    for path in ("linear", "trigonometric"):
        alpha, sigma = Flow(path=path).alpha_sigma(np.array([0.0, 0.25, 1.0]))
        np.testing.assert_allclose(alpha[[0, 2]], [0, 1], atol=1e-15)
        np.testing.assert_allclose(sigma[[0, 2]], [1, 0], atol=1e-15)
        assert 0 < alpha[1] < sigma[1]
    np.testing.assert_array_equal(Flow().sampling_times(250, 0.04)[[0, -1]], [0.0, 0.96])
    drawn = Flow(distribution="logit_normal", mean=0.3, std=0.8).time(np.random.default_rng(0).uniform(size=4000))
    assert scipy.stats.kstest(scipy.special.logit(drawn), scipy.stats.norm(0.3, 0.8).cdf).pvalue > 0.01


@pytest.mark.parametrize("process", [Flow(), Flow(path="trigonometric"), EDM()])
def test_derivatives(process: Process) -> None:
    time = jnp.asarray([0.1, 0.5, 0.9])
    level = process.level(time)
    for part, derivative in enumerate((level.d_alpha, level.d_sigma)):
        slope = jax.vmap(jax.grad(lambda t, part=part: process.alpha_sigma(t)[part]))(time)
        np.testing.assert_allclose(derivative, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("source", "to"), list(itertools.product(PREDICTIONS, PREDICTIONS)))
def test_conversions(source: str, to: str) -> None:
    x0, noise = (jax.random.normal(jax.random.key(i), (3, 4, 4, 2)) for i in range(2))
    level = Flow(path="trigonometric").level(jnp.asarray([0.2, 0.5, 0.8]))
    x = prediction.expand(level.alpha, x0) * x0 + prediction.expand(level.sigma, x0) * noise
    output = prediction.target(source, x0, noise, level)
    np.testing.assert_allclose(prediction.to_x0(source, output, x, level), x0, atol=2e-5)
    np.testing.assert_allclose(prediction.to_noise(source, output, x, level), noise, atol=2e-5)
    converted = prediction.convert(output, x, level, source=source, to=to)
    np.testing.assert_allclose(converted, prediction.target(to, x0, noise, level), atol=2e-4)


def test_a_velocity_needs_derivatives() -> None:
    with pytest.raises(ValueError, match="velocity: this process gives no derivatives"):
        prediction.coefficients("velocity", Level(jnp.ones(1), jnp.ones(1)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EDM(sigma_max=0.001), "sigma_max = 0.001: must be above sigma_min"),
        (lambda: EDM(p_std=0.0), "p_std = 0.0: must be above 0"),
        (lambda: EDM(weighting="snr"), "weighting = 'snr': choose one of edm, constant"),
        (lambda: EDM().sampling_times(1), "steps = 1: must be at least 2"),
        (lambda: EDM().sampling_times(9, 0.1), "last_step = 0.1: only flow lets it be chosen"),
        (lambda: Flow(path="straight"), "path = 'straight': choose one of linear, trigonometric"),
        (lambda: Flow(std=-1.0), "std = -1.0: must be above 0"),
        (lambda: Flow().sampling_times(0), "steps = 0: must be at least 1"),
        (lambda: Flow().sampling_times(9, 1.0), "last_step = 1.0: must lie in"),
        (lambda: DDPM(distribution="speed", speed_tau=1000), "speed_tau = 1000: a timestep between 0 and 1000"),
        (lambda: DDPM(learn_variance=True, prediction="v"), "learn_variance: needs prediction = 'epsilon'"),
    ],
)
def test_rejects(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
