"""The names of a noise level would disagree in some process, or a prediction would not give back x0 and noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffcurr import experiment, parts
from diffcurr.errors import UserError
from diffcurr.processes import DDPM, EDM, Flow, Process, prediction
from diffcurr.processes.density import LogitNormal, Speed
from diffcurr.processes.prediction import PREDICTIONS, X0, Epsilon, Level, Preconditioned, Prediction, Score, V
from diffcurr.processes.weighting import P2, MinSNR, SoftMinSNR

PROCESSES = {
    "DDPM": DDPM(),
    "DDPM, cosine": DDPM(schedule="cosine", num_timesteps=100),
    "DDPM, SpeeD": DDPM(density=Speed()),
    "EDM": EDM(),
    "flow": Flow(),
    "flow, trigonometric": Flow(path="trigonometric"),
    "flow, logit-normal": Flow(density=LogitNormal(mean=0.3, std=0.8)),
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


UNBOUNDED = [  # weights that are infinite without any noise
    Flow(prediction=PREDICTIONS[name](), weighting=weighting)
    for name in ("x0", "v")
    for weighting in (MinSNR(), SoftMinSNR(), P2())
]


@pytest.mark.parametrize("process", [*PROCESSES.values(), *UNBOUNDED])
def test_every_quantile_has_a_finite_loss(process: Process) -> None:
    """The first and the last that the draw can give too."""
    u = jnp.asarray([0.0, 2.0**-24, 0.3, 0.9, 1.0 - 2.0**-24], jnp.float32)
    x0, noise = (jax.random.normal(jax.random.key(i), (5, 4, 4, 1)) for i in range(2))
    losses = process.losses(lambda x, t: 0.1 * x + expand(t, x), x0, u, noise)
    for values in losses:
        assert values.shape == (5,) and np.all(np.isfinite(values)) and np.all(values > 0)


def expand(t: jax.Array, x: jax.Array) -> jax.Array:
    return 1e-3 * prediction.expand(t, x)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_sampling_times(process: Process) -> None:
    """From the noisiest towards clean data, inside the process's own range."""
    times = process.sampling_times(12)
    log_snr = 2 * np.log(np.maximum(process.alpha_sigma(times)[0], 1e-30) / process.alpha_sigma(times)[1])
    assert len(times) == 12 and np.all(np.diff(log_snr) > 0)
    assert (process.clean_time - times[-1]) * (times[-1] - times[0]) > 0


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_the_time_of_a_log_snr(process: Process) -> None:
    """Exact at its own levels and, of a discrete process, in order between them; never of a level that it lacks."""
    own = process.path_time(process.level_midpoints)
    alpha, sigma = process.alpha_sigma(own)
    log_snr = 2 * (np.log(alpha) - np.log(sigma))
    np.testing.assert_allclose(process.time_at(log_snr), own, rtol=1e-9, atol=1e-9)
    between = (log_snr[1:] + log_snr[:-1]) / 2
    times = process.time_at(between)
    assert np.all((times > np.minimum(own[1:], own[:-1])) & (times < np.maximum(own[1:], own[:-1])))
    level = process.level_at(between)
    np.testing.assert_allclose(2 * np.log(level.alpha / level.sigma), between, atol=1e-9)
    if isinstance(process, DDPM):
        np.testing.assert_allclose(times, own[:-1] + 0.5, atol=1e-9)
        np.testing.assert_allclose(level.alpha**2 + level.sigma**2, 1.0)
    else:
        np.testing.assert_allclose(level, process.level(times))
    for values in ([0.0, 80.0], [-80.0, 0.0]):
        for find in (process.time_at, process.level_at):
            with pytest.raises(ValueError, match=r"log-SNR -?\d+ to -?\d+: the process's noise levels lie in -.* to "):
                find(np.array(values))


def test_the_range_of_log_snr_in_numbers() -> None:
    ends = np.log(DDPM().alphas_cumprod / (1 - DDPM().alphas_cumprod))[[0, -1]]
    np.testing.assert_allclose(DDPM().time_at(ends), [0, 999])
    with pytest.raises(ValueError, match="log-SNR -9 to 9.3: the process's noise levels lie in -10.12 to 9.21"):
        DDPM().time_at(np.array([-9.0, 9.3]))
    np.testing.assert_allclose(Flow().time_at(np.array([-12.0, 0.0, 12.0])), scipy.special.expit([-6, 0, 6]))
    np.testing.assert_allclose(EDM().time_at(np.array([-8.0, 8.0])), np.exp([4.0, -4.0]))


