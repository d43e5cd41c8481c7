"""Clusters would not be those that the paper, the best partition or the curve gives."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from diffcurr.curriculum import CLUSTERINGS, clusters, gating
from diffcurr.difficulty.relative_entropy import relative_entropy
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


def test_relative_entropy_clusters_of_any_points_lie_on_their_least_width() -> None:
    """docs/difficulty.md: under DDPM, 19 of 20 below u = 0.24, for points on a line as for points everywhere."""
    process, rng = DDPM(), np.random.default_rng(0)
    alphas, sigmas = process.exact_alpha_sigma(process.level_midpoints)
    for points in (np.linspace(-1, 1, 60)[:, None] * np.ones(4), rng.uniform(-1, 1, (60, 16))):
        curve = relative_entropy(jnp.asarray(points, jnp.float32), alphas, sigmas, jax.random.key(0), 60)
        edges = clusters.by_relative_entropy(np.maximum(curve.value, 0), 20)
        np.testing.assert_allclose(edges[:-1], np.arange(20) / 80, atol=1e-12)


def test_information_clusters_hold_equal_shares() -> None:
    """Level t covers [t / T, (t + 1) / T): half of 1 + 1 + 2 + 4 lies in the first three of four levels."""
    np.testing.assert_allclose(clusters.by_information(np.array([1.0, 1, 2, 4]), 2), [0, 0.75, 1])
    np.testing.assert_allclose(clusters.by_information(np.array([1.0, 1, 2, 4]), 4), [0, 0.5, 0.75, 0.875, 1])
    curve = np.random.default_rng(0).random(200) + 0.5
    edges = clusters.by_information(jnp.asarray(curve), 8)
    below = np.interp(edges, np.arange(201) / 200, np.concatenate([[0], np.cumsum(curve)]))
    np.testing.assert_allclose(np.diff(below), curve.sum() / 8, rtol=1e-5)


def test_information_clusters_have_a_floor() -> None:
    curve = 1.0 / np.arange(1, 1001) ** 3
    np.testing.assert_allclose(np.diff(clusters.by_information(curve, 20))[:19], 1 / 80, atol=1e-12)
    assert np.diff(clusters.by_information(curve, 20, 1e-6)).min() < 1e-4
    with pytest.raises(ValueError, match="min_width = 0.6"):
        clusters.by_information(curve, 2, 0.6)
    with pytest.raises(ValueError, match="nowhere negative"):
        clusters.by_information(-curve, 2)


def gaussian_error(variances: np.ndarray, log_snr: np.ndarray) -> np.ndarray:
    """Error of the noise of the best estimate, per pixel, for Gaussian data: the mean of v SNR / (1 + v SNR)."""
    scaled = variances * np.exp(log_snr)[:, None]
    return np.mean(scaled / (1 + scaled), axis=1)


def gaussian_edges(variances: np.ndarray, log_snr: np.ndarray, n: int) -> np.ndarray:
    """Log-SNR at the edges: the integral of the error over log-SNR is the mean of log(1 + v SNR)."""

    def above(at: float) -> float:
        return float(np.mean(np.log1p(variances * np.exp(at))))

    low, high = log_snr[-1], log_snr[0]
    targets = above(low) + (above(high) - above(low)) * (1 - np.arange(1, n) / n)
    inner = [scipy.optimize.brentq(lambda at, target=target: above(at) - target, low, high) for target in targets]
    return np.array([high, *inner, low])


def test_information_clusters_of_gaussian_data_follow_its_covariance() -> None:
    """Two covariances of one trace: clusters in closed form, in the same place under another process, and different."""
    levels = {"even": np.linspace(12.0, -12.0, 4001), "uneven": 12.0 - 24.0 * np.linspace(0, 1, 4001) ** 2}
    found = {}
    for name, variances in {"round": np.ones(4), "flat": np.array([3.97, 0.01, 0.01, 0.01])}.items():
        for spacing, log_snr in levels.items():
            clustering = clusters.Information(gate=1e-9, min_width=1e-6)
            edges = clustering.edges(6, log_snr, gaussian_error(variances, log_snr))
            at = np.interp(edges, np.linspace(0, 1, 4001), log_snr)
            np.testing.assert_allclose(
                at, gaussian_edges(variances, log_snr, 6), atol=0.03, err_msg=f"{name} {spacing}"
            )
        found[name] = edges
    assert np.max(np.abs(found["round"] - found["flat"])) > 0.05


def test_the_gate_moves_information_clusters_to_more_noise() -> None:
    log_snr = np.linspace(12.0, -12.0, 1000)
    error = gaussian_error(np.ones(1), log_snr) * np.where(log_snr > 4.0, 1e-3, 1.0)  # nothing to learn above 4
    gated = clusters.Information(min_width=1e-6).edges(4, log_snr, error)
    by_hand = clusters.Information(gate=float(np.exp(-2.0)), min_width=1e-6).edges(4, log_snr, error)
    np.testing.assert_allclose(gated, by_hand, atol=2e-3)
    ungated = clusters.Information(gate=1e-9, min_width=1e-6).edges(4, log_snr, error)
    assert np.all(ungated[1:-1] + 5e-3 < gated[1:-1])


def test_clusterings_are_the_functions_of_their_names() -> None:
    """As a config names them; of a measured curve what lies below 0 counts as 0."""
    log_snr, curve = np.linspace(4.0, -5.0, 50) ** 3, np.random.default_rng(0).random(49) + 0.1
    curve[40] = -1e-3
    at_least_0 = np.maximum(curve, 0.0)
    error = np.random.default_rng(1).random(50)
    assert list(CLUSTERINGS) == ["uniform", "log_snr", "relative_entropy", "information", "edges"]
    for clustering, expected in (
        (clusters.Uniform(), clusters.uniform(5)),
        (clusters.LogSNR(), clusters.by_log_snr(log_snr, 5)),
        (clusters.RelativeEntropy(), clusters.by_relative_entropy(at_least_0, 5)),
        (clusters.RelativeEntropy(power=0.5), clusters.by_relative_entropy(at_least_0, 5, power=0.5)),
        (clusters.Information(), clusters.by_information(gating.gated_information(error, log_snr), 5)),
        (
            clusters.Information(gate=0.5, sharpness=2.0, min_width=0.01),
            clusters.by_information(gating.gated_information(error, log_snr, at=0.5, sharpness=2.0), 5, 0.01),
        ),
        (clusters.Edges(at=(0, 0.1, 0.2, 0.3, 0.4, 1)), np.array([0, 0.1, 0.2, 0.3, 0.4, 1])),
    ):
        measured = {"relative_entropy": curve, "information": error, "": None}[clustering.needs_curve]
        np.testing.assert_array_equal(clustering.edges(5, log_snr, measured), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: clusters.RelativeEntropy(power=0.0), "power = 0.0: must be a number above 0"),
        (lambda: clusters.RelativeEntropy().edges(2, np.array([1.0, 0.0])), "the curve, which has not been measured"),
        (lambda: clusters.Information().edges(2, np.array([1.0, 0.0])), "the error of the noise, which has not been"),
        (lambda: clusters.Information(min_width=0.3).check(5), "min_width = 0.3: 5 clusters can be 0.2 wide at most"),
        (lambda: clusters.Edges(at=(0, 0.5, 1)).edges(3, np.array([1.0, 0.0])), "clusters = 3 needs 4 edges"),
        (lambda: clusters.Edges().edges(1, np.array([1.0, 0.0])), "the first must be 0 and the last 1"),
    ],
)
def test_clusterings_reject(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
