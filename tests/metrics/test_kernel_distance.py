"""If these fail, the kernel distance or its variance is biased or wrong."""

import itertools

import numpy as np
import pytest

from diffcurr.metrics import kernel_distance as module
from diffcurr.metrics.kernel_distance import kernel_distance


def draw(rng: np.random.Generator, n: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(n, 3)), shift + rng.normal(size=(n, 3))


def test_against_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimates equal sums over all distinct pairs, triples and quadruples."""
    monkeypatch.setattr(module, "BLOCK_SIZE", 4)
    a, b = draw(np.random.default_rng(0), 7, 0.5)
    z = list(zip(a, b, strict=True))

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 3 + 1) ** 3)

    def h(i: int, j: int) -> float:
        return k(z[i][0], z[j][0]) + k(z[i][1], z[j][1]) - k(z[i][0], z[j][1]) - k(z[j][0], z[i][1])

    value = np.mean([h(i, j) for i, j in itertools.permutations(range(7), 2)])
    squared = np.mean([h(i, j) ** 2 for i, j in itertools.permutations(range(7), 2)])
    shared = np.mean([h(i, j) * h(i, k) for i, j, k in itertools.permutations(range(7), 3)])
    apart = np.mean([h(i, j) * h(k, m) for i, j, k, m in itertools.permutations(range(7), 4)])
    variance = 4 * 5 / 42 * (shared - apart) + 2 / 42 * (squared - apart)
    found = kernel_distance(a, b)
    assert found.value == pytest.approx(value)
    assert found.variance == pytest.approx(variance)
    without = [kernel_distance(np.delete(a, i, axis=0), np.delete(b, i, axis=0)).value for i in range(7)]
    assert found.jackknife == pytest.approx(6 / 7 * np.sum(np.square(without - np.mean(without))))


def expected_kernel(p: np.ndarray, q: np.ndarray) -> float:
    """E (x·y / 3 + 1)³ for independent x ~ N(p, I), y ~ N(q, I) in three dimensions, from the moments of x·y."""
    inner, pp, qq = p @ q, p @ p, q @ q
    second = inner**2 + pp + qq + 3
    third = inner**3 + 3 * inner * (pp + qq + 5)
    return third / 27 + second / 3 + inner + 1


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_neither_value_nor_variance_has_a_bias(shift: float) -> None:
    """Over 4,000 pairs of sets, the mean value is the true distance, and the mean variance that of the values."""
    rng, moved, still = np.random.default_rng(1), np.full(3, shift), np.zeros(3)
    found = [kernel_distance(*draw(rng, 12, shift)) for _ in range(4000)]
    values, variances, jackknives = (np.asarray(column) for column in zip(*found, strict=True))
    truth = expected_kernel(still, still) + expected_kernel(moved, moved) - 2 * expected_kernel(still, moved)
    assert abs(values.mean() - truth) < 3.5 * values.std() / np.sqrt(len(values))
    scatter = np.square(values - truth)
    error = np.hypot(variances.std(), scatter.std()) / np.sqrt(len(values))
    assert abs(variances.mean() - scatter.mean()) < 3.5 * error
    assert error < 0.1 * scatter.mean()  # so that the line above is a strict test
    assert jackknives.min() >= 0
    assert jackknives.mean() > scatter.mean()


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_intervals_hold_the_distance(shift: float) -> None:
    """Intervals hold the distance in 95 of 100 simulated cases, and in more if it is 0 (the jackknife is too large)."""
    rng, moved, still, held, simulated = np.random.default_rng(2), np.full(3, shift), np.zeros(3), 0, 600
    truth = expected_kernel(still, still) + expected_kernel(moved, moved) - 2 * expected_kernel(still, moved)
    for _ in range(simulated):
        found = kernel_distance(*draw(rng, 100, shift))
        held += abs(found.value - truth) < 1.96 * np.sqrt(found.jackknife)
    assert 0.9 < held / simulated < (0.99 if shift else 1.0)


def test_rejects() -> None:
    for a, b in (((5, 2), (6, 2)), ((3, 2), (3, 2)), ((5, 2), (5, 3))):
        with pytest.raises(ValueError, match="give two equally large sets, of at least 4 examples"):
            kernel_distance(np.ones(a), np.ones(b))
    for value in (np.nan, np.inf, 1e30):
        with pytest.raises(ValueError, match=r"2 features up to .*, below 1e\+20: look at the samples"):
            kernel_distance(np.ones((5, 2)), np.full((5, 2), value))


def test_sets_that_do_not_vary() -> None:
    """Equal ones are at 0, others apart; nothing is NaN."""
    still = np.ones((5, 2))
    assert kernel_distance(still, still) == (0, 0, 0)
    assert kernel_distance(still, 2 * still) == pytest.approx((2**3 + 5**3 - 2 * 3**3, 0, 0))
