"""A distribution over noise levels would not be the one that u is the quantile of, nor SpeeD's the published one."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from diffcurr.processes import DDPM, EDM, Flow
from diffcurr.processes.density import Density, LogitNormal, Share, Speed, Uniform

PROCESS = DDPM()
DENSITIES = {
    "uniform": Uniform(),
    "logit-normal": LogitNormal(mean=0.3, std=0.8),
    "SpeeD": Speed(),
    "SpeeD, flat": Speed(tau=300, k=1.0),
}


@pytest.mark.parametrize("density", DENSITIES.values(), ids=DENSITIES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_share_and_quantile_are_inverse(density: Density, dtype: type) -> None:
    """In float64 on the host and in float32 on the device, both ways, away from the borders between SpeeD's levels."""
    tolerance = 1e-12 if dtype == np.float64 else 3e-6
    array = np.asarray if dtype == np.float64 else jnp.asarray
    # Not at the ends, where the logit-normal density is almost 0 and u hardly moves with q.
    q = (np.arange(100, 900) + np.random.default_rng(0).uniform(0.1, 0.9, 800)) / 1000
    u = density.quantile(Share(array(q, dtype), array(1 - q, dtype)), PROCESS)
    assert u.dtype == dtype and np.all(np.diff(u) > 0) and np.all((u >= 0) & (u < 1))
    share = density.share(u, PROCESS)
    assert share.q.dtype == share.complement.dtype == dtype
    # Where the density is low, a rounding of u is a larger step of q.
    np.testing.assert_allclose(share.q, q, atol=10 * tolerance)
    np.testing.assert_allclose(share.q + share.complement, 1.0, atol=tolerance)
    np.testing.assert_allclose(density.quantile(share, PROCESS), u, atol=tolerance)


@pytest.mark.parametrize("density", DENSITIES.values(), ids=DENSITIES)
def test_both_ends_are_inside(density: Density) -> None:
    """The first and the last u that the draw can give lie on the path."""
    share = density.share(jnp.asarray([0.0, 1.0 - 2.0**-24], jnp.float32), PROCESS)
    assert np.all((share.q >= 0) & (share.q <= 1) & (share.complement > 0))
    assert share.q[0] < 0.02 and share.complement[1] < 0.02  # five standard deviations of the logit-normal one


def test_the_logit_normal_path() -> None:
    drawn = LogitNormal(mean=0.3, std=0.8).share(np.random.default_rng(0).uniform(size=4000), PROCESS).complement
    assert scipy.stats.kstest(scipy.special.logit(drawn), scipy.stats.norm(0.3, 0.8).cdf).pvalue > 0.01


def linear_sigma(num_levels: int) -> np.ndarray:
    """sigma of DDPM's linear schedule."""
    scale = 1000 / num_levels
    return np.sqrt(1.0 - np.cumprod(1.0 - np.linspace(1e-4 * scale, 0.02 * scale, num_levels)))


def published_mirror(sigma: np.ndarray) -> int:
    """One after the first timestep at which the central difference of sigma falls below 1e-4."""
    return next(t for t in range(1, len(sigma) - 1) if (sigma[t + 1] - sigma[t - 1]) / 2 < 1e-4) + 1


def published_speed(tau: int, k: float, num_levels: int) -> np.ndarray:
    """Half of a batch is k times as likely below tau; the other half is that mirrored, t -> |m - t|."""
    base = np.where(np.arange(num_levels) < tau, k, 1.0)
    base /= base.sum()
    direct, m = 0.5 * base, published_mirror(linear_sigma(num_levels))
    for t in range(num_levels):
        direct[abs(m - t)] += 0.5 * base[t]
    return direct


def test_speed_in_numbers() -> None:
    """The level of the mirror is not tau, and the share of the hardest levels is not that of a mirror about tau."""
    process = DDPM(density=Speed())
    assert isinstance(process.density, Speed)
    assert process.density.mirror(process) == published_mirror(linear_sigma(1000)) == 642
    assert Speed(tau=300, k=2.0).mirror(process) == 642
    p = process.density.probabilities(process)
    # Of 700 k + 300 = 3,800: 50 k of the draws themselves, and 99 k that the mirror brings there.
    np.testing.assert_allclose(p[:50].sum(), (50 * 5 + 99 * 5) / 3800 / 2, rtol=1e-12)
    np.testing.assert_allclose(p[:50].sum(), 0.098, atol=1e-3)
    assert DDPM(density=Speed(tau=20), num_timesteps=50).density.mirror(DDPM(num_timesteps=50)) == 41
    # Other schedules: where sigma flattens, be it further on, or at another slope.
    for other in (DDPM(schedule="cosine", density=Speed()), Flow(path="trigonometric", density=Speed())):
        assert 950 < other.density.mirror(other) < 1000
    assert Speed(slope=1e-3).mirror(PROCESS) < 642


