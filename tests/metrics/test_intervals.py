"""If these fail, confidence intervals over seeds are wrong."""

import numpy as np
import pytest

from diffcurr.metrics.intervals import mean_interval


def test_coverage() -> None:
    """95 % of the intervals from five normal draws hold the mean, up to the sampling error of 4,000 intervals."""
    draws = np.random.default_rng(0).normal(2.0, 3.0, (5, 4000))
    found = mean_interval(draws)
    np.testing.assert_allclose(found.mean, draws.mean(axis=0))
    held = np.mean((found.low < 2.0) & (found.high > 2.0))
    assert abs(held - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)


def test_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="1 value: an interval needs at least two"):
        mean_interval(np.ones((1, 3)))
