"""The kernel distance between two sets of features: unbiased at any number of samples, and so is its variance."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

ROWS = 1024  # of the kernel matrix at a time


class KernelDistance(NamedTuple):
    """An estimate and two of its variance.

    Attributes:
      value: without bias, so it can be below 0 where the truth is close to it.
      variance: without bias, so it can be below 0 too.
      jackknife: the variance by leaving out one pair of examples after another: never below 0 and, in expectation, not
        below the truth (Efron & Stein 1981), so intervals are made of it.
    """

    value: float
    variance: float
    jackknife: float


def kernel_distance(a: Float[np.ndarray, "example feature"], b: Float[np.ndarray, "other width"]) -> KernelDistance:
    """The squared maximum mean discrepancy with the kernel (x·y/d + 1)³ (Bińkowski et al. 2018).

    The U-statistic of h(i, j) = k(a_i, a_j) + k(b_i, b_j) - k(a_i, b_j) - k(a_j, b_i), without bias, so it can be below
    0. Its variance is that of a U-statistic of order two (Serfling 1980, section 5.2.1), 4 (n-2) / (n (n-1)) ζ₁ +
    2 / (n (n-1)) ζ₂, where the moments in ζ₁ = E[h₁₂ h₁₃] - E[h]² and ζ₂ = E[h₁₂²] - E[h]² are themselves U-statistics,
    over distinct examples only (Sutherland et al. 2017, appendix A), so it has no bias either.

    Args:
      a, b: as many of each, 4 or more, independent of each other.

    Raises:
      ValueError: if their shapes differ or they are too few.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    n, width = a.shape
    if a.shape != b.shape or n < 4:
        raise ValueError(f"features of shapes {a.shape} and {b.shape}: give as many of both, at least 4")

    def kernel(x: Float[np.ndarray, "i feature"], y: Float[np.ndarray, "j feature"]) -> Float[np.ndarray, "i j"]:
        return (x @ y.T / width + 1.0) ** 3

    sums, squares = np.empty(n), 0.0
    for start in range(0, n, ROWS):
        rows = slice(start, start + ROWS)
        h = kernel(a[rows], a) + kernel(b[rows], b) - kernel(a[rows], b) - kernel(b[rows], a)
        h[np.arange(len(h)), start + np.arange(len(h))] = 0.0  # an example is never compared with itself
        sums[rows] = h.sum(axis=1)
        squares += np.sum(np.square(h))
    total, of_rows = np.sum(sums), np.sum(np.square(sums))
    pairs, triples, quadruples = n * (n - 1), n * (n - 1) * (n - 2), n * (n - 1) * (n - 2) * (n - 3)
    mean_squared = (total**2 - 4 * of_rows + 2 * squares) / quadruples
    zeta1 = (of_rows - squares) / triples - mean_squared
    zeta2 = squares / pairs - mean_squared
    variance = 4 * (n - 2) / pairs * zeta1 + 2 / pairs * zeta2
    # Without pair i of examples the estimate is (total - 2 sums_i) / ((n - 1) (n - 2)).
    jackknife = 4 * np.sum(np.square(sums - total / n)) / (n * (n - 1) * (n - 2) ** 2)
    return KernelDistance(float(total / pairs), float(variance), float(jackknife))
