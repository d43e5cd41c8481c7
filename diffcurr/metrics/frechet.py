"""The Fréchet distance between two sets of features, from statistics that can be merged in any order."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import scipy  # loads its modules when they are named
from jaxtyping import Float, Int

from diffcurr.metrics.blocks import blocks
from diffcurr.metrics.intervals import Interval

# Rounding may turn an eigenvalue of 0 into a negative one. This much is tolerated, relative to the largest eigenvalue.
EIGENVALUE_TOLERANCE = 1e-6
LARGEST = 1e140  # products of two, summed over features, are still float64


class Statistics(NamedTuple):
    """The statistics of a set of features from which the distance is computed, in float64.

    Attributes:
      number: number of examples.
      mean: mean of the features over the examples.
      scatter: sum over the examples of the outer product of (features - mean) with itself.
    """

    number: int
    mean: Float[np.ndarray, " feature"]
    scatter: Float[np.ndarray, "feature feature"]

    @property
    def covariance(self) -> Float[np.ndarray, "feature feature"]:
        """The unbiased covariance (ddof = 1), as in the public implementations of the distance.

        Raises:
          ValueError: if there are fewer than two examples.
        """
        if self.number < 2:
            raise ValueError(f"{self.number} example: a covariance needs at least two; give more images")
        return self.scatter / (self.number - 1)


def statistics(
    features: Float[np.ndarray, "example feature"], rows: Int[np.ndarray, " row"] | None = None
) -> Statistics:
    """Computes the statistics of a set of features, in float64, a block of examples at a time.

    Args:
      rows: numbers of the examples that count, in any order; all if None.

    Raises:
      ValueError: if there are no examples, or a feature is not finite.
    """
    number = len(features) if rows is None else len(rows)
    if not number:
        raise ValueError("no features: statistics need at least one example")
    return functools.reduce(
        merge, (_of_block(features[block if rows is None else rows[block]]) for block in blocks(number))
    )


def _of_block(features: Float[np.ndarray, "example feature"]) -> Statistics:
    exact = np.asarray(features, np.float64)
    if not np.isfinite(exact).all():
        raise ValueError("some features are not finite, so they have no statistics: look at the samples")
    mean = exact.mean(axis=0)
    centred = exact - mean
    return Statistics(len(exact), mean, centred.T @ centred)


def merge(a: Statistics, b: Statistics) -> Statistics:
    """Computes the statistics of the union of two disjoint sets (Chan, Golub & LeVeque 1983, eq. 2.1)."""
    number = a.number + b.number
    difference = b.mean - a.mean
    scatter = a.scatter + b.scatter + np.outer(difference, difference) * (a.number * b.number / number)
    return Statistics(number, a.mean + difference * (b.number / number), scatter)


def frechet_distance(
    mean_a: Float[np.ndarray, " feature"],
    cov_a: Float[np.ndarray, "feature feature"],
    mean_b: Float[np.ndarray, " feature"],
    cov_b: Float[np.ndarray, "feature feature"],
) -> float:
    """Computes the squared 2-Wasserstein distance between two normal distributions.

    It is |mean_a - mean_b|² + tr(A + B - 2 (A B)^(1/2)) for covariances A and B (Dowson & Landau 1982), known as the
    Fréchet distance when the means and covariances are those of features (Heusel et al. 2017). The trace of the matrix
    root is the sum of the square roots of the eigenvalues of A^(1/2) B A^(1/2). That matrix is symmetric, so the result
    is accurate also for covariances that do not have full rank, as with fewer examples than features.

    Raises:
      ValueError: if a covariance has a negative eigenvalue, or a value is not finite or so large that the distance is
        not.
    """
    mean_a, cov_a, mean_b, cov_b = (np.asarray(x, np.float64) for x in (mean_a, cov_a, mean_b, cov_b))
    largest = np.max([np.max(np.abs(x), initial=0.0) for x in (mean_a, cov_a, mean_b, cov_b)])
    if not largest < LARGEST:
        raise ValueError(f"means or covariances up to {largest:.3g}: must be below {LARGEST:.3g}: look at the samples")
    values, vectors = scipy.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(_not_negative(values, values[-1]))) @ vectors.T
    # Where A and B share no direction all eigenvalues of the product are rounding errors, in proportion to |A| |B|.
    products = scipy.linalg.eigvalsh(root_a @ cov_b @ root_a)
    roots = np.sqrt(_not_negative(products, values[-1] * np.linalg.norm(cov_b)))
    distance = np.sum(np.square(mean_a - mean_b)) + np.trace(cov_a) + np.trace(cov_b) - 2.0 * np.sum(roots)
    return float(distance)


def distance(a: Statistics, b: Statistics) -> float:
    """Computes the Fréchet distance between two sets of features from their statistics.

    Raises:
      ValueError: if a set has fewer than two examples.
    """
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def distance_interval(
    features: Float[np.ndarray, "example feature"], reference: Statistics, *, resamples: int = 200, seed: int = 0
) -> Interval:
    """Computes the Fréchet distance of a set of features from a reference, with a 95 % bootstrap interval.

    The interval covers the expected distance of a set with this number of examples. That expectation falls with the
    number of examples, and is above 0 even for examples drawn from the reference, so compare equal numbers only. The
    interval is the distance ± 1.96 standard deviations of the distances of resampled sets. Percentiles of those
    distances would not do: a resampled set is further from the reference than the set itself, and with 32 features and
    1,000 examples they covered the expectation in 0 of 100 cases. If the set has nearly the distribution of the
    reference, the interval is too wide, by a factor of up to √3, which errs on the side of caution.

    Args:
      features: the set.
      reference: statistics of the reference, taken as exact.
      resamples: number of resampled sets; each has as many examples as the set, drawn from it with replacement.
      seed: seed of the resampling.

    Raises:
      ValueError: if there are fewer than two examples or resamples, or a feature is not finite.
    """
    if resamples < 2:
        raise ValueError(f"resamples = {resamples}: an interval needs at least two")
    whole = statistics(features)

    def resampled(rng: np.random.Generator) -> float:
        weights = np.bincount(rng.integers(0, whole.number, whole.number), minlength=whole.number)
        shift, scatter = np.zeros_like(whole.mean), np.zeros_like(whole.scatter)
        for block in blocks(whole.number):
            centred = np.asarray(features[block], np.float64) - whole.mean
            shift += weights[block] @ centred / whole.number
            scatter += (centred * weights[block, None]).T @ centred
        scatter -= whole.number * np.outer(shift, shift)
        return distance(Statistics(whole.number, whole.mean + shift, scatter), reference)

    distances = repeated(resampled, resamples, seed)
    value, half_width = distance(whole, reference), scipy.stats.norm.ppf(0.975) * np.std(distances, ddof=1)
    return Interval(*np.asarray([value, value - half_width, value + half_width]))


def repeated(measure: Callable[[np.random.Generator], float], times: int, seed: int = 0) -> list[float]:
    """Repeats a random measurement, in parallel on all CPU cores.

    BLAS is limited to one thread for each measurement. With matrices as small as a classifier's, its threads mostly
    wait for each other (on two busy cores a distance took 270 ms instead of 12 ms), and their number changes the last
    bits of the result.

    Args:
      measure: computes one measurement with the random generator that it is given.
      times: number of measurements; each gets a separate generator.
      seed: seed of the generators.
    """
    generators = np.random.default_rng(seed).spawn(times)
    import joblib  # here, not above, since most runs evaluate nothing
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(joblib.cpu_count()) as pool:
        return list(pool.map(measure, generators))


def _not_negative(eigenvalues: Float[np.ndarray, " value"], scale: float) -> Float[np.ndarray, " value"]:
    """Sets eigenvalues that rounding made negative to 0; raises ValueError if rounding cannot be the reason."""
    if eigenvalues[0] < -EIGENVALUE_TOLERANCE * max(abs(scale), abs(eigenvalues[-1]), np.finfo(np.float64).tiny):
        raise ValueError(
            f"eigenvalues from {eigenvalues[0]:.3g} to {eigenvalues[-1]:.3g}: a covariance has no negative eigenvalues"
        )
    return np.maximum(eigenvalues, 0.0)
