"""A weight from the literature would be another one in some prediction, or would be missing from the loss."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from diffcurr import experiment, parts
from diffcurr.errors import UserError
from diffcurr.processes import DDPM, EDM, Flow, Process
from diffcurr.processes.density import LogitNormal
from diffcurr.processes.density import Speed as SpeedDensity
from diffcurr.processes.prediction import PREDICTIONS, Epsilon, Level, Velocity
from diffcurr.processes.weighting import P2, WEIGHTINGS, Constant, MinSNR, Sigmoid, SoftMinSNR, Speed, Weighting

TIME = jnp.arange(0.0, 1000.0, 7.0)
LEVEL = DDPM().level(TIME)
SNR = np.asarray(jnp.square(LEVEL.alpha / LEVEL.sigma), np.float64)
ALPHA_BAR = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))  # of the linear schedule
LOG_SNR = np.log(ALPHA_BAR / (1.0 - ALPHA_BAR))
# How much log SNR a share of 1 of the draws stands for, at TIME: differences of timesteps times the 1,000 of them.
SLOPE = 1000 * np.append(LOG_SNR[0] - LOG_SNR[1], (LOG_SNR[:-2] - LOG_SNR[2:]) / 2)[::7]
TABLE = {
    ("min_snr", "epsilon"): np.minimum(SNR, 5) / SNR,
    ("min_snr", "x0"): np.minimum(SNR, 5),
    ("min_snr", "v"): np.minimum(SNR, 5) / (SNR + 1),
    ("p2", "epsilon"): 1 / (1 + SNR),
    ("p2", "x0"): SNR / (1 + SNR),
    ("p2", "v"): SNR / (SNR + 1) / (1 + SNR),
    ("soft_min_snr", "x0"): SNR * 4 / (SNR + 4),
    ("constant", "v"): np.ones_like(SNR),
    ("sigmoid", "epsilon"): SLOPE / (1 + SNR),
    ("sigmoid", "x0"): SLOPE * SNR / (1 + SNR),
    ("sigmoid", "v"): SLOPE * SNR / (1 + SNR) ** 2,
}


def weight(weighting: Weighting, prediction: str, level: Level = LEVEL) -> Array:
    """The weight of a prediction's own squared error at these noise levels."""
    return weighting(DDPM(prediction=PREDICTIONS[prediction]()), TIME, level)


@pytest.mark.parametrize(("name", "prediction"), TABLE)
def test_published_forms(name: str, prediction: str) -> None:
    np.testing.assert_allclose(weight(WEIGHTINGS[name](), prediction), TABLE[name, prediction], rtol=1e-4)


def test_gamma() -> None:
    np.testing.assert_allclose(weight(P2(gamma=0.5, k=2.0), "epsilon"), (2 + SNR) ** -0.5, rtol=1e-5)
    np.testing.assert_allclose(weight(MinSNR(gamma=3.0), "x0"), np.minimum(SNR, 3), rtol=1e-5)


def test_soft_min_snr_on_the_output_of_edms_network() -> None:
    """(sigma sigma_data)^2 / (sigma^2 + sigma_data^2)^2: on D it is 1 / c_out^2 of that."""
    sigma = jnp.asarray([0.01, 0.2, 1.0, 30.0])
    on_output = (sigma * 0.5) ** 2 / (sigma**2 + 0.25) ** 2
    c_out = sigma * 0.5 / jnp.sqrt(sigma**2 + 0.25)
    soft, own = EDM(weighting=SoftMinSNR()), EDM()
    np.testing.assert_allclose(soft.weighting(soft, sigma, soft.level(sigma)), on_output / c_out**2, rtol=1e-5)
    # EDM's own weight is 1 on the network's output.
    np.testing.assert_allclose(own.weighting(own, sigma, own.level(sigma)) * c_out**2, 1.0, rtol=1e-5)


def test_velocity_weighs_as_its_noise_does() -> None:
    """On the linear path |velocity error| = |noise error| / t, so the weight of the noise's error is t^2 of its own."""
    flow, time = Flow(), jnp.asarray([0.1, 0.5, 0.9])
    level = flow.level(time)
    assert isinstance(flow.prediction, Velocity)
    np.testing.assert_allclose(
        MinSNR()(flow, time, level), level.alpha**2 * weight(MinSNR(), "epsilon", level), rtol=1e-5
    )


def test_the_weight_is_in_the_loss_and_not_in_the_error_of_the_noise() -> None:
    x0, noise, u = jnp.zeros((3, 2, 2, 1)), jnp.ones((3, 2, 2, 1)), jnp.asarray([0.05, 0.5, 0.95])
    for plain, weighted in (
        (DDPM(), DDPM(weighting=MinSNR())),
        (Flow(), Flow(weighting=P2(gamma=0.5))),
        (EDM(weighting=Constant()), EDM(weighting=SoftMinSNR())),
    ):
        without, with_weight = (p.losses(lambda x, t: 3.0 * x, x0, u, noise) for p in (plain, weighted))
        assert np.ptp(with_weight.loss / without.loss) > 0.1
        np.testing.assert_array_equal(with_weight.noise_error, without.noise_error)


