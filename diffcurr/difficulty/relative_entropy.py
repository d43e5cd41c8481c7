"""Relative entropy of consecutive marginals, D_KL(p_{t-1} || p_t): the paper's measure of difficulty, before training.

The marginal of a data set x_1..x_M is a mixture of M Gaussians, p_t = (1/M) sum_j N(alpha_t x_j, sigma_t^2 I), and

    D_KL(p_s || p_t) = E[log p_s(x) - log p_t(x)],  x = alpha_s x_i + sigma_s eps,  s = t - 1.

Seen from its own centre i, the exponent of component j depends on the timestep only through coefficients of
A_ij = |x_i - x_j|^2, B_ij = eps_i . (x_i - x_j) and |x_j|^2. So two products of matrices serve all timesteps; each then
costs elementwise work and a sum over j. The term j = i is exact (A = B = 0).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

# Above this bound on the divergence the two log-densities are summed apart; below, where their difference would drown
# in rounding, the difference is summed as one.
NEAR = 0.02


class RelativeEntropy(NamedTuple):
    """D_KL(p_{t-1} || p_t) in nats; entry k belongs to the pair of timesteps (k, k + 1), counted from 0.

    Attributes:
      value: the estimate.
      standard_error: its own.
      upper_bound: mean over i of KL(N(alpha_s x_i, sigma_s^2) || N(alpha_t x_i, sigma_t^2)), by joint convexity.
    """

    value: Float[Array, " pair"]
    standard_error: Float[Array, " pair"]
    upper_bound: Float[Array, " pair"]


def gaussian_relative_entropy(
    eigenvalues: Float[np.ndarray, " dimension"], alphas: Float[np.ndarray, " t"], sigmas: Float[np.ndarray, " t"]
) -> Float[np.ndarray, " t-1"]:
    """The same for zero-mean Gaussian data with these covariance eigenvalues: exact, float64.

    With v_t = alpha_t^2 lambda + sigma_t^2 and r = v_s / v_t it is 1/2 sum (r - 1 - log r).
    """
    variance = np.square(alphas)[:, None] * np.asarray(eigenvalues, np.float64) + np.square(sigmas)[:, None]
    excess = (variance[:-1] - variance[1:]) / variance[1:]  # r - 1, without the rounding of r
    return 0.5 * np.sum(excess - np.log1p(excess), axis=1)


def relative_entropy(
    data: Shaped[Array, "example *shape"],
    alphas: Float[np.ndarray, "..."],
    sigmas: Float[np.ndarray, "..."],
    key: PRNGKeyArray,
    num_samples: int,
    *,
    block_size: int = 512,
) -> RelativeEntropy:
    """Monte Carlo estimate of D_KL(p_{t-1} || p_t) at every timestep, with the same samples at all of them.

    Pure and jit-able in `data` and `key`; `alphas` and `sigmas` are constants, since the coefficients are formed from
    them in float64. Memory is about `num_samples` x (2 `block_size` + 10 T) floats beside the data.

    Two devices tame the variance. What depends on the sample's own eps and x_i alone has a known mean and is regressed
    out (control variates): at small t, where only the own component counts, that is all of it. At large t the ratio
    r = p_t / p_s has mean 1, so (r - 1) - log r has the same mean as -log r and a far smaller spread; it is used where
    the sample mean of r is 1 within its error, since where the divergence is large no sample sees the mass of r.

    Args:
      data: floating point, any shape after the first axis.
      alphas, sigmas: of the T timesteps from the least noise to the most, sigma > 0.
      num_samples: centres drawn from the data without replacement, one eps each; at least 8.
      block_size: data points taken at a time.

    Raises:
      ValueError: for data that are not finite floating point, empty or constant, schedules that do not fit, or more
        samples than data points.
    """
    coefficients, bound = _coefficients(alphas, sigmas)
    _check(data, num_samples)
    x = jnp.reshape(data, (data.shape[0], -1)).astype(jnp.float32)
    num_data, dim = x.shape
    key_index, key_noise = jax.random.split(key)
    index = jax.random.permutation(key_index, num_data)[:num_samples]
    eps = jax.random.normal(key_noise, (num_samples, dim), jnp.float32)

    mean = jnp.mean(x, axis=0)
    centred = x - mean  # distances from centred data lose less to cancellation
    own = centred[index]
    norm = jnp.sum(jnp.square(x), axis=1)
    centred_norm = jnp.sum(jnp.square(centred), axis=1)
    mean_norm = jnp.mean(norm)
    own_norm, own_centred_norm, own_eps = norm[index], centred_norm[index], jnp.sum(own * eps, axis=1)
    eps_norm, mean_eps = jnp.sum(jnp.square(eps), axis=1), eps @ mean

    padding = -num_data % block_size
    blocks = (
        jnp.pad(centred, ((0, padding), (0, 0))).reshape(-1, block_size, dim),
        jnp.pad(centred_norm, (0, padding)).reshape(-1, block_size),
        jnp.pad(norm, (0, padding)).reshape(-1, block_size),
        jnp.arange(num_data + padding).reshape(-1, block_size),
    )

    def distances(block: tuple[Array, ...]) -> tuple[Array, Array]:
        """A and B for a block of j; own and padding components are infinitely far."""
        points, points_norm, _, position = block
        a = jnp.maximum(own_centred_norm[:, None] + points_norm - 2.0 * own @ points.T, 0.0)
        absent = (position == index[:, None]) | (position >= num_data)
        b = jnp.where(absent, 0.0, own_eps[:, None] - eps @ points.T)
        return jnp.where(absent, 1e30, a), b

    c = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), coefficients)
    own_term = (
        dim * c.log_volume[:, None]
        + c.eps_norm[:, None] * (eps_norm - dim)
        + c.own_norm[:, None] * own_norm
        + c.own_eps[:, None] * (own_eps + mean_eps)
    )  # log of the own component's ratio, t over s: [pair, sample]
    upper_bound = dim * jnp.asarray(bound.volume, jnp.float32) + jnp.asarray(bound.norm, jnp.float32) * mean_norm

    # The near form sums e^s and e^s expm1(ratio), the far form e^s and e^t. Exponents are relative to those of the own
    # component, which are 0: it is the first summand, and the others are too small or too few to overflow.
    near = upper_bound < NEAR
    sums = (
        jnp.ones_like(own_term),
        jnp.where(near[:, None], jnp.expm1(jnp.minimum(own_term, 1.0)), 1.0),
    )
    ones = jnp.ones(block_size, jnp.float32)

    def add_block(sums: tuple[Array, Array], block: tuple[Array, ...]) -> tuple[tuple[Array, Array], None]:
        (a, b), norm_j = distances(block), block[2]

        def at_timestep(_: None, inputs: tuple) -> tuple[None, tuple[Array, Array]]:
            k, near, own_term, first, second = inputs
            shift_i, shift_j = k.ratio_n * own_norm, k.ratio_n * norm_j

            # Products with a vector of ones: XLA then computes the exponentials once. What the two forms share is
            # written in each: handed into a branch, it would be stored and read again.
            def one_difference() -> tuple[Array, Array]:
                e = jnp.exp(k.s_a * a + k.s_b * b)
                ratio = k.ratio_a * a + k.ratio_b * b - shift_j + (shift_i + own_term)[:, None]
                return e @ ones, (e * _expm1_series(ratio)) @ ones

            def two_sums() -> tuple[Array, Array]:
                under_s = jnp.exp(k.s_a * a + k.s_b * b)
                under_t = jnp.exp(k.t_a * a + k.t_b * b - shift_j + shift_i[:, None])
                return under_s @ ones, under_t @ ones

            more_first, more_second = jax.lax.cond(near, one_difference, two_sums)
            return None, (first + more_first, second + more_second)

        _, sums = jax.lax.scan(at_timestep, None, (c, near, own_term, *sums))
        return sums, None

    (first, second), _ = jax.lax.scan(add_block, sums, blocks)
    one = second / first  # the near form's r - 1
    far_log_ratio = jnp.log(second) - jnp.log(first) + own_term
    log_ratio = jnp.where(near[:, None], jnp.log1p(jnp.where(near[:, None], one, 0.0)), far_log_ratio)
    excess = jnp.where(near[:, None], one, jnp.expm1(jnp.minimum(far_log_ratio, 80.0)))

    controls = jnp.stack([eps_norm - dim, own_eps + mean_eps, own_norm - mean_norm], axis=1)
    plain = _regress(-log_ratio, controls)
    tamed = _regress(_excess_minus_log1p(excess, log_ratio), controls)
    balance = _regress(excess, controls)
    use_tamed = (jnp.abs(balance.value) <= 2.0 * balance.standard_error) & (tamed.standard_error < plain.standard_error)
    value = jnp.where(use_tamed, tamed.value, plain.value)
    return RelativeEntropy(value, jnp.where(use_tamed, tamed.standard_error, plain.standard_error), upper_bound)


class _Coefficients(NamedTuple):
    """Per pair of timesteps. Exponent under p_s: s_a A + s_b B; under p_t: t_a A + t_b B + ratio_n (|x_i|^2 - |x_j|^2)
    + own term, whose parts are the last four; `ratio` is t less s."""

    s_a: Array
    s_b: Array
    t_a: Array
    t_b: Array
    ratio_a: Array
    ratio_b: Array
    ratio_n: Array
    log_volume: Array
    eps_norm: Array
    own_norm: Array
    own_eps: Array


class _Bound(NamedTuple):
    volume: np.ndarray
    norm: np.ndarray


def _coefficients(alphas: np.ndarray, sigmas: np.ndarray) -> tuple[_Coefficients, _Bound]:
    """In float64, where differences of neighbouring timesteps are still exact enough."""
    alphas, sigmas = np.asarray(alphas, np.float64), np.asarray(sigmas, np.float64)
    if alphas.ndim != 1 or alphas.shape != sigmas.shape or len(alphas) < 2:
        raise ValueError(f"alphas and sigmas have shapes {alphas.shape} and {sigmas.shape}: give two equally long rows")
    if not (np.all(np.isfinite(alphas)) and np.all(np.isfinite(sigmas)) and np.all(sigmas > 0)):
        raise ValueError(f"sigmas must be above 0 and finite, but the least is {sigmas.min()}: leave out clean data")
    (a_s, a_t), (s_s, s_t) = (alphas[:-1], alphas[1:]), (sigmas[:-1], sigmas[1:])
    shrink = (s_t**2 - s_s**2) / s_t**2  # 1 - sigma_s^2 / sigma_t^2
    volume = 0.5 * (shrink + np.log1p(-shrink))
    coefficients = _Coefficients(
        s_a=-(a_s**2) / (2 * s_s**2),
        s_b=-a_s / s_s,
        t_a=-a_t * a_s / (2 * s_t**2),
        t_b=-a_t * s_s / s_t**2,
        # From |x - alpha_t x_j|^2 with x_i . (x_i - x_j) = (A + |x_i|^2 - |x_j|^2) / 2.
        ratio_a=a_s**2 / (2 * s_s**2) - a_t * a_s / (2 * s_t**2),
        ratio_b=a_s / s_s - a_t * s_s / s_t**2,
        ratio_n=-a_t * (a_s - a_t) / (2 * s_t**2),
        log_volume=volume,
        eps_norm=0.5 * shrink,
        own_norm=-((a_s - a_t) ** 2) / (2 * s_t**2),
        own_eps=-(a_s - a_t) * s_s / s_t**2,
    )
    return coefficients, _Bound(volume=-volume, norm=(a_s - a_t) ** 2 / (2 * s_t**2))


def _check(data: Array, num_samples: int) -> None:
    if data.ndim < 1 or data.size == 0 or data.shape[0] < 2:
        raise ValueError(f"data of shape {data.shape}: there must be at least two points")
    if not jnp.issubdtype(data.dtype, jnp.floating):
        raise ValueError(f"data of type {data.dtype}: scale the images to floating point first, such as to [-1, 1]")
    if not 8 <= num_samples <= data.shape[0]:
        raise ValueError(f"num_samples = {num_samples}: choose between 8 and the {data.shape[0]} data points")
    if not isinstance(data, jax.core.Tracer):
        if not bool(jnp.all(jnp.isfinite(data))):
            raise ValueError("data hold values that are not finite: mend or drop those examples")
        if bool(jnp.all(data == data[:1])):
            raise ValueError("data are constant: all points are the same, so there is nothing to measure")


def _expm1_series(x: Array) -> Array:
    """expm1 for |x| <= 1, to 3e-6 relative there and to float32 rounding for |x| <= 1/2; cheaper than the exact one."""
    x = jnp.clip(x, -1.5, 1.5)  # what lies outside carries no weight where this is used
    result = jnp.full_like(x, 1 / 40320)
    for factor in (1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0):
        result = result * x + factor
    return result * x


def _excess_minus_log1p(excess: Array, log_ratio: Array) -> Array:
    """(r - 1) - log r, by its series where the two terms nearly cancel."""
    x = jnp.clip(excess, -0.05, 0.05)
    series = x**2 * (1 / 2 - x * (1 / 3 - x * (1 / 4 - x * (1 / 5 - x / 6))))
    return jnp.where(jnp.abs(excess) < 0.05, series, excess - log_ratio)


class _Estimate(NamedTuple):
    value: Array
    standard_error: Array


def _regress(y: Float[Array, "pair sample"], controls: Float[Array, "sample control"]) -> _Estimate:
    """Mean of y with what the zero-mean controls explain removed: the intercept of a least-squares fit."""
    scaled = controls / jnp.maximum(jnp.std(controls, axis=0), 1e-30)
    design = jnp.concatenate([jnp.ones_like(scaled[:, :1]), scaled], axis=1)
    inverse = jnp.linalg.pinv(design)
    fit = y @ inverse.T  # [pair, coefficient]
    residual = y - fit @ design.T
    variance = jnp.sum(jnp.square(residual), axis=1) / (y.shape[1] - design.shape[1])
    return _Estimate(fit[:, 0], jnp.sqrt(variance * jnp.sum(jnp.square(inverse[0]))))
