"""Each weight in each prediction is the same weight of the same error; and SpeeD's draw and weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffcurr.processes import DDPM, EDM, Flow
from diffcurr.processes.weighting import weight

LEVEL = DDPM().level(jnp.arange(0.0, 1000.0, 7.0))
SNR = np.asarray(jnp.square(LEVEL.alpha / LEVEL.sigma), np.float64)
TABLE = {
    ("min_snr", "epsilon"): np.minimum(SNR, 5) / SNR,
    ("min_snr", "x0"): np.minimum(SNR, 5),
    ("min_snr", "v"): np.minimum(SNR, 5) / (SNR + 1),
    ("p2", "epsilon"): 1 / (1 + SNR),
    ("p2", "x0"): SNR / (1 + SNR),
    ("p2", "v"): SNR / (SNR + 1) / (1 + SNR),
    ("soft_min_snr", "x0"): SNR * 4 / (SNR + 4),
    ("constant", "v"): np.ones_like(SNR),
}


@pytest.mark.parametrize(("name", "prediction"), TABLE)
def test_published_forms(name: str, prediction: str) -> None:
    np.testing.assert_allclose(weight(name, prediction, LEVEL), TABLE[name, prediction], rtol=1e-4)


def test_gamma() -> None:
    np.testing.assert_allclose(weight("p2", "epsilon", LEVEL, gamma=0.5, k=2.0), (2 + SNR) ** -0.5, rtol=1e-5)
    np.testing.assert_allclose(weight("min_snr", "x0", LEVEL, gamma=3.0), np.minimum(SNR, 3), rtol=1e-5)


def test_soft_min_snr_on_the_output_of_edms_network() -> None:
    """(sigma sigma_data)^2 / (sigma^2 + sigma_data^2)^2: on D it is 1 / c_out^2 of that."""
    sigma = jnp.asarray([0.01, 0.2, 1.0, 30.0])
    on_output = (sigma * 0.5) ** 2 / (sigma**2 + 0.25) ** 2
    c_out = sigma * 0.5 / jnp.sqrt(sigma**2 + 0.25)
    np.testing.assert_allclose(EDM(weighting="soft_min_snr").weight(sigma), on_output / c_out**2, rtol=1e-5)
    # EDM's own weight is 1 on the network's output.
    np.testing.assert_allclose(EDM().weight(sigma) * c_out**2, 1.0, rtol=1e-5)


def test_velocity_weighs_as_its_noise_does() -> None:
    """On the linear path |velocity error| = |noise error| / t, so the weight of the noise's error is t^2 of its own."""
    level = Flow().level(jnp.asarray([0.1, 0.5, 0.9]))
    np.testing.assert_allclose(
        weight("min_snr", "velocity", level), level.alpha**2 * weight("min_snr", "epsilon", level), rtol=1e-5
    )


def test_the_weight_is_in_the_loss() -> None:
    x0, noise, u = jnp.zeros((3, 2, 2, 1)), jnp.ones((3, 2, 2, 1)), jnp.asarray([0.05, 0.5, 0.95])
    for plain, weighted in (
        (DDPM(), DDPM(weighting="min_snr")),
        (Flow(), Flow(weighting="p2", weighting_gamma=0.5)),
        (EDM(weighting="constant"), EDM(weighting="soft_min_snr")),
    ):
        ratio = weighted.loss(lambda x, t: 3.0 * x, x0, u, noise) / plain.loss(lambda x, t: 3.0 * x, x0, u, noise)
        assert np.ptp(ratio) > 0.1


def test_unknown() -> None:
    with pytest.raises(ValueError, match="weighting = 'snr': choose one of constant, min_snr"):
        weight("snr", "v", LEVEL)


def test_speed() -> None:
    """Five times as likely below tau, half of it mirrored about tau; weights 0.4 to 0.6 below tau, 1 above."""
    process = DDPM(distribution="speed", weighting="speed")
    p = process.probabilities
    np.testing.assert_allclose(p.sum(), 1.0)
    base = np.where(np.arange(1000) < 700, 5.0, 1.0)
    base /= base.sum()
    direct = 0.5 * base
    for t in range(1000):
        direct[abs(700 - t)] += 0.5 * base[t]
    np.testing.assert_allclose(p, direct, rtol=1e-12)
    drawn = np.bincount(process.time(np.random.default_rng(0).uniform(size=400_000)).astype(int), minlength=1000)
    expected = p * 400_000
    assert np.sum((drawn - expected) ** 2 / expected) < 1000 + 4 * np.sqrt(2000)  # chi-square

    weights = process._speed_weights
    np.testing.assert_allclose([weights[:700].min(), weights[:700].max(), weights[700:].min()], [0.4, 0.6, 1.0])
    slope = np.gradient(1 - process.alphas_cumprod)
    assert np.argmax(weights[:700]) == np.argmax(slope[:700])
    x0, noise = jnp.zeros((2, 2, 2, 1)), jnp.ones((2, 2, 2, 1))
    u = jnp.asarray(process.quantile(np.array([30.0, 900.0])), jnp.float32)
    np.testing.assert_allclose(process.loss(lambda x, t: 0.0 * x, x0, u, noise), weights[[30, 900]], rtol=1e-5)
