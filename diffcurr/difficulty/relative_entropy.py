"""The relative entropy of consecutive marginals, D_KL(p_{t-1} || p_t): the paper's measure of difficulty.

It is computed from the data and the noise schedule, before any training.

The marginal of a data set x_1..x_M at timestep t is a mixture of M Gaussians, called components here,
p_t = (1/M) sum_j N(alpha_t x_j, sigma_t^2 I), and

    D_KL(p_s || p_t) = E[log p_s(x) - log p_t(x)],  x = alpha_s x_i + sigma_s eps,  s = t - 1.

Component i, from which the sample x is drawn, is called the sample's own component. Relative to it, the exponent of
component j is a linear combination of A_ij = |x_i - x_j|^2, B_ij = eps_i . (x_i - x_j), |x_i|^2 and |x_j|^2, and only
the coefficients depend on the timestep. So two matrix products serve all timesteps, and each timestep costs elementwise
operations and a sum over j. The term j = i is exact (A = B = 0).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from diffcurr.difficulty import control_variates, mixture
from diffcurr.difficulty.coefficients import Bound, Coefficients, coefficients_of
from diffcurr.difficulty.mixture import Block, Moments, Samples, Sums, Terms

# Where the upper bound is below this one, r = p_t / p_s is not concentrated where there are no samples, so r - 1, whose
# mean is 0, can serve as a control variate.
EXCESS_SEEN = 0.5


class RelativeEntropy(NamedTuple):
    """D_KL(p_{t-1} || p_t) in nats. Entry k belongs to the pair of timesteps (k, k + 1), counted from 0.

    Attributes:
      value: the estimate.
      standard_error: standard error of the estimate.
      upper_bound: mean over i of D_KL(N(alpha_s x_i, sigma_s^2 I) || N(alpha_t x_i, sigma_t^2 I)), which bounds the
        divergence because relative entropy is jointly convex.
    """

    value: Float[Array | np.ndarray, " pair"]
    standard_error: Float[Array | np.ndarray, " pair"]
    upper_bound: Float[Array | np.ndarray, " pair"]


def gaussian_relative_entropy(
    eigenvalues: Float[np.ndarray, " dimension"],
    alphas: Float[np.ndarray, " t"],
    sigmas: Float[np.ndarray, " t"],
    mean: Float[np.ndarray, " dimension"] | None = None,
) -> Float[np.ndarray, " t-1"]:
    """Computes D_KL(p_{t-1} || p_t) in nats for Gaussian data, exactly, in float64.

    With eigenvalues lambda and mean m, v_t = alpha_t^2 lambda + sigma_t^2 and r = v_s / v_t, it is the sum over
    dimensions of 1/2 (r - 1 - log r + (alpha_s - alpha_t)^2 m^2 / v_t).

    Args:
      eigenvalues: eigenvalues of the covariance of the data.
      alphas: factor of the data at each of T timesteps.
      sigmas: standard deviation of the noise at each timestep.
      mean: mean of the data in the basis of the eigenvectors; zero if None.
    """
    alphas, sigmas = np.asarray(alphas, np.float64)[:, None], np.asarray(sigmas, np.float64)[:, None]
    variance = np.square(alphas) * np.asarray(eigenvalues, np.float64) + np.square(sigmas)
    excess = (variance[:-1] - variance[1:]) / variance[1:]  # r - 1, without the rounding error of r
    shift = 0.0 if mean is None else np.square(np.diff(alphas, axis=0) * mean) / variance[1:]
    return 0.5 * np.sum(excess - np.log1p(excess) + shift, axis=1)


def relative_entropy(
    data: Shaped[Array, "example *shape"],
    alphas: Float[np.ndarray, "..."],
    sigmas: Float[np.ndarray, "..."],
    key: PRNGKeyArray,
    num_samples: int,
    *,
    block_size: int = 512,
    leave_one_out: bool = False,
) -> RelativeEntropy:
    """Estimates D_KL(p_{t-1} || p_t) in nats at every pair of timesteps by Monte Carlo, with the same samples for all.

    The function is pure and can be compiled as a function of `data` and `key`. `alphas` and `sigmas` must be constants,
    because coefficients are computed from them in float64. Beside the data it needs memory for about
    `num_samples` x (2 `block_size` + 10 T) floats. Data that do not fit in memory are for
    `streaming.relative_entropies`.

    The estimate is the mean of -log r over samples, with r = p_t / p_s. Control variates reduce its variance. Three are
    functions of the sample's eps and x_i; they explain -log r at small t, where only the own component has weight. The
    fourth is r - 1, which explains most of -log r at large t. It is used where the upper bound is below 0.5 and the
    sample mean of r is 1 within its error: where the divergence is large, r is large only where there are no samples.

    Args:
      data: M data points, floating point.
      alphas: factor of the data at each of T timesteps, from the least noise to the most.
      sigmas: standard deviation of the noise at each timestep; above 0.
      key: random key.
      num_samples: number of samples, from 8 to M. Their centres x_i are drawn from the data without replacement.
      block_size: number of components that are computed at once.
      leave_one_out: whether to leave the sample's own component out of both mixtures. With q the mixture of the other
        components, the value is then E[log q_s(x) - log q_t(x)], which is not a divergence: it says how much better the
        less noisy mixture predicts a point that it does not contain. It is negative where the kernels of the mixture
        are narrower than the spacing of the points. There the divergence describes a finite set of points, and not a
        density behind it. Where there are enough points, it agrees with the divergence.

    Raises:
      ValueError: if the data are empty, constant, not finite or not floating point, `num_samples` is out of range, or
        `alphas` and `sigmas` are invalid.
    """
    coefficients, bound = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), coefficients_of(alphas, sigmas))
    _check(data, num_samples)
    return _measure(data, key, coefficients, bound, num_samples, block_size, leave_one_out)


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
@jax.default_matmul_precision("highest")  # accelerators would round the factors of products to fewer bits
def _measure(
    data: Shaped[Array, "example *shape"],
    key: PRNGKeyArray,
    c: Coefficients,
    bound: Bound,
    num_samples: int,
    block_size: int,
    leave_one_out: bool,
) -> RelativeEntropy:
    x = jnp.reshape(data, (data.shape[0], -1)).astype(jnp.float32)
    num_data, dim = x.shape
    index, eps = mixture.draw(key, num_samples, num_data, dim)

    mean = jnp.mean(x, axis=0)
    centred = x - mean  # distances of centred data suffer less from cancellation
    norm = jnp.sum(jnp.square(x), axis=1)
    centred_norm = jnp.sum(jnp.square(centred), axis=1)
    moments = Moments(mean, jnp.mean(norm), jnp.mean(centred_norm))
    samples = mixture.samples_of(index, eps, centred[index], norm[index], centred_norm[index], mean)

    # Consecutive points go to different blocks. If the data are sharded, each device then holds its share of every
    # block, and no point moves between devices.
    num_blocks = -(-num_data // block_size)

    def in_blocks(v: Array) -> Array:
        padded = jnp.pad(v, ((0, num_blocks * block_size - num_data), *((0, 0),) * (v.ndim - 1)))
        return jnp.swapaxes(padded.reshape(block_size, num_blocks, *v.shape[1:]), 0, 1)

    blocks = Block(*map(in_blocks, (centred, centred_norm, norm, 1 + jnp.arange(num_data))))
    terms = mixture.terms_of(c, bound, samples, moments, leave_one_out)
    add = functools.partial(mixture.add_block, c=c, samples=samples, terms=terms, leave_one_out=leave_one_out)
    sums, _ = jax.lax.scan(add, mixture.no_sums(terms, leave_one_out), blocks)
    return estimate(sums, samples, terms, moments, leave_one_out)


def estimate(sums: Sums, samples: Samples, terms: Terms, moments: Moments, leave_one_out: bool) -> RelativeEntropy:
    """The means over the samples, from sums over all components."""
    (first, second), near, own_term = sums, terms.near[:, None], terms.own

    # log r at each sample, for the other components alone and for all of them; the exponents of the own one are 0.
    log_first = first.peak + jnp.log(first.total)
    log_second = second.peak + jnp.log(jnp.where(near, 1.0, second.total))
    others_excess = jnp.where(near, second.total / jnp.maximum(first.total, 1e-30), 0.0)  # r - 1, near form
    own_excess = jnp.expm1(jnp.minimum(own_term, 1.0))
    near_excess = jax.nn.sigmoid(log_first) * others_excess + jax.nn.sigmoid(-log_first) * own_excess
    far_log_ratio = jax.nn.softplus(log_second) - jax.nn.softplus(log_first) + own_term
    log_ratio = jnp.where(near, jnp.log1p(near_excess), far_log_ratio)
    excess = jnp.where(near, near_excess, jnp.expm1(jnp.minimum(far_log_ratio, 80.0)))
    tamed = _excess_minus_log1p(excess, log_ratio)
    if leave_one_out:
        others = jnp.where(near, jnp.log1p(others_excess), log_second - log_first + own_term)
        log_ratio, tamed = others, tamed + (log_ratio - others)

    controls = jnp.stack(
        [
            samples.eps_norm - samples.eps.shape[1],
            samples.own_eps + samples.mean_eps,
            samples.own_norm - moments.norm,
        ],
        axis=1,
    )
    regress = functools.partial(control_variates.regress, controls=controls)
    balance = regress(excess)
    use_excess = (terms.upper_bound < EXCESS_SEEN) & (jnp.abs(balance.value) <= 4.0 * balance.standard_error)
    further, plain = control_variates.regress_further(regress(tamed), balance), regress(-log_ratio)
    return RelativeEntropy(
        value=jnp.where(use_excess, further.value, plain.value),
        standard_error=jnp.where(use_excess, further.standard_error, plain.standard_error),
        upper_bound=terms.upper_bound,
    )


def _check(data: Array, num_samples: int) -> None:
    if data.ndim < 1 or data.size == 0 or data.shape[0] < 2:
        raise ValueError(f"data of shape {data.shape}: there must be at least two points")
    if not jnp.issubdtype(data.dtype, jnp.floating):
        raise ValueError(f"data of type {data.dtype}: scale the images to floating point first, such as to [-1, 1]")
    if not 8 <= num_samples <= data.shape[0]:
        raise ValueError(f"num_samples = {num_samples}: choose between 8 and the {data.shape[0]} data points")
    if not isinstance(data, jax.core.Tracer):
        if not bool(jnp.all(jnp.isfinite(data))):
            raise ValueError("data hold values that are not finite: repair or drop those examples")
        if bool(jnp.all(data == data[:1])):
            raise ValueError("data are constant: all points are the same, so there is nothing to measure")


def _excess_minus_log1p(excess: Array, log_ratio: Array) -> Array:
    """Computes (r - 1) - log r from r - 1 and log r, by a series where they nearly cancel."""
    x = jnp.clip(excess, -0.05, 0.05)
    series = x**2 * (1 / 2 - x * (1 / 3 - x * (1 / 4 - x * (1 / 5 - x / 6))))
    return jnp.where(jnp.abs(excess) < 0.05, series, excess - log_ratio)
