"""Confidence intervals of means over seeds."""

from typing import NamedTuple

import numpy as np
import scipy  # loads its modules when they are named
from jaxtyping import Float


class Interval(NamedTuple):
    """An estimate with its confidence interval, at 95 % unless stated otherwise.

    Attributes:
      mean: the estimate.
      low: the lower end of the interval.
      high: the upper end of the interval.
    """

    mean: Float[np.ndarray, "*rest"]
    low: Float[np.ndarray, "*rest"]
    high: Float[np.ndarray, "*rest"]

    def as_json(self) -> dict[str, float]:
        """`value`, `low` and `high` of a single estimate."""
        return {"value": float(self.mean), "low": float(self.low), "high": float(self.high)}


def mean_interval(values: Float[np.ndarray, "seed *rest"], confidence: float = 0.95) -> Interval:
    """Computes the mean over the first axis, with Student's confidence interval.

    Args:
      values: independent measurements, one for each seed.
      confidence: probability that the interval covers the mean.

    Raises:
      ValueError: if there are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} value: an interval needs at least two")
    mean = np.mean(values, axis=0)
    half_width = scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1) * scipy.stats.sem(values, axis=0)
    return Interval(mean, mean - half_width, mean + half_width)
