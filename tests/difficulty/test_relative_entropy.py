"""If these fail, the measured difficulty of the noise levels, and the clusters that follow from it, are wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

from diffcurr.difficulty.relative_entropy import RelativeEntropy, gaussian_relative_entropy, relative_entropy
from diffcurr.processes import DDPM

PROCESS = DDPM()
ALPHAS, SIGMAS = np.sqrt(PROCESS.alphas_cumprod), np.sqrt(1 - PROCESS.alphas_cumprod)
KEY = jax.random.key(0)


@functools.cache
def digits() -> np.ndarray:
    """All 1,797 real digits in [-1, 1]."""
    return (load_digits().images / 8 - 1).astype(np.float32)


@functools.cache
def digits_curve(num_samples: int) -> RelativeEntropy:
    result = relative_entropy(jnp.asarray(digits()), ALPHAS, SIGMAS, KEY, num_samples)
    return RelativeEntropy(*(np.asarray(part, np.float64) for part in result))


@functools.cache
def direct(num_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Computes (value, standard error) of every pair of timesteps in float64, from the distances themselves.

    The first array is with all components, the second without the sample's own. Each regression is a single fit.
    """
    data = digits().reshape(1797, 64).astype(np.float64)
    key_index, key_noise = jax.random.split(KEY)
    index = np.asarray(jax.random.permutation(key_index, 1797)[:num_samples])
    eps = np.asarray(jax.random.normal(key_noise, (num_samples, 64)), np.float64)
    own = data[index]
    controls = [np.sum(eps**2, 1) - 64, np.sum(own * eps, 1), np.sum(own**2, 1) - np.mean(np.sum(data**2, 1))]

    def regress(y: np.ndarray, *controls: np.ndarray) -> tuple[float, float]:
        design = np.stack([np.ones(num_samples), *(c / c.std() for c in controls)], 1)
        inverse = np.linalg.pinv(design)
        fit = inverse @ y
        variance = np.sum((y - design @ fit) ** 2) / (num_samples - design.shape[1])
        return fit[0], np.sqrt(variance * np.sum(inverse[0] ** 2))

    def log_densities(x: np.ndarray, t: int) -> np.ndarray:
        exponent = -np.sum((x[:, None] - ALPHAS[t] * data[None]) ** 2, axis=-1) / (2 * SIGMAS[t] ** 2)
        whole = scipy.special.logsumexp(exponent, axis=1)
        exponent[np.arange(num_samples), index] = -np.inf
        return np.stack([whole, scipy.special.logsumexp(exponent, axis=1)]) - 64 * np.log(SIGMAS[t])

    bound = digits_curve(num_samples).upper_bound
    rows: list[list] = [[], []]
    for s in range(999):
        x = ALPHAS[s] * own + SIGMAS[s] * eps
        log_ratios = log_densities(x, s + 1) - log_densities(x, s)
        excess = np.expm1(np.minimum(log_ratios[0], 700))
        mean, error = regress(excess, *controls)
        further = [excess] if bound[s] < 0.5 and abs(mean) <= 4 * error else []
        for row, log_ratio in zip(rows, log_ratios, strict=True):
            row.append(regress(-log_ratio, *controls, *further))
    return np.array(rows[0]), np.array(rows[1])


def test_equals_a_direct_float64_computation_at_every_timestep() -> None:
    np.testing.assert_allclose(digits_curve(24).value, direct(24)[0][:, 0], rtol=1e-3)
    np.testing.assert_allclose(digits_curve(24).standard_error[100:], direct(24)[0][100:, 1], rtol=1e-2)


def test_leave_one_out_equals_a_direct_computation_too() -> None:
    value, error = direct(24)[1].T
    got = relative_entropy(jnp.asarray(digits()), ALPHAS, SIGMAS, KEY, 24, leave_one_out=True)
    # The curve crosses zero, so errors are compared with its standard error there.
    assert np.max(np.abs(got.value - value) / (1e-3 * np.abs(value) + 1e-2 * error)) < 1
    np.testing.assert_allclose(got.standard_error, error, rtol=2e-2)


def test_leave_one_out_tells_points_from_a_density() -> None:
    """With few points in many dimensions the value is negative; with many in one dimension it is the divergence."""
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=(200, 50)), rng.normal(size=(4000, 1))
    for data, levels, sign in ((few, slice(0, 300, 30), -1), (many, slice(300, 700, 50), 1)):
        x = jnp.asarray(data / 2, jnp.float32)
        curve, left_out = (
            relative_entropy(x, ALPHAS[levels], SIGMAS[levels], KEY, 200, leave_one_out=flag) for flag in (False, True)
        )
        assert np.all(np.sign(left_out.value) == sign) and np.all(curve.value > 0)
        if sign > 0:
            np.testing.assert_allclose(left_out.value, curve.value, rtol=0.05)