def test_unknown() -> None:
    assert parts.TABLES["process.weighting"] is WEIGHTINGS and experiment
    with pytest.raises(UserError, match=r"process\.weighting\.name = 'snr': choose one of constant, edm, min_snr"):
        parts.build("process.weighting", {"name": "snr"})


def test_sigmoid_in_numbers() -> None:
    """At three timesteps, with a bias, for each prediction: e^b sigmoid(log SNR - b) |d log SNR / dt| on x0."""
    process, bias = DDPM(), -1.0
    time = jnp.asarray([0.0, 300.0, 999.0])
    level = process.level(time)
    log_snr = np.array([9.2102404, -0.4304825, -10.1176732])  # log(a / (1 - a))
    # 1000 (log SNR(t - 1) - log SNR(t + 1)) / 2; of the first and the last two timesteps the difference.
    slope = np.array([788.15869, 10.073696, 20.203531])
    on_x0 = np.exp(bias) / (1 + np.exp(bias - log_snr)) * slope
    snr = np.exp(log_snr)
    for name, expected in {"x0": on_x0, "epsilon": on_x0 / snr, "v": on_x0 / (snr + 1)}.items():
        given = Sigmoid(bias=bias)(DDPM(prediction=PREDICTIONS[name]()), time, level)
        np.testing.assert_allclose(given, expected, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    "process",
    [
        DDPM(),
        DDPM(schedule="cosine"),
        DDPM(density=SpeedDensity()),
        EDM(),
        Flow(),
        Flow(density=LogitNormal(std=2.0)),
        Flow(path="trigonometric", density=SpeedDensity()),
    ],
)
@pytest.mark.parametrize("bias", [-1.0, 2.0])
def test_sigmoid_is_an_integral_over_log_snr_whatever_is_drawn(process: Process, bias: float) -> None:
    """For an error of the noise of SNR / (SNR + 1), integral sigmoid(b - l) sigmoid(l) dl = b e^b / (e^b - 1)."""
    u = (np.arange(20_000) + 0.5) / 20_000
    time = jnp.asarray(process.time(u), jnp.float32)
    level = process.level(time)
    of_noise = Sigmoid(bias=bias)(process, time, level) / process.prediction.noise_factor(level)
    snr = jnp.square(level.alpha / level.sigma)
    integral = bias * np.exp(bias) / (np.exp(bias) - 1)
    np.testing.assert_allclose(jnp.mean(of_noise * snr / (1 + snr)), integral, rtol=5e-3)


def test_sigmoid_is_finite_at_both_ends() -> None:
    """Where log SNR has no bound, nor its slope."""
    for process in (Flow(weighting=Sigmoid()), EDM(weighting=Sigmoid()), Flow(density=LogitNormal(std=0.5))):
        time = jnp.asarray(process.time(jnp.asarray([0.0, 2.0**-24, 0.5, 1.0 - 2.0**-24])))
        weights = Sigmoid()(process, time, process.level(time))
        assert np.all(np.isfinite(weights)) and np.all(weights >= 0)


def test_speed() -> None:
    """Weights 0.4 to 0.6 over all timesteps, after the slope of sigma^2, used below tau, and 1 above."""
    process = DDPM(density=SpeedDensity(), weighting=Speed())
    assert isinstance(process.weighting, Speed) and isinstance(process.prediction, Epsilon)
    weights = process.weighting.table(process)
    # Half the difference of the two neighbours; its least, 8.2e-7, is at the very end: above tau.
    slope = np.concatenate(
        [ALPHA_BAR[:1] - ALPHA_BAR[1:2], (ALPHA_BAR[:-2] - ALPHA_BAR[2:]) / 2, ALPHA_BAR[-2:-1] - ALPHA_BAR[-1:]]
    )
    assert np.argmin(slope) == 999
    for t in (0, 50, 250, 699):
        scaled = 0.4 + 0.2 * (slope[t] - slope[999]) / (slope.max() - slope[999])
        np.testing.assert_allclose(weights[t], scaled, rtol=1e-9)
    assert weights[:700].max() == 0.6 and weights[:700].min() > 0.4 and np.all(weights[700:] == 1.0)
    x0, noise = jnp.zeros((2, 2, 2, 1)), jnp.ones((2, 2, 2, 1))
    u = jnp.asarray(process.quantile(np.array([30.0, 900.0])), jnp.float32)
    np.testing.assert_allclose(process.losses(lambda x, t: 0.0 * x, x0, u, noise).loss, weights[[30, 900]], rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MinSNR(gamma=0.0), "gamma = 0.0: must be a number above 0"),
        (lambda: SoftMinSNR(gamma=-1.0), "gamma = -1.0: must be a number above 0"),
        (lambda: P2(k=0.0), "k = 0.0: must be a number above 0"),
        (lambda: Speed(limit=0.5), r"limit = 0.5: must be a number in \(0.5, 1\]"),
        (lambda: DDPM(weighting=Speed(tau=1000)), "weighting.tau = 1000: a level between 0 and 1000"),
        (lambda: DDPM(weighting=Speed(tau=1, over="below")), "weighting.tau = 1: the one slope"),
        (
            lambda: DDPM(weighting=Sigmoid(), density=LogitNormal(mean=2e-3, std=1e-5)),
            "weighting 'sigmoid': the density draws a single noise level; choose a wider one",
        ),
    ],
)
def test_rejects(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
