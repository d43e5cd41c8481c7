"""If a test here fails, the error of a network on held-out images is not that error, or the bound is no bound."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffcurr.metrics import denoising
from diffcurr.processes import DDPM, EDM, Denoised, Flow, Process
from diffcurr.processes.prediction import Level, V, expand

SHAPE = (8, 8, 1)
VARIANCES = np.geomspace(0.01, 2.0, 64)  # of the pixels, which are independent and Gaussian
LOG_SNR = np.array([-7.3, -2.6, 0.1, 2.7, 7.9])  # of DDPM between its timesteps
PROCESSES: dict[str, Process] = {
    "DDPM, epsilon": DDPM(),
    "DDPM, v": DDPM(prediction=V()),
    "EDM": EDM(),
    "flow": Flow(),
    "flow, trigonometric": Flow(path="trigonometric"),
}


def least_error(log_snr: np.ndarray, variances: np.ndarray = VARIANCES) -> np.ndarray:
    """Of the noise, mean over pixels: no estimate has less."""
    snr = np.exp(log_snr)[:, None]
    return np.mean(snr * variances / (1 + snr * variances), axis=1)


def best_denoiser(process: Process) -> denoising.Denoise:
    """The mean of x0 where x is known, said by an output of the kind that the process predicts."""

    def denoise(x: jax.Array, time: jax.Array, level: Level) -> Denoised:
        variances = jnp.asarray(VARIANCES, jnp.float32).reshape(SHAPE)
        alpha, sigma = expand(level.alpha, x), expand(level.sigma, x)
        x0 = alpha * variances / (alpha**2 * variances + sigma**2) * x

        def predict(seen: jax.Array, t: jax.Array) -> jax.Array:
            at_zero, at_one = (process.prediction.to_x0(jnp.full_like(x, one), x, level) for one in (0.0, 1.0))
            return (x0 - at_zero) / (at_one - at_zero)

        return process.denoise(predict, x, time, level)

    return denoise


def gaussian_images(number: int) -> np.ndarray:
    normal = np.random.default_rng(0).standard_normal((number, *SHAPE))
    return (normal * np.sqrt(VARIANCES).reshape(SHAPE)).astype(np.float32)


def errors(process: Process, x0: np.ndarray, log_snr: np.ndarray) -> np.ndarray:
    """Of the noise, image by level."""
    times = jnp.asarray(process.time_at(log_snr), jnp.float32)
    levels = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), process.level_at(log_snr))
    measure = jax.jit(functools.partial(denoising.x0_errors, best_denoiser(process)))
    found = measure(x0, np.arange(len(x0)), times, levels, jax.random.key(0))
    assert found.shape == (len(x0), len(log_snr))
    return np.asarray(found, np.float64) * np.exp(log_snr)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_the_best_denoiser_has_the_least_error(process: Process) -> None:
    found = errors(process, gaussian_images(1000), LOG_SNR)
    off = (found.mean(axis=0) - least_error(LOG_SNR)) / scipy.stats.sem(found, axis=0)
    assert np.all(np.abs(off) < 4), off
    # So large a sample tells a level from those near it.
    nearby = (found.mean(axis=0) - least_error(LOG_SNR + 0.1)) / scipy.stats.sem(found, axis=0)
    assert np.max(np.abs(nearby)) > 4


def test_the_noise_is_that_of_the_image_and_the_level() -> None:
    """In any order and any company; never the same twice."""
    numbers = np.arange(6)
    levels = Level(jnp.ones(3), jnp.ones(3))

    def noise(numbers: np.ndarray, seed: int = 0) -> np.ndarray:
        def denoise(x: jax.Array, time: jax.Array, level: Level) -> Denoised:
            return Denoised(x)

        x0, which = jnp.zeros((len(numbers), *SHAPE)), jnp.asarray(numbers)
        return np.asarray(denoising.x0_errors(denoise, x0, which, jnp.zeros(3), levels, jax.random.key(seed)))

    whole = noise(numbers)  # of each image at each level the mean square
    assert len(np.unique(whole)) == whole.size and not np.any(np.isin(noise(numbers, seed=1), whole))
    for some in (numbers[::-1], numbers[2:3]):
        np.testing.assert_allclose(noise(some), whole[some], rtol=1e-6)


def test_of_a_density_the_bound_is_met() -> None:
    """By the analytic error; and by the one that is measured, image by image."""
    entropy = np.mean(0.5 * np.log2(2 * np.pi * np.e * VARIANCES))
    grid = np.linspace(-12, 12, 201)
    second_moment = float(VARIANCES.mean())
    assert denoising.bound(grid, least_error(grid), second_moment) == pytest.approx(entropy, rel=2e-3)
    narrow = np.linspace(-3, 10, 201)  # what lies outside is no part of the integral but of the other terms
    assert denoising.bound(narrow, least_error(narrow), second_moment) == pytest.approx(entropy, abs=0.03)
    coarse, x0 = np.linspace(-12, 12, 33), gaussian_images(1000)
    bits = denoising.bound(coarse, errors(Flow(), x0, coarse), second_moment)
    assert bits.shape == (1000,)
    assert abs(bits.mean() - entropy) < 4 * scipy.stats.sem(bits) < 0.05
    # A denoiser that is worse has a higher one: by half the area between the errors.
    worse = denoising.bound(grid, least_error(grid) + 0.1, second_moment)
    assert worse - entropy == pytest.approx(0.5 * 24 * 0.1 / np.log(2), rel=0.01)


@pytest.mark.parametrize("high", [6.0, 8.0])
def test_of_pixels_the_bound_is_their_entropy(high: float) -> None:
    """Gaussian values on a grid of 256: the error is that of the continuous ones while the noise covers a few."""
    values = np.linspace(-1, 1, 256)
    inner = (values[1:] + values[:-1]) / 2
    shares = np.diff(scipy.stats.norm(0, 0.3).cdf([-np.inf, *inner, np.inf]))
    entropy = float(scipy.stats.entropy(shares, base=2))
    grid = np.linspace(-12, high, 201)
    error = least_error(grid, np.array([0.3**2]))
    found = denoising.bound(grid, error, 0.3**2, values, shares)
    assert found == pytest.approx(entropy, rel=0.005)
    # Where the noise covers less than a step, a value is known: nothing is left to be told.
    clean = np.append(grid, [14.0, 16.0])
    told = [denoising.bound(to, np.zeros(len(to)), 0.3**2, values, shares) for to in (clean, clean[:-1])]
    assert told[0] == pytest.approx(told[1], abs=1e-3) and told[0] < 0.01


def test_of_a_single_value_only_the_noisiest_level_is_left() -> None:
    grid = np.linspace(-5, 8, 5)
    alpha_squared = 1 / (1 + np.exp(5.0))
    prior = 0.5 * (alpha_squared * 0.25 + (1 - alpha_squared) - 1 - np.log(1 - alpha_squared))
    for value, share in (([0.5], [1.0]), ([-0.5, 0.5], [0.0, 1.0])):
        found = denoising.bound(grid, np.zeros(5), 0.25, np.array(value), np.array(share))
        assert found == pytest.approx(prior / np.log(2), rel=1e-6)


def test_the_order_of_the_grid_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    grid, error = np.sort(rng.uniform(-8, 8, 9)), rng.uniform(0, 1, (3, 9))
    values, shares = np.linspace(-1, 1, 17), np.full(17, 1 / 17)
    for pixels in ((), (values, shares)):
        expected = denoising.bound(grid, error, 0.3, *pixels)
        for order in (np.arange(9)[::-1], rng.permutation(9)):
            np.testing.assert_array_equal(denoising.bound(grid[order], error[:, order], 0.3, *pixels), expected)
