"""How well a network denoises images that it was not trained on, and the bound on their likelihood that follows.

Everything is a function of log-SNR, so that networks of any process, prediction and weighting stand side by side.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # loads its modules when they are named
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffcurr.processes.base import Denoised, mean_over_pixels
from diffcurr.processes.prediction import Level, expand

NAME = "denoising_bound"  # what is measured by it, among what is measured of a run

Denoise = Callable[[Float[Array, "batch *shape"], Float[Array, " batch"], Level], Denoised]
"""(x, native time, level) -> the estimate of x0."""


def x0_errors(
    denoise: Denoise,
    x0: Float[Array, "image *shape"],
    numbers: Int[Array, " image"],
    times: Float[Array, " level"],
    levels: Level,
    key: PRNGKeyArray,
) -> Float[Array, "image level"]:
    """Mean squared error of x0 per value, of each image at each noise level. Pure and jit-able.

    The noise of an image at a level depends on `key`, its number and the level's alone: so every network sees the same,
    on any number of devices.

    Args:
      numbers: number of each image.
      times: native times.
      levels: the levels there.
    """

    def at(index: Int[Array, ""], time: Float[Array, ""], level: Level) -> Float[Array, " image"]:
        keys = jax.vmap(lambda number: jax.random.fold_in(jax.random.fold_in(key, index), number))(numbers)
        noise = jax.vmap(lambda one: jax.random.normal(one, x0.shape[1:], jnp.float32))(keys)
        level = jax.tree.map(lambda value: jnp.broadcast_to(value, x0.shape[:1]), level)
        x = expand(level.alpha, x0) * x0 + expand(level.sigma, x0) * noise
        found = denoise(x, jnp.broadcast_to(time, x0.shape[:1]), level)
        return mean_over_pixels(jnp.square(found.x0 - x0))

    return jax.lax.map(lambda one: at(*one), (jnp.arange(len(times)), times, levels)).T


def bound(
    log_snr: Float[np.ndarray, " level"],
    noise_error: Float[np.ndarray, "*image level"],
    second_moment: float,
    values: Float[np.ndarray, " value"] | None = None,
    shares: Float[np.ndarray, " value"] | None = None,
) -> Float[np.ndarray, "*image"]:
    """A bound on the negative log-likelihood in bits per dimension (Kingma et al. 2021, eq. 11 to 15).

    It is the sum of three terms, with log-SNR between the ends of the grid: half the integral of the error of the noise
    over log-SNR (trapezoids); the divergence of the noisiest level from a standard normal distribution; and what is
    still unknown of an image at the cleanest level. Where the data take few values, as pixels do, the last is the
    entropy of a value beside its noisy self (Kingma et al. 2021, eq. 8), and the probability of the image is bounded.
    Otherwise the decoder is a normal distribution of the noise's own width, and a probability density is bounded.
    Only the first term depends on the network.

    Args:
      log_snr: the grid, rising or falling.
      noise_error: mean squared error of the noise per value: that of x0 times the signal-to-noise ratio.
      second_moment: mean square of the data.
      values: the values that the data take, equally spaced; None for any.
      shares: how often each of them occurs.
    """
    order = np.argsort(log_snr)
    grid, error = np.asarray(log_snr, np.float64)[order], np.asarray(noise_error, np.float64)[..., order]
    low, high = grid[[0, -1]]
    alpha_squared, sigma_squared = scipy.special.expit([low, -low])
    prior = 0.5 * (alpha_squared * second_moment + sigma_squared - 1.0 - np.log(sigma_squared))
    noise = np.exp(-high / 2)  # relative to x0 = 1
    if values is None or shares is None:
        decoder = 0.5 * np.log(2 * np.pi * np.e * noise**2)
    else:
        decoder = float(shares @ _unknown(np.asarray(values, np.float64), noise))
    return np.asarray((np.trapezoid(error, grid) / 2 + prior + decoder) / np.log(2.0))


def _unknown(values: Float[np.ndarray, " value"], noise: float) -> Float[np.ndarray, " value"]:
    """-E log p(value | value + noise), in nats, of each value, p proportional to the normal density of the noise."""
    points, weights = np.polynomial.hermite_e.hermegauss(101)
    seen = values[:, None] + noise * points  # [value, point]
    logits = -((seen[..., None] - values) ** 2) / (2 * noise**2)
    log_p = np.take_along_axis(logits, np.arange(len(values))[:, None, None], axis=-1)[..., 0]
    return -(log_p - scipy.special.logsumexp(logits, axis=-1)) @ weights / weights.sum()