def test_never_above_the_bound_and_continuous_between_the_forms() -> None:
    curve = digits_curve(256)
    slack = 4 * curve.standard_error + 1e-5 * curve.upper_bound
    assert np.all(curve.value <= curve.upper_bound + slack)
    # The ratio of the divergence to the bound changes slowly in t, also where another form computes it.
    share, error = curve.value / curve.upper_bound, curve.standard_error / curve.upper_bound
    assert np.all(np.abs(np.diff(share)) <= 4 * np.hypot(error[1:], error[:-1]) + 2e-3)
    assert np.all(curve.value > 0)
    assert np.max(curve.standard_error / curve.value) < 0.1


def test_gaussian_closed_form() -> None:
    """White data of variance 0.25 in 3,072 dimensions with the linear schedule; at t = 500 also an approximation."""
    value = gaussian_relative_entropy(np.full(3072, 0.25), ALPHAS, SIGMAS)
    published = {
        2: 1e-4,
        10: 6e-4,
        50: 7e-3,
        100: 1.4e-2,
        200: 1.2e-2,
        400: 1.5e-3,
        600: 4.4e-5,
        800: 2.6e-7,
        999: 2.9e-10,
    }
    for t, about in published.items():
        np.testing.assert_allclose(value[t - 2], about, rtol=0.15)
    # r - 1 is about (d alpha-bar) (1 - lambda) / v, and each dimension adds a quarter of its square.
    a = PROCESS.alphas_cumprod
    approximation = 3072 / 4 * ((a[498] - a[499]) * 0.75 / (1 - 0.75 * a[499])) ** 2
    np.testing.assert_allclose(value[498], approximation, rtol=2e-3)


def test_gaussian_data() -> None:
    """The divergence of many points from a known Gaussian is close to the closed form.

    The mixture of M points is the Gaussian smoothed at the scale sigma_t / alpha_t. Where that is narrower than the
    spacing of the points it is another distribution, and the two divergences differ. So only t >= 300 is compared with
    the closed form, which is computed from the covariance of the points.
    """
    points = np.random.default_rng(0).normal(size=(4000, 2)) @ np.array([[0.8, 0.0], [0.3, 0.4]])
    points -= points.mean(axis=0)
    eigenvalues = np.linalg.eigvalsh(np.cov(points.T, ddof=0))
    exact = gaussian_relative_entropy(eigenvalues, ALPHAS, SIGMAS)
    data = jnp.asarray(points, jnp.float32)
    got = relative_entropy(data, ALPHAS, SIGMAS, KEY, 2000)
    z = (np.asarray(got.value) - exact) / np.asarray(got.standard_error)
    assert np.max(np.abs(z[299:])) < 4


def test_eight_devices_agree_with_one() -> None:
    data, levels = digits()[:1792], slice(0, 1000, 37)

    measure = jax.jit(lambda x: relative_entropy(x, ALPHAS[levels], SIGMAS[levels], KEY, 64, block_size=256))
    spread = jax.device_put(data, NamedSharding(Mesh(jax.devices(), "data"), PartitionSpec("data")))
    np.testing.assert_allclose(measure(spread).value, measure(jnp.asarray(data)).value, rtol=1e-5)
    assert "all-gather" not in measure.lower(spread).compile().as_text()  # the points are not moved between devices


def test_block_size_changes_nothing() -> None:
    data, levels = jnp.asarray(digits()), slice(0, 1000, 37)
    small, large = (
        relative_entropy(data, ALPHAS[levels], SIGMAS[levels], KEY, 64, block_size=size).value for size in (100, 2048)
    )
    np.testing.assert_allclose(small, large, rtol=1e-5)


def test_pure_noise_at_the_end() -> None:
    """With alpha = 0, as in flow matching, the value is that of the limit, and padding counts no point twice."""
    alphas, sigmas = np.array([0.3, 0.1, 0.0]), np.array([0.7, 0.9, 1.0])
    exact, limit = (
        relative_entropy(jnp.asarray(digits()), np.maximum(alphas, least), sigmas, KEY, 100, block_size=1000).value
        for least in (0.0, 1e-4)
    )
    np.testing.assert_allclose(exact, limit, rtol=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.full((20, 3), np.nan, np.float32)}, "not finite"),
        ({"data": np.ones((20, 3), np.float32)}, "constant"),
        ({"data": np.arange(60, dtype=np.uint8).reshape(20, 3)}, "of type uint8: scale the images"),
        ({"data": np.zeros((0, 3), np.float32)}, "at least two points"),
        ({"sigmas": np.array([0.0, 0.5, 0.9])}, "sigmas must be above 0, but the smallest sigma is 0.0"),
        ({"alphas": np.array([1.0, 0.5])}, "two sequences of equal length"),
        ({"num_samples": 21}, "num_samples = 21: choose between 8 and the 20"),
        ({"num_samples": 1}, "num_samples = 1"),
    ],
)
def test_rejects(change: dict, message: str) -> None:
    arguments = {
        "data": np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32),
        "alphas": np.array([0.99, 0.9, 0.4]),
        "sigmas": np.array([0.1, 0.5, 0.9]),
        "key": KEY,
        "num_samples": 10,
    } | change
    arguments["data"] = jnp.asarray(arguments["data"])
    with pytest.raises(ValueError, match=message):
        relative_entropy(**arguments)