@pytest.mark.parametrize(("tau", "k", "num_levels"), [(700, 5.0, 1000), (300, 2.0, 1000), (20, 5.0, 50)])
def test_speed(tau: int, k: float, num_levels: int) -> None:
    """Its probabilities, and a draw of 400,000 that has them."""
    process = DDPM(density=Speed(tau=tau, k=k), num_timesteps=num_levels)
    assert isinstance(process.density, Speed)
    p = process.density.probabilities(process)
    np.testing.assert_allclose(p.sum(), 1.0)
    np.testing.assert_allclose(p, published_speed(tau, k, num_levels), rtol=1e-12)
    drawn = process.time(np.random.default_rng(0).uniform(size=400_000)).astype(int)
    expected = p * 400_000
    chi_square = np.sum((np.bincount(drawn, minlength=num_levels) - expected) ** 2 / expected)
    assert chi_square < num_levels + 4 * np.sqrt(2 * num_levels)


def test_speed_gives_the_timesteps_that_a_search_in_the_cumulative_probabilities_gives() -> None:
    """As it was before the distribution became a part of the process; in float32, where no draw lies on a border."""
    process = DDPM(density=Speed())
    cumulative = np.cumsum(published_speed(700, 5.0, 1000))
    u = np.random.default_rng(1).uniform(size=100_000)
    np.testing.assert_array_equal(process.time(u), np.searchsorted(cumulative, u, side="right"))
    inside = u[np.min(np.abs(u[:, None] - cumulative), axis=1) > 1e-6].astype(np.float32)
    np.testing.assert_array_equal(
        process.time(jnp.asarray(inside)), np.searchsorted(cumulative.astype(np.float32), inside, side="right")
    )
    middle = cumulative - published_speed(700, 5.0, 1000) / 2
    np.testing.assert_allclose(process.quantile(np.arange(1000.0)), middle, rtol=1e-12)


@pytest.mark.parametrize(
    "process", [Flow(path="trigonometric", density=Speed()), Flow(density=LogitNormal()), EDM(density=LogitNormal())]
)
def test_any_density_on_any_path(process: EDM | Flow) -> None:
    """Noise grows with u, and the share of draws below a noise level is its quantile."""
    u = np.linspace(0.01, 0.99, 197)
    time = process.time(u)
    assert np.all(np.diff(process.log_snr(u)) < 0)
    # SpeeD keeps a thousandth of a level, which is at most 2e-6 of u, from its borders.
    np.testing.assert_allclose(process.quantile(time), u, atol=2e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogitNormal(std=-1.0), "std = -1.0: must be a number above 0"),
        (lambda: Speed(k=0.0), "k = 0.0: must be a number above 0"),
        (lambda: Speed(tau=0), "tau = 0: must be an integer from 1"),
        (lambda: DDPM(density=Speed(tau=50), num_timesteps=50), "density.tau = 50: a level between 0 and 50"),
        (lambda: DDPM(density=Speed(slope=0.0)), "slope = 0.0: must be a number above 0"),
        (lambda: DDPM(density=Speed(slope=1.0)), r"slope = 1.0: .*, choose one between 4.16e-07 and 0.00483"),
        (lambda: DDPM(density=Speed(slope=1e-9)), r"slope = 1e-09: .*, choose one between 4.16e-07 and 0.00483"),
        (
            lambda: DDPM(density=Speed(tau=70), schedule="cosine", num_timesteps=100),
            r"slope = 0.0001: sigma must flatten to it towards noise, choose one between 0.000\d+ and 0.0167",
        ),
        (lambda: Flow(density=Speed()), "slope = 0.0001: .* that of this process does not; choose another density"),
        (lambda: EDM(density=Speed(slope=1e-3)), "slope = 0.001: .* of this process does not; choose another density"),
    ],
)
def test_rejects(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