@pytest.mark.parametrize("name", ["epsilon", "x0", "v", "score"])
def test_x0_between_two_timesteps(name: str) -> None:
    """From what a network should output there; at the timesteps beside it x0 would be another."""
    process = DDPM(prediction=PREDICTIONS[name]())
    log_snr = np.array([-4.02, 0.01, 8.6])
    time = jnp.asarray(process.time_at(log_snr), jnp.float32)
    level = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), process.level_at(log_snr))
    x, x0, noise = noised(level)
    seen = []

    def predict(x: jax.Array, t: jax.Array) -> jax.Array:
        seen.append(t)
        return process.prediction.target(x0, noise, level)

    np.testing.assert_allclose(process.denoise(predict, x, time, level).x0, x0, atol=1e-4)
    np.testing.assert_array_equal(seen[0], time)
    assert name == "x0" or np.max(np.abs(process.denoise(predict, x, time).x0 - x0)) > 0.005


@pytest.mark.parametrize(
    "process",
    [*PROCESSES.values(), DDPM(prediction=V(), weighting=MinSNR()), EDM(weighting=SoftMinSNR()), Flow(weighting=P2())],
)
def test_the_loss_of_a_unit_of_error_of_the_noise(process: Process) -> None:
    """At each level, but for a factor that all have in common."""
    weights = process.noise_weight
    assert weights.shape == (process.num_levels,) and weights.dtype == np.float64
    some = np.linspace(0.05, 0.95, 7) * (process.num_levels - 1)
    some = np.round(some).astype(int)
    u = jnp.asarray(process.level_midpoints[some], jnp.float32)
    x0, noise = (jax.random.normal(jax.random.key(i), (7, 4, 4, 1)) for i in range(2))
    losses = process.losses(lambda x, t: 0.1 * x, x0, u, noise)
    factors = np.asarray(losses.loss / losses.noise_error) / weights[some]
    np.testing.assert_allclose(factors, factors[0], rtol=2e-3)


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
    drawn = Flow(density=LogitNormal(mean=0.3, std=0.8)).time(np.random.default_rng(0).uniform(size=4000))
    assert scipy.stats.kstest(scipy.special.logit(drawn), scipy.stats.norm(0.3, 0.8).cdf).pvalue > 0.01


@pytest.mark.parametrize("process", [Flow(), Flow(path="trigonometric"), EDM()])
def test_derivatives(process: Process) -> None:
    time = jnp.asarray([0.1, 0.5, 0.9])
    level = process.level(time)
    for part, derivative in enumerate((level.d_alpha, level.d_sigma)):
        slope = jax.vmap(jax.grad(lambda t, part=part: process.alpha_sigma(t)[part]))(time)
        np.testing.assert_allclose(derivative, slope, rtol=1e-5, atol=1e-6)


CONTINUOUS = Flow(path="trigonometric").level(jnp.asarray([0.2, 0.5, 0.8]))
LEVELS: dict[str, Level] = {name: CONTINUOUS for name in PREDICTIONS}
LEVELS["preconditioned"] = EDM().level(jnp.asarray([0.05, 0.5, 20.0]))


