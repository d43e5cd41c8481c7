"""Clusters would not be those that the paper, the best partition or the curve gives."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from diffcurr.curriculum import CLUSTERINGS, clusters
from diffcurr.processes import DDPM


def cost(log_snr: np.ndarray, boundaries: list[int]) -> float:
    """The objective as written: sum over clusters and their timesteps of |s_t - s_c|, c the middle timestep."""
    total = 0.0
    for first, after in itertools.pairwise(boundaries):
        total += np.abs(log_snr[first:after] - log_snr[(first + after - 1) // 2]).sum()
    return total


def test_uniform() -> None:
    np.testing.assert_allclose(clusters.uniform(4), [0, 0.25, 0.5, 0.75, 1])
    with pytest.raises(ValueError, match="clusters = 0"):
        clusters.uniform(0)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_log_snr_clusters_are_the_best_of_all_partitions(n: int) -> None:
    log_snr = -np.sort(np.random.default_rng(n).normal(size=9))
    found = cost(log_snr, np.round(clusters.by_log_snr(log_snr, n) * 9).astype(int).tolist())
    every = [cost(log_snr, [0, *inner, 9]) for inner in itertools.combinations(range(1, 9), n - 1)]
    np.testing.assert_allclose(found, min(every), atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_log_snr_clusters_where_neighbours_are_equal(n: int) -> None:
    """SpeeD draws some timesteps so often that several equally likely levels are one timestep; still the best."""
    log_snr = np.repeat([3.0, 2.0, 0.5, -1.0], [1, 3, 4, 1])
    edges = clusters.by_log_snr(log_snr, n)
    assert np.all(np.diff(edges) > 0) and len(edges) == n + 1
    every = [cost(log_snr, [0, *inner, 9]) for inner in itertools.combinations(range(1, 9), n - 1)]
    np.testing.assert_allclose(cost(log_snr, np.round(edges * 9).astype(int).tolist()), min(every), atol=1e-12)


# Boundaries published for the linear schedule at T = 1000. The objective is flat there: the exact minimum lies up to
# four timesteps away and a little lower.
PUBLISHED = {
    5: [153, 393, 623, 822],
    10: [45, 128, 241, 367, 490, 607, 714, 815, 910],
    20: [14, 39, 74, 119, 171, 230, 291, 355, 418, 480, 541, 600, 656, 709, 761, 812, 861, 908, 954],
}


@pytest.mark.parametrize("n", PUBLISHED)
def test_log_snr_clusters_of_the_linear_schedule(n: int) -> None:
    process = DDPM()
    log_snr = process.log_snr(process.level_midpoints)
    boundaries = np.round(clusters.by_log_snr(log_snr, n) * 1000).astype(int).tolist()
    published = [0, *PUBLISHED[n], 1000]
    assert cost(log_snr, boundaries) <= cost(log_snr, published)
    np.testing.assert_allclose(cost(log_snr, boundaries), cost(log_snr, published), rtol=5e-4)
    np.testing.assert_allclose(boundaries, published, atol=4)


def test_log_snr_rejects() -> None:
    with pytest.raises(ValueError, match="between 1 and the 3 timesteps"):
        clusters.by_log_snr(np.array([2.0, 1.0, 0.0]), 4)
    for log_snr in ([2.0, 3.0, 0.0], [2.0, 2.0, 2.0], [2.0, np.nan, 0.0], [np.inf, 2.0, 0.0]):
        with pytest.raises(ValueError, match="must be finite and fall"):
            clusters.by_log_snr(np.array(log_snr), 2)


@pytest.mark.parametrize(
    "edges", [(0, 0.5, 0.5, 1), (0, 0.7, 0.2, 1), (0.1, 1), (0, 0.9), (0,), (0, 0.5, 0.5 + 1e-9, 1)]
)
def test_from_edges_rejects(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="edges"):
        clusters.from_edges(edges)


def test_from_edges() -> None:
    np.testing.assert_array_equal(clusters.from_edges((0, 0.2, 1)), [0, 0.2, 1])


def test_relative_entropy_clusters_hold_equal_shares() -> None:
    curve = np.random.default_rng(0).random(199) + 0.5  # nowhere so uneven that the floor would act
    edges = clusters.by_relative_entropy(jnp.asarray(curve), 8)  # as the analyzer gives it
    below = np.interp(edges, np.arange(201) / 200, np.concatenate([[0, 0], np.cumsum(curve)]))
    np.testing.assert_allclose(np.diff(below), curve.sum() / 8, rtol=1e-5)


def test_relative_entropy_clusters_have_a_floor() -> None:
    curve = 1.0 / np.arange(1, 1000) ** 3  # almost all of it in the first timesteps
    edges = clusters.by_relative_entropy(curve, 20)
    assert edges[0] == 0.0 and edges[-1] == 1.0
    assert np.diff(edges).min() >= 1 / 80 - 1e-12
    np.testing.assert_allclose(clusters.by_relative_entropy(curve[::-1], 20, 1 / 20), clusters.uniform(20))
    np.testing.assert_allclose(clusters.by_relative_entropy(curve, 1), [0, 1])


@pytest.mark.parametrize(
    ("curve", "arguments", "message"),
    [
        (np.ones(9), {"n": 11}, "between 1 and the 10 timesteps"),
        (np.ones(9), {"n": 2, "min_width": 0.6}, "min_width = 0.6"),
        (np.zeros(9), {"n": 2}, "somewhere above 0"),
        (np.array([1.0, -1.0]), {"n": 2}, "nowhere negative"),
        (np.array([1.0, np.nan]), {"n": 2}, "finite"),
    ],
)
def test_relative_entropy_clusters_reject(curve: np.ndarray, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clusters.by_relative_entropy(curve, **arguments)


def test_clusterings_are_the_functions_of_their_names() -> None:
    """As a config names them; of a measured curve what lies below 0 counts as 0."""
    log_snr, curve = np.linspace(9.0, -10.0, 50) ** 3, np.random.default_rng(0).random(49) + 0.1
    curve[40] = -1e-3
    at_least_0 = np.maximum(curve, 0.0)
    assert list(CLUSTERINGS) == ["uniform", "log_snr", "relative_entropy", "edges"]
    for clustering, expected in (
        (clusters.Uniform(), clusters.uniform(5)),
        (clusters.LogSNR(), clusters.by_log_snr(log_snr, 5)),
        (clusters.RelativeEntropy(), clusters.by_relative_entropy(at_least_0, 5)),
        (clusters.RelativeEntropy(power=0.5), clusters.by_relative_entropy(at_least_0, 5, power=0.5)),
        (clusters.Edges(at=(0, 0.1, 0.2, 0.3, 0.4, 1)), np.array([0, 0.1, 0.2, 0.3, 0.4, 1])),
    ):
        assert clustering.needs_curve == isinstance(clustering, clusters.RelativeEntropy)
        np.testing.assert_array_equal(clustering.edges(5, log_snr, curve if clustering.needs_curve else None), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: clusters.RelativeEntropy(power=0.0), "power = 0.0: must be a number above 0"),
        (lambda: clusters.RelativeEntropy().edges(2, np.array([1.0, 0.0])), "the curve, which has not been measured"),
        (lambda: clusters.Edges(at=(0, 0.5, 1)).edges(3, np.array([1.0, 0.0])), "clusters = 3 needs 4 edges"),
        (lambda: clusters.Edges().edges(1, np.array([1.0, 0.0])), "the first must be 0 and the last 1"),
    ],
)
def test_clusterings_reject(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
