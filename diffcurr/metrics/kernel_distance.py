"""The kernel distance between two sets of features, with estimates of its variance; both unbiased at any set size."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

BLOCK_SIZE = 1024  # rows of the kernel matrix that are in memory at once
LARGEST = 1e20  # the 12th power of a feature, and its sums, are still float64


class KernelDistance(NamedTuple):
    """An estimate of the kernel distance, and two estimates of the variance of that estimate.

    Attributes:
      value: unbiased estimate of the distance; it can be negative if the true distance is close to 0.
      variance: unbiased estimate of the variance of `value`; it can be negative too.
      jackknife: jackknife estimate of that variance, from leaving out one pair of examples at a time. It is never
        negative and, in expectation, not below the true variance (Efron & Stein 1981), so use it for intervals.
    """

    value: float
    variance: float
    jackknife: float


def kernel_distance(a: Float[np.ndarray, "example feature"], b: Float[np.ndarray, "other width"]) -> KernelDistance:
    """Estimates the squared maximum mean discrepancy for the kernel k(x, y) = (x·y/d + 1)³ (Bińkowski et al. 2018).

    The estimate is the U-statistic of h(i, j) = k(a_i, a_j) + k(b_i, b_j) - k(a_i, b_j) - k(a_j, b_i), which is
    unbiased. The variance of a U-statistic of order two is 4 (n-2) / (n (n-1)) ζ₁ + 2 / (n (n-1)) ζ₂ (Serfling 1980,
    section 5.2.1), with ζ₁ = E[h₁₂ h₁₃] - E[h]² and ζ₂ = E[h₁₂²] - E[h]². These moments are estimated by U-statistics
    too, that is, over distinct examples only (Sutherland et al. 2017, appendix A), so the variance is unbiased as well.

    Args:
      a: features of n examples, n >= 4; d is the number of features.
      b: features of n other examples, independent of `a`.

    Raises:
      ValueError: if the shapes differ, there are fewer than 4 examples, or a feature is not finite or too large.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    n, width = a.shape
    if a.shape != b.shape or n < 4:
        raise ValueError(
            f"features of shapes {a.shape} and {b.shape}: give two equally large sets, of at least 4 examples"
        )

    largest = np.max([np.max(np.abs(x), initial=0.0) for x in (a, b)])
    if not width or not largest < LARGEST:
        raise ValueError(f"{width} features up to {largest:.3g}: give some, below {LARGEST:.3g}: look at the samples")

    def kernel(x: Float[np.ndarray, "i feature"], y: Float[np.ndarray, "j feature"]) -> Float[np.ndarray, "i j"]:
        return (x @ y.T / width + 1.0) ** 3

    sums, squares = np.empty(n), 0.0
    for start in range(0, n, BLOCK_SIZE):
        rows = slice(start, start + BLOCK_SIZE)
        h = kernel(a[rows], a) + kernel(b[rows], b) - kernel(a[rows], b) - kernel(b[rows], a)
        h[np.arange(len(h)), start + np.arange(len(h))] = 0.0  # no example is compared with itself
        sums[rows] = h.sum(axis=1)
        squares += np.sum(np.square(h))
    total, squared_sums = np.sum(sums), np.sum(np.square(sums))
    pairs, triples, quadruples = n * (n - 1), n * (n - 1) * (n - 2), n * (n - 1) * (n - 2) * (n - 3)
    mean_squared = (total**2 - 4 * squared_sums + 2 * squares) / quadruples
    zeta1 = (squared_sums - squares) / triples - mean_squared
    zeta2 = squares / pairs - mean_squared
    variance = 4 * (n - 2) / pairs * zeta1 + 2 / pairs * zeta2
    # Without the i-th pair of examples, the estimate is (total - 2 sums_i) / ((n - 1) (n - 2)).
    jackknife = 4 * np.sum(np.square(sums - total / n)) / (n * (n - 1) * (n - 2) ** 2)
    return KernelDistance(float(total / pairs), float(variance), float(jackknife))
