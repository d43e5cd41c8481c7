"""If these fail, comparisons of arms with a baseline report wrong ratios, intervals or steps."""

from typing import Any

import numpy as np
import pytest

from diffcurr.metrics.comparison import compare_with_baseline, geometric_mean, paired_ratio, steps_to_reach


@pytest.mark.parametrize(("seeds", "correlation"), [(5, 0.8), (10, 0.0), (10, 0.9)])
def test_ratio_intervals_hold_the_ratio(seeds: int, correlation: float) -> None:
    """The interval holds the ratio in 95 of 100 simulated experiments, whatever the correlation of the pairs."""
    rng = np.random.default_rng(seeds)
    held, simulated = 0, 2000
    covariance = np.asarray([[1.0, correlation], [correlation, 1.0]]) * 1.5**2
    for _ in range(simulated):
        baseline, arm = rng.multivariate_normal([10.0, 6.0], covariance, seeds).T
        _, low, high = paired_ratio(arm, baseline)
        held += low < 0.6 < high
    assert held / simulated == pytest.approx(0.95, abs=0.02)  # four standard errors


def test_ratio() -> None:
    """A common scale does not matter, pairing narrows the interval, and a baseline around 0 makes it infinite."""
    rng = np.random.default_rng(0)
    baseline = 10 + rng.normal(size=10)
    arm = 0.6 * baseline + 0.1 * rng.normal(size=10)
    found = paired_ratio(arm, baseline)
    assert found.mean == pytest.approx(0.6, abs=0.02) and found.low < found.mean < found.high
    np.testing.assert_allclose(paired_ratio(7 * arm, 7 * baseline), found)
    shuffled = paired_ratio(rng.permutation(arm), baseline)
    assert shuffled.high - shuffled.low > 3 * (found.high - found.low)
    assert np.isinf(paired_ratio(arm, baseline - 10)[1:]).all()
    assert np.isinf(paired_ratio(-arm, -baseline)[1:]).all(), "below 0, less is not closer"
    with pytest.raises(ValueError, match="1 seeds of the arm and 1 of the baseline"):
        paired_ratio(arm[:1], baseline[:1])


def test_steps_to_reach() -> None:
    steps, curve = np.asarray([0.0, 100, 200, 300]), np.asarray([9.0, 5.0, 7.0, 1.0])
    assert steps_to_reach(steps, curve, 7.0) == 50  # the first time, not the last
    assert steps_to_reach(steps, curve, 4.0) == 250
    assert steps_to_reach(steps, curve, 20.0) == 0
    assert steps_to_reach(steps, curve, 0.5) == float("inf")
    with pytest.raises(ValueError, match="give increasing steps"):
        steps_to_reach(steps[::-1], curve, 1.0)


def test_compare_with_baseline() -> None:
    """An arm with half the distance at every step, and with half the speed."""

    def result(distance: list[float], speed: float) -> dict[str, Any]:
        final = {"frechet_distance": {"value": distance[-1], "copies": 1.0}, "kernel_distance": {"value": 0.0}}
        points = {"steps": [10, 20, 30], "distance": distance, "floor": 2.6}
        return {"evaluation": final, "steps_per_second": speed} | points

    curves = [[9.0, 6.0, 3.0], [30.0, 8.0, 5.0], [12.0, 7.0, 4.0]]
    baseline = [result(curve, 10) for curve in curves]
    found = compare_with_baseline([result([value / 2 for value in curve], 5) for curve in curves], baseline)
    np.testing.assert_allclose(found.distance_ratio, np.full((3, 3), 0.5))
    np.testing.assert_allclose(geometric_mean(found.distance_ratio), np.full((3, 3), 0.5))
    np.testing.assert_allclose(found.excess, [0.5, 1.5, 1.0])
    assert found.excess_ratio.mean == pytest.approx(1 / 3) and found.step_time_ratio.mean == pytest.approx(2)
    np.testing.assert_allclose(found.share_to_baseline, np.asarray([20, 10 + 10 * 10 / 11, 10 + 10 * 2 / 2.5]) / 30)
    np.testing.assert_allclose(found.steps_to_real, [20 + 10 * 0.4 / 1.5, 20 + 10 * 1.4 / 1.5, 20 + 10 * 0.9 / 1.5])


def test_geometric_mean() -> None:
    """The mean of the inverses is the inverse of the mean, and so are the ends of the interval."""
    ratios = np.random.default_rng(0).lognormal(size=20)
    found, inverse = geometric_mean(ratios), geometric_mean(1 / ratios)
    np.testing.assert_allclose(found, [1 / inverse.mean, 1 / inverse.high, 1 / inverse.low])
