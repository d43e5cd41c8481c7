"""If these fail, the Fréchet distance or its interval is wrong."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcurr.metrics import blocks, frechet


def covariance(rng: np.random.Generator, width: int, rank: int) -> np.ndarray:
    factor = rng.normal(size=(width, rank))
    return factor @ factor.T / rank


@pytest.mark.parametrize(("rank_a", "rank_b"), [(30, 30), (10, 30), (30, 10), (7, 12), (1, 1)])
def test_against_scipys_matrix_root(rank_a: int, rank_b: int) -> None:
    """The distance equals the one from SciPy's root of the product A B, also if no covariance has full rank."""
    rng = np.random.default_rng(rank_a * 100 + rank_b)
    means, covs = rng.normal(size=(2, 30)), [covariance(rng, 30, rank) for rank in (rank_a, rank_b)]
    root = scipy.linalg.sqrtm(covs[0] @ covs[1])
    want = np.sum((means[0] - means[1]) ** 2) + np.trace(covs[0] + covs[1] - 2 * np.real(root))
    found = frechet.frechet_distance(means[0], covs[0], means[1], covs[1])
    # If the product is singular, rounding errors of the product enter SciPy's root as their square roots.
    assert found == pytest.approx(want, rel=1e-9 if min(rank_a, rank_b) == 30 else 1e-4)
    assert found == pytest.approx(frechet.frechet_distance(means[1], covs[1], means[0], covs[0]), rel=1e-8)


def test_closed_forms() -> None:
    """The distance of commuting covariances, of a set from itself, and of a set from a shifted copy of it."""
    a, b = np.diag([4.0, 1.0, 0.0]), np.diag([1.0, 9.0, 0.0])
    assert frechet.frechet_distance(np.zeros(3), a, np.ones(3), b) == pytest.approx(3 + (2 - 1) ** 2 + (1 - 3) ** 2)
    features = np.random.default_rng(0).normal(size=(20, 40))  # fewer examples than features
    whole = frechet.statistics(features)
    assert frechet.distance(whole, whole) == pytest.approx(0, abs=1e-5)
    assert frechet.distance(whole, frechet.statistics(features + 2.0)) == pytest.approx(4 * 40, rel=1e-8)


def test_sets_that_do_not_vary_or_share_no_direction() -> None:
    """All eigenvalues of the product are rounding errors there; the distance is |mean difference|² + tr A + tr B."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    a, b = (half @ half.T for half in np.split(basis, 2, axis=1))
    assert frechet.frechet_distance(np.zeros(64), a, np.ones(64), b) == pytest.approx(64 + 64, abs=1e-4)
    constant, varied = (frechet.statistics(x) for x in (np.full((50, 8), np.float32(0.1)), rng.normal(size=(50, 8))))
    expected = np.sum((varied.mean - 0.1) ** 2) + np.trace(varied.covariance)
    assert frechet.distance(constant, varied) == pytest.approx(expected, abs=1e-5)
    assert frechet.distance(varied, constant) == pytest.approx(expected, abs=1e-5)
    found = frechet.distance_interval(np.full((50, 8), np.float32(0.1)), constant, resamples=5)
    np.testing.assert_allclose(found, 0, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 30), min_size=1, max_size=6), st.sampled_from([0.0, 1e4]))
def test_statistics_of_parts_are_those_of_the_whole(seed: int, sizes: list[int], offset: float) -> None:
    rng = np.random.default_rng(seed)
    features = offset + rng.normal(size=(sum(sizes) + 1, 5)) * rng.uniform(0.1, 10, 5)
    parts = [frechet.statistics(part) for part in np.split(features, np.cumsum(sizes))]
    rng.shuffle(parts)  # type: ignore[arg-type]
    merged = parts[0]
    for part in parts[1:]:
        merged = frechet.merge(merged, part)
    assert merged.number == len(features)
    np.testing.assert_allclose(merged.mean, features.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(merged.covariance, np.cov(features.T), rtol=1e-10, atol=1e-10)


def test_blocks_of_examples_are_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few are in memory at once, and whichever rows are asked for: statistics, and the interval."""
    rng = np.random.default_rng(0)
    features, rows = 50 + rng.normal(size=(203, 6)), rng.integers(0, 203, 90)
    reference = frechet.statistics(rng.normal(size=(80, 6)))
    whole = frechet.distance_interval(features, reference, resamples=5)
    for block in (1, 60, 8192):
        monkeypatch.setattr(blocks, "BLOCK", block)
        found = frechet.statistics(features, rows)
        assert found.number == 90
        np.testing.assert_allclose(found.mean, features[rows].mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.covariance, np.cov(features[rows].T), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(frechet.distance_interval(features, reference, resamples=5), whole, rtol=1e-10)


@pytest.mark.parametrize(("width", "shift"), [(2, 0.0), (6, 0.3), (12, 0.4)])
def test_intervals_hold_the_expectation(width: int, shift: float) -> None:
    """Intervals hold the expectation in 90 to 99 of 100 simulated cases, for normal sets away from the reference."""
    rng, scale = np.random.default_rng(width), np.linspace(0.3, 2, width)
    exact = 10**9
    reference = frechet.Statistics(exact, np.zeros(width), np.diag(scale**2) * (exact - 1))

    def draw() -> np.ndarray:
        return shift + rng.normal(size=(150, width)) * scale * 1.2

    expectation = np.mean([frechet.distance(frechet.statistics(draw()), reference) for _ in range(1000)])
    found = [frechet.distance_interval(draw(), reference, resamples=60, seed=seed) for seed in range(300)]
    # The standard error of a coverage of 95 % in 300 cases is 1.3 %.
    assert 0.90 <= np.mean([low < expectation < high for _, low, high in found]) <= 0.99


def test_rejects() -> None:
    one = frechet.statistics(np.ones((1, 2)))
    with pytest.raises(ValueError, match="1 example: a covariance needs at least two"):
        frechet.distance(one, one)
    with pytest.raises(ValueError, match="no features"):
        frechet.statistics(np.ones((0, 2)))
    with pytest.raises(ValueError, match="not finite"):
        frechet.statistics(np.asarray([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="eigenvalues from -1 to 1"):
        frechet.frechet_distance(np.zeros(2), np.diag([-1.0, 1.0]), np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match=r"up to nan: must be below 1e\+140"):
        frechet.frechet_distance(np.zeros(2), np.eye(2), np.full(2, np.nan), np.eye(2))
    large = frechet.statistics(np.asarray([[-1e80, 1.0], [1e80, 0.0]]))
    with pytest.raises(ValueError, match=r"up to 2e\+160: must be below 1e\+140: look at the samples"):
        frechet.distance(large, large)
    with pytest.raises(ValueError, match="resamples = 1: an interval needs at least two"):
        frechet.distance_interval(np.ones((3, 2)), one, resamples=1)