def noised(level: Level) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(x, x0, noise) of three random images."""
    x0, noise = (jax.random.normal(jax.random.key(i), (3, 4, 4, 2)) for i in range(2))
    return prediction.expand(level.alpha, x0) * x0 + prediction.expand(level.sigma, x0) * noise, x0, noise


@pytest.mark.parametrize("name", [name for name in PREDICTIONS if name != "preconditioned"])
def test_x0_from_what_the_network_should_output(name: str) -> None:
    level, part = LEVELS[name], PREDICTIONS[name]()
    x, x0, noise = noised(level)
    output = part.target(x0, noise, level)
    np.testing.assert_allclose(part.to_x0(output, x, level), x0, atol=2e-5)
    np.testing.assert_array_equal(part.error(output, x, x0, noise, level), jnp.zeros_like(x))


@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_error_of_the_noise_follows_from_the_error_that_is_trained_on(name: str) -> None:
    """The noise that an output stands for is what x leaves of its x0: (x - alpha x0-hat) / sigma."""
    level, part = LEVELS[name], PREDICTIONS[name]()
    x, x0, noise = noised(level)
    output = jax.random.normal(jax.random.key(2), x.shape)
    estimate = part.to_x0(output, x, level)
    noise_hat = (x - prediction.expand(level.alpha, x) * estimate) / prediction.expand(level.sigma, x)
    direct = jnp.sum(jnp.square(noise_hat - noise), axis=(1, 2, 3))
    trained = jnp.sum(jnp.square(part.error(output, x, x0, noise, level)), axis=(1, 2, 3))
    np.testing.assert_allclose(part.noise_factor(level) * trained, direct, rtol=1e-4)


@pytest.mark.parametrize(
    "process",
    [
        DDPM(),
        DDPM(prediction=X0()),
        DDPM(prediction=V()),
        DDPM(prediction=Score()),
        DDPM(learn_variance=True),
        Flow(),
        Flow(prediction=X0(), path="trigonometric"),
        EDM(),
        EDM(prediction=X0()),
    ],
)
def test_losses_hold_the_mean_squared_error_of_the_noise(process: Process) -> None:
    """Comparable between all of them: also where the loss is a sum over pixels, weighted, or has the bound added."""
    u = jnp.asarray([0.2, 0.5, 0.8])
    x0, noise = (jax.random.normal(jax.random.key(i), (3, 4, 4, 2)) for i in range(2))
    level = process.level(jnp.asarray(process.time(u)))
    x = prediction.expand(level.alpha, x0) * x0 + prediction.expand(level.sigma, x0) * noise
    channels = 4 if process.learns_variance else 2

    def predict(x: jax.Array, t: jax.Array) -> jax.Array:
        return 0.3 * jax.random.normal(jax.random.key(2), (*x.shape[:-1], channels))

    estimate = process.denoise(predict, x, jnp.asarray(process.time(u))).x0
    noise_hat = (x - prediction.expand(level.alpha, x) * estimate) / prediction.expand(level.sigma, x)
    np.testing.assert_allclose(
        process.losses(predict, x0, u, noise).noise_error,
        jnp.mean(jnp.square(noise_hat - noise), axis=(1, 2, 3)),
        rtol=1e-3,
    )


def test_a_velocity_needs_derivatives() -> None:
    with pytest.raises(ValueError, match="prediction 'velocity': needs continuous time"):
        PREDICTIONS["velocity"]().coefficients(Level(jnp.ones(1), jnp.ones(1)))


@pytest.mark.parametrize("part", [Epsilon(), Score()])
def test_on_a_path_that_begins_in_pure_noise_x0_must_follow_from_the_prediction(part: Prediction) -> None:
    with pytest.raises(ValueError, match="x0 does not follow from it where alpha = 0; choose velocity, v or x0"):
        Flow(prediction=part)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EDM(sigma_max=0.001), "sigma_max = 0.001: must be above sigma_min"),
        (lambda: EDM(p_std=0.0), "p_std = 0.0: must be a number above 0"),
        (lambda: EDM(prediction=Preconditioned(sigma_data=0.0)), "sigma_data = 0.0: must be a number above 0"),
        (lambda: DDPM(prediction=Preconditioned()), "'preconditioned': is for processes with alpha = 1, such as edm"),
        (lambda: EDM().sampling_times(1), "steps = 1: must be at least 2"),
        (lambda: EDM().sampling_times(9, 0.1), "last_step = 0.1: only flow lets it be chosen"),
        (lambda: Flow(path="straight"), "path = 'straight': choose one of linear, trigonometric"),
        (lambda: Flow(density=LogitNormal(std=-1.0)), "std = -1.0: must be a number above 0"),
        (lambda: Flow().sampling_times(0), "steps = 0: must be at least 1"),
        (lambda: Flow().sampling_times(9, 1.0), "last_step = 1.0: must lie in"),
        (lambda: DDPM(density=Speed(tau=1000)), "density.tau = 1000: a level between 0 and 1000"),
        (lambda: DDPM(learn_variance=True, prediction=V()), "learn_variance: needs prediction = 'epsilon'"),
    ],
)
def test_rejects(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("section", "choices"),
    [
        ("process", "ddpm, edm, flow"),
        ("process.prediction", "epsilon, x0, v, velocity, score, preconditioned"),
        ("process.density", "uniform, logit_normal, speed"),
    ],
)
def test_unknown_names(section: str, choices: str) -> None:
    assert experiment
    with pytest.raises(UserError, match=rf"{section}\.name = 'other': choose one of {choices}"):
        parts.build(section, {"name": "other"})
