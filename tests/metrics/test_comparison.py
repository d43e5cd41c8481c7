import numpy as np
import pytest

from diffcurr.metrics.comparison import paired_ratio, steps_to_reach


@pytest.mark.parametrize(("seeds", "correlation"), [(5, 0.8), (10, 0.0), (10, 0.9)])
def test_ratio_intervals_hold_the_ratio(seeds: int, correlation: float) -> None:
    """In 95 of 100 simulated experiments, whatever the correlation between the arms."""
    rng = np.random.default_rng(seeds)
    held, simulated = 0, 2000
    covariance = np.asarray([[1.0, correlation], [correlation, 1.0]]) * 1.5**2
    for _ in range(simulated):
        baseline, arm = rng.multivariate_normal([10.0, 6.0], covariance, seeds).T
        _, low, high = paired_ratio(arm, baseline)
        held += low < 0.6 < high
    assert held / simulated == pytest.approx(0.95, abs=0.02)  # four standard errors


def test_ratio() -> None:
    """Scale does not matter; pairing narrows; a baseline around 0 says nothing."""
    rng = np.random.default_rng(0)
    baseline = 10 + rng.normal(size=10)
    arm = 0.6 * baseline + 0.1 * rng.normal(size=10)
    found = paired_ratio(arm, baseline)
    assert found.mean == pytest.approx(0.6, abs=0.02) and found.low < found.mean < found.high
    np.testing.assert_allclose(paired_ratio(7 * arm, 7 * baseline), found)
    shuffled = paired_ratio(rng.permutation(arm), baseline)
    assert shuffled.high - shuffled.low > 3 * (found.high - found.low)
    assert np.isinf(paired_ratio(arm, baseline - 10)[1:]).all()
    with pytest.raises(ValueError, match="1 and 1 seeds"):
        paired_ratio(arm[:1], baseline[:1])


def test_steps_to_reach() -> None:
    steps, curve = np.asarray([0.0, 100, 200, 300]), np.asarray([9.0, 5.0, 7.0, 1.0])
    assert steps_to_reach(steps, curve, 7.0) == 50  # the first time, not the last
    assert steps_to_reach(steps, curve, 4.0) == 250
    assert steps_to_reach(steps, curve, 20.0) == 0
    assert steps_to_reach(steps, curve, 0.5) == float("inf")
    with pytest.raises(ValueError, match="give increasing steps"):
        steps_to_reach(steps[::-1], curve, 1.0)
