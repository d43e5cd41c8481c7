"""Relative entropy of consecutive marginals, D_KL(p_{t-1} || p_t): the paper's measure of difficulty, before training.

The marginal of a data set x_1..x_M is a mixture of M Gaussians, p_t = (1/M) sum_j N(alpha_t x_j, sigma_t^2 I), and

    D_KL(p_s || p_t) = E[log p_s(x) - log p_t(x)],  x = alpha_s x_i + sigma_s eps,  s = t - 1.

Seen from its own centre i, the exponent of component j depends on the timestep only through coefficients of
A_ij = |x_i - x_j|^2, B_ij = eps_i . (x_i - x_j) and |x_j|^2. So two products of matrices serve all timesteps; each then
costs elementwise work and a sum over j. The term j = i is exact (A = B = 0).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

# Above this bound on the divergence the two log-densities are summed apart; below, where their difference would drown
# in rounding, the difference is summed as one.
NEAR = 0.02
EXPM1_LIMIT = 3.0
# Below this bound the mass of r = p_t / p_s is where the samples are, so that r - 1, of mean 0, may serve as a control.
EXCESS_SEEN = 0.5


class RelativeEntropy(NamedTuple):
    """D_KL(p_{t-1} || p_t) in nats; entry k belongs to the pair of timesteps (k, k + 1), counted from 0.

    Attributes:
      value: the estimate.
      standard_error: its own.
      upper_bound: mean over i of KL(N(alpha_s x_i, sigma_s^2) || N(alpha_t x_i, sigma_t^2)), by joint convexity.
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
    """The same for Gaussian data with these covariance eigenvalues: exact, float64.

    With v_t = alpha_t^2 lambda + sigma_t^2, r = v_s / v_t and mean m it is
    1/2 sum (r - 1 - log r + (alpha_s - alpha_t)^2 m^2 / v_t).

    Args:
      mean: of the data, in the basis of the eigenvectors; zero if None.
    """
    alphas, sigmas = np.asarray(alphas, np.float64)[:, None], np.asarray(sigmas, np.float64)[:, None]
    variance = np.square(alphas) * np.asarray(eigenvalues, np.float64) + np.square(sigmas)
    excess = (variance[:-1] - variance[1:]) / variance[1:]  # r - 1, without the rounding of r
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
    """Monte Carlo estimate of D_KL(p_{t-1} || p_t) at every timestep, with the same samples at all of them.

    Pure and jit-able in `data` and `key`; `alphas` and `sigmas` are constants, since the coefficients are formed from
    them in float64. Memory is about `num_samples` x (2 `block_size` + 10 T) floats beside the data.

    What has a known mean is regressed out of -log r, r = p_t / p_s (control variates): functions of the sample's own
    eps and x_i, which are all there is to it at small t, where only the own component counts; and r - 1, whose mean is
    0 and which is all but a small part of it at large t. The latter is used where the divergence is at most 0.5 and the
    sample mean of r is 1 within its error: where the divergence is large, no sample sees the mass of r.

    Args:
      data: floating point, any shape after the first axis.
      alphas, sigmas: of the T timesteps from the least noise to the most, sigma > 0.
      num_samples: centres drawn from the data without replacement, one eps each; at least 8.
      block_size: data points taken at a time.
      leave_one_out: take the sample's own centre x_i out of both mixtures. The value is then no divergence but
        E[log q_s(x) - log q_t(x)] with q the mixture of the other points: how much better the less noisy mixture
        predicts a point it has not seen. Negative where its kernels are narrower than the spacing of the points, that
        is, where the divergence is that of a finite set of points and not of a density behind it; the two curves
        meet where the points suffice.

    Raises:
      ValueError: for data that are not finite floating point, empty or constant, schedules that do not fit, or more
        samples than data points.
    """
    coefficients, bound = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), _coefficients(alphas, sigmas))
    _check(data, num_samples)
    return _measure(data, key, coefficients, bound, num_samples, block_size, leave_one_out)


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _measure(
    data: Shaped[Array, "example *shape"],
    key: PRNGKeyArray,
    c: "_Coefficients",
    bound: "_Bound",
    num_samples: int,
    block_size: int,
    leave_one_out: bool,
) -> RelativeEntropy:
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

    # Consecutive points go to different blocks: where the data are spread over devices, each holds its share of every
    # block, and no point travels.
    num_blocks = -(-num_data // block_size)

    def in_blocks(v: Array) -> Array:
        padded = jnp.pad(v, ((0, num_blocks * block_size - num_data), *((0, 0),) * (v.ndim - 1)))
        return jnp.swapaxes(padded.reshape(block_size, num_blocks, *v.shape[1:]), 0, 1)

    blocks = tuple(map(in_blocks, (centred, centred_norm, norm, 1 + jnp.arange(num_data))))

    def distances(block: tuple[Array, ...]) -> tuple[Array, Array]:
        """A and B for a block of j; own and padding components are infinitely far."""
        points, points_norm, _, number = block
        a = jnp.maximum(own_centred_norm[:, None] + points_norm - 2.0 * own @ points.T, 0.0)
        absent = (number == 1 + index[:, None]) | (number == 0)
        b = jnp.where(absent, 0.0, own_eps[:, None] - eps @ points.T)
        return jnp.where(absent, 1e30, a), b

    own_term = (
        dim * c.log_volume[:, None]
        + c.eps_norm[:, None] * (eps_norm - dim)
        + c.own_norm[:, None] * own_norm
        + c.own_eps[:, None] * (own_eps + mean_eps)
    )  # log of the own component's ratio, t over s: [pair, sample]
    upper_bound = dim * bound.volume + bound.norm * mean_norm

    # Sums over the other components: the near form's of e^s and e^s expm1(ratio), the far form's of e^s and e^t.
    # Exponents are relative to the own component's, beside which the others are too small or too few to overflow;
    # without it they would vanish at small t, so there they are relative to their maximum so far.
    near = upper_bound < NEAR
    if leave_one_out:  # nor may the ratios of the others be large, which alone carry weight then
        near &= c.ratio_a * 2.0 * jnp.mean(centred_norm) < EXPM1_LIMIT / 2
    ones = jnp.ones(block_size, jnp.float32)

    def add(sum_: _Sum, exponent: Array) -> tuple[_Sum, Array]:
        """The sum with a block's terms added, and those terms as scaled."""
        # Products with a vector of ones: XLA then computes the exponentials once.
        if not leave_one_out:
            terms = jnp.exp(exponent)
            return _Sum(sum_.peak, sum_.total + terms @ ones), terms
        peak = jnp.maximum(sum_.peak, jnp.max(exponent, axis=1))
        terms = jnp.exp(exponent - peak[:, None])
        return _Sum(peak, sum_.total * jnp.exp(sum_.peak - peak) + terms @ ones), terms

    def add_block(sums: tuple[_Sum, _Sum], block: tuple[Array, ...]) -> tuple[tuple[_Sum, _Sum], None]:
        (a, b), norm_j = distances(block), block[2]

        def at_timestep(_: None, inputs: tuple) -> tuple[None, tuple[_Sum, _Sum]]:
            k, near, own_term, first, second = inputs
            shift_i, shift_j = k.ratio_n * own_norm, k.ratio_n * norm_j

            # What the two forms share is written in each: handed into a branch, it would be stored and read again.
            def one_difference() -> tuple[_Sum, _Sum]:
                under_s, terms = add(first, k.s_a * a + k.s_b * b)
                ratio = k.ratio_a * a + k.ratio_b * b - shift_j + (shift_i + own_term)[:, None]
                total = second.total * jnp.exp(second.peak - under_s.peak) + (terms * _expm1_series(ratio)) @ ones
                return under_s, _Sum(under_s.peak, total)

            def two_sums() -> tuple[_Sum, _Sum]:
                under_t = k.t_a * a + k.t_b * b - shift_j + shift_i[:, None]
                return add(first, k.s_a * a + k.s_b * b)[0], add(second, under_t)[0]

            return None, jax.lax.cond(near, one_difference, two_sums)

        _, sums = jax.lax.scan(at_timestep, None, (c, near, own_term, *sums))
        return sums, None

    nothing = _Sum(jnp.full_like(own_term, -jnp.inf if leave_one_out else 0.0), jnp.zeros_like(own_term))
    (first, second), _ = jax.lax.scan(add_block, (nothing, nothing), blocks)

    # Log of the ratio t over s at each sample, for the others alone and for all; the own exponents are 0.
    log_first = first.peak + jnp.log(first.total)
    log_second = second.peak + jnp.log(jnp.where(near[:, None], 1.0, second.total))
    others_excess = jnp.where(near[:, None], second.total / jnp.maximum(first.total, 1e-30), 0.0)  # r - 1, near form
    own_excess = jnp.expm1(jnp.minimum(own_term, 1.0))
    near_excess = jax.nn.sigmoid(log_first) * others_excess + jax.nn.sigmoid(-log_first) * own_excess
    far_log_ratio = jax.nn.softplus(log_second) - jax.nn.softplus(log_first) + own_term
    log_ratio = jnp.where(near[:, None], jnp.log1p(near_excess), far_log_ratio)
    excess = jnp.where(near[:, None], near_excess, jnp.expm1(jnp.minimum(far_log_ratio, 80.0)))
    tamed = _excess_minus_log1p(excess, log_ratio)
    if leave_one_out:
        others = jnp.where(near[:, None], jnp.log1p(others_excess), log_second - log_first + own_term)
        log_ratio, tamed = others, tamed + (log_ratio - others)

    controls = jnp.stack([eps_norm - dim, own_eps + mean_eps, own_norm - mean_norm], axis=1)
    regress = functools.partial(_regress, controls=controls)
    balance = regress(excess)
    use_excess = (upper_bound < EXCESS_SEEN) & (jnp.abs(balance.value) <= 4.0 * balance.standard_error)
    further, plain = _regress_further(regress(tamed), balance), regress(-log_ratio)
    return RelativeEntropy(
        value=jnp.where(use_excess, further.value, plain.value),
        standard_error=jnp.where(use_excess, further.standard_error, plain.standard_error),
        upper_bound=upper_bound,
    )


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
    volume: Array
    norm: Array


def _coefficients(alphas: np.ndarray, sigmas: np.ndarray) -> tuple[_Coefficients, _Bound]:
    """In float64, where differences of neighbouring timesteps are still exact enough."""
    alphas, sigmas = np.asarray(alphas, np.float64), np.asarray(sigmas, np.float64)
    if alphas.ndim != 1 or alphas.shape != sigmas.shape or len(alphas) < 2:
        raise ValueError(f"alphas and sigmas have shapes {alphas.shape} and {sigmas.shape}: give two equally long rows")
    if not (np.all(np.isfinite(alphas)) and np.all(np.isfinite(sigmas)) and np.all(sigmas > 0)):
        raise ValueError(f"sigmas must be above 0 and finite, but the least is {sigmas.min()}: leave out clean data")
    alphas = np.maximum(alphas, 1e-9)  # at 0 an infinitely far component would look like any other
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
    """expm1 for |x| <= EXPM1_LIMIT to float32 rounding, by its series at x / 2; cheaper than the exact one."""
    x = jnp.clip(x, -EXPM1_LIMIT, EXPM1_LIMIT) / 2  # what lies outside carries no weight where this is used
    result = jnp.full_like(x, 1 / 40320)
    for factor in (1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0):
        result = result * x + factor
    result = result * x
    return result * (result + 2.0)  # expm1(2 x) = expm1(x) (expm1(x) + 2)


def _excess_minus_log1p(excess: Array, log_ratio: Array) -> Array:
    """(r - 1) - log r, by its series where the two terms nearly cancel."""
    x = jnp.clip(excess, -0.05, 0.05)
    series = x**2 * (1 / 2 - x * (1 / 3 - x * (1 / 4 - x * (1 / 5 - x / 6))))
    return jnp.where(jnp.abs(excess) < 0.05, series, excess - log_ratio)


class _Sum(NamedTuple):
    """total x exp(peak): a sum of exponentials that neither overflows nor vanishes."""

    peak: Array
    total: Array


class _Estimate(NamedTuple):
    value: Array
    standard_error: Array
    residual: Array
    leverage: Array
    degrees: int


def _estimate(value: Array, residual: Array, leverage: Array, degrees: int) -> _Estimate:
    variance = jnp.sum(jnp.square(residual), axis=1) / degrees
    return _Estimate(value, jnp.sqrt(variance * leverage), residual, leverage, degrees)


def _regress(y: Float[Array, "pair sample"], controls: Float[Array, "sample control"]) -> _Estimate:
    """Mean of y with what the zero-mean controls explain removed: the intercept of a least-squares fit."""
    scaled = controls / jnp.maximum(jnp.std(controls, axis=0), 1e-30)
    design = jnp.concatenate([jnp.ones_like(scaled[:, :1]), scaled], axis=1)
    inverse = jnp.linalg.pinv(design)
    fit = y @ inverse.T  # [pair, coefficient]
    leverage = jnp.sum(jnp.square(inverse[0]))
    return _estimate(fit[:, 0], y - fit @ design.T, leverage, y.shape[1] - design.shape[1])


def _regress_further(y: _Estimate, control: _Estimate) -> _Estimate:
    """The same with one more zero-mean control, another at each pair, regressed on the same controls before."""
    square = jnp.maximum(jnp.sum(jnp.square(control.residual), axis=1), 1e-30)
    slope = jnp.sum(y.residual * control.residual, axis=1) / square
    residual = y.residual - slope[:, None] * control.residual
    leverage = y.leverage + jnp.square(control.value) / square
    return _estimate(y.value - slope * control.value, residual, leverage, y.degrees - 1)
