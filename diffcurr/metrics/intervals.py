"""Intervals for what was measured with several seeds."""

from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float


class Interval(NamedTuple):
    """A mean with its 95 % interval."""

    mean: Float[np.ndarray, "*rest"]
    low: Float[np.ndarray, "*rest"]
    high: Float[np.ndarray, "*rest"]


def mean_interval(values: Float[np.ndarray, "seed *rest"], confidence: float = 0.95) -> Interval:
    """Mean over the first axis, with Student's interval.

    Raises:
      ValueError: with fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} value: an interval needs at least two")
    mean = np.mean(values, axis=0)
    reach = scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1) * scipy.stats.sem(values, axis=0)
    return Interval(mean, mean - reach, mean + reach)
