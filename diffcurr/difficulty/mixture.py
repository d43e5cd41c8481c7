"""The densities of a mixture of Gaussians at its samples, as sums over its components that are added block by block.

`relative_entropy` defines the symbols. Every sum is a maximum and a total, so sums over different components, of one
device or of several, can be merged. Nothing here holds all components at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from diffcurr.difficulty.coefficients import Bound, Coefficients

# Where the upper bound on the divergence is at least NEAR, the sums for log p_s and log p_t are computed separately
# ("far form"). Below it rounding would swamp their difference, so one sum computes the difference ("near form").
NEAR = 0.02
EXPM1_LIMIT = 3.0


class Moments(NamedTuple):
    """Means over all data points x_j.

    Attributes:
      mean: weighted mean of x_j.
      norm: weighted mean of |x_j|^2.
      centred_norm: weighted mean of |x_j - mean|^2.
    """

    mean: Float[Array | np.ndarray, " dimension"]
    norm: Float[Array | np.ndarray, ""]
    centred_norm: Float[Array | np.ndarray, ""]


class Samples(NamedTuple):
    """The samples x = alpha_s x_i + sigma_s eps, with what is needed of each at every timestep.

    Attributes:
      component: number i of the own component.
      eps: the noise.
      own: x_i - mean.
      own_norm: |x_i|^2.
      own_centred_norm: |x_i - mean|^2.
      own_eps: (x_i - mean) . eps.
      eps_norm: |eps|^2.
      mean_eps: eps . mean.
    """

    component: Int[Array, " sample"]
    eps: Float[Array, "sample dimension"]
    own: Float[Array, "sample dimension"]
    own_norm: Float[Array, " sample"]
    own_centred_norm: Float[Array, " sample"]
    own_eps: Float[Array, " sample"]
    eps_norm: Float[Array, " sample"]
    mean_eps: Float[Array, " sample"]


class Terms(NamedTuple):
    """What every block needs to know of a pair of timesteps.

    Attributes:
      own: log density of the own component at t, minus that at s.
      near: whether the sums are those of the near form.
      upper_bound: the upper bound on the divergence.
    """

    own: Float[Array | np.ndarray, "pair sample"]
    near: Bool[Array | np.ndarray, " pair"]
    upper_bound: Float[Array | np.ndarray, " pair"]


class Block(NamedTuple):
    """Some of the components.

    Attributes:
      points: x_j - mean.
      centred_norm: |x_j - mean|^2.
      norm: |x_j|^2.
      number: 1 + j; 0 for padding, which counts as no component.
    """

    points: Float[Array, "component dimension"]
    centred_norm: Float[Array, " component"]
    norm: Float[Array, " component"]
    number: Int[Array, " component"]


class Sum(NamedTuple):
    """A sum of exponentials that neither overflows nor underflows: total x exp(peak)."""

    peak: Float[Array, "*device pair sample"]
    total: Float[Array, "*device pair sample"]


class Sums(NamedTuple):
    """Sums over the components other than the own one, with exponents e_s and e_t relative to the own one's.

    Attributes:
      first: sum of exp(e_s).
      second: sum of exp(e_t) in the far form; of exp(e_s) expm1(e_t - e_s), with the peak of `first`, in the near one.
    """

    first: Sum
    second: Sum


def draw(
    key: PRNGKeyArray, num_samples: int, num_data: int, dim: int
) -> tuple[Int[Array, " sample"], Float[Array, "sample dimension"]]:
    """(the numbers of the samples' own components, drawn without replacement, their noise)."""
    key_index, key_noise = jax.random.split(key)
    index = jax.random.permutation(key_index, num_data)[:num_samples]
    return index, jax.random.normal(key_noise, (num_samples, dim), jnp.float32)


def samples_of(
    component: Int[Array, " sample"],
    eps: Float[Array, "sample dimension"],
    own: Float[Array, "sample dimension"],
    own_norm: Float[Array, " sample"],
    own_centred_norm: Float[Array, " sample"],
    mean: Float[Array | np.ndarray, " dimension"],
) -> Samples:
    """The samples, from their own components; see the attributes of `Samples`."""
    return Samples(
        component=component,
        eps=eps,
        own=own,
        own_norm=own_norm,
        own_centred_norm=own_centred_norm,
        own_eps=jnp.sum(own * eps, axis=1),
        eps_norm=jnp.sum(jnp.square(eps), axis=1),
        mean_eps=eps @ mean,
    )


def terms_of(c: Coefficients, bound: Bound, samples: Samples, moments: Moments, leave_one_out: bool) -> Terms:
    """What every block needs to know of each pair of timesteps."""
    dim = samples.eps.shape[1]
    own = (
        dim * c.log_volume[:, None]
        + c.eps_norm[:, None] * (samples.eps_norm - dim)
        + c.own_norm[:, None] * samples.own_norm
        + c.own_eps[:, None] * (samples.own_eps + samples.mean_eps)
    )
    upper_bound = dim * bound.volume + bound.norm * moments.norm
    near = upper_bound < NEAR
    if leave_one_out:  # the other components carry all the weight, so their ratios must be small too
        near &= c.ratio_a * 2.0 * moments.centred_norm < EXPM1_LIMIT / 2
    return Terms(own, near, upper_bound)


def no_sums(terms: Terms, leave_one_out: bool) -> Sums:
    """The sums over no components."""
    # Exponents are relative to that of the own component; the others are then too small or too few to overflow. With
    # leave_one_out all of them could underflow at small t, so they are relative to their maximum so far.
    least = float(jnp.finfo(jnp.float32).min) if leave_one_out else 0.0
    nothing = Sum(jnp.full_like(terms.own, least), jnp.zeros_like(terms.own))
    return Sums(nothing, nothing)


def add_block(
    sums: Sums, block: Block, c: Coefficients, samples: Samples, terms: Terms, leave_one_out: bool
) -> tuple[Sums, None]:
    """Adds a block of components to the sums; a step of `jax.lax.scan`."""
    # A and B; own and padding components are put infinitely far away.
    a = jnp.maximum(samples.own_centred_norm[:, None] + block.centred_norm - 2.0 * samples.own @ block.points.T, 0.0)
    absent = (block.number == 1 + samples.component[:, None]) | (block.number == 0)
    b = jnp.where(absent, 0.0, samples.own_eps[:, None] - samples.eps @ block.points.T)
    a = jnp.where(absent, 1e30, a)
    ones = jnp.ones(len(block.number), jnp.float32)

    def add(sum_: Sum, exponent: Array) -> tuple[Sum, Array]:
        """Adds the terms of a block to a sum; returns the sum and the scaled terms."""
        # Written as a product with a vector of ones, so that XLA computes the exponentials only once.
        if not leave_one_out:
            scaled = jnp.exp(exponent)
            return Sum(sum_.peak, sum_.total + scaled @ ones), scaled
        peak = jnp.maximum(sum_.peak, jnp.max(exponent, axis=1))
        scaled = jnp.exp(exponent - peak[:, None])
        return Sum(peak, sum_.total * jnp.exp(sum_.peak - peak) + scaled @ ones), scaled

    def at_timestep(_: None, inputs: tuple) -> tuple[None, Sums]:
        k, near, own_term, first, second = inputs
        shift_i, shift_j = k.ratio_n * samples.own_norm, k.ratio_n * block.norm

        # What the two forms share is written in both: if it were passed into the branches, it would be stored.
        def one_difference() -> Sums:
            under_s, scaled = add(first, k.s_a * a + k.s_b * b)
            ratio = k.ratio_a * a + k.ratio_b * b - shift_j + (shift_i + own_term)[:, None]
            total = second.total * jnp.exp(second.peak - under_s.peak) + (scaled * _expm1_series(ratio)) @ ones
            return Sums(under_s, Sum(under_s.peak, total))

        def two_sums() -> Sums:
            under_t = k.t_a * a + k.t_b * b - shift_j + shift_i[:, None]
            return Sums(add(first, k.s_a * a + k.s_b * b)[0], add(second, under_t)[0])

        return None, jax.lax.cond(near, one_difference, two_sums)

    _, sums = jax.lax.scan(at_timestep, None, (c, terms.near, terms.own, *sums))
    return sums, None


def merged(sums: Sums) -> Sums:
    """The sums over the components of all devices, from those of each, which lie along a leading axis."""

    def merge(sum_: Sum) -> Sum:
        peak = jnp.max(sum_.peak, axis=0)
        return Sum(peak, jnp.sum(sum_.total * jnp.exp(sum_.peak - peak), axis=0))

    # In the near form the peaks of the two sums are the same on each device, and so are their maxima.
    return Sums(merge(sums.first), merge(sums.second))


def _expm1_series(x: Array) -> Array:
    """Computes expm1(x) for |x| <= EXPM1_LIMIT to float32 rounding, from its series at x / 2, faster than jnp.expm1."""
    x = jnp.clip(x, -EXPM1_LIMIT, EXPM1_LIMIT) / 2  # terms outside the limit have no weight where this is used
    result = jnp.full_like(x, 1 / 40320)
    for factor in (1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0):
        result = result * x + factor
    result = result * x
    return result * (result + 2.0)  # expm1(2 x) = expm1(x) (expm1(x) + 2)
