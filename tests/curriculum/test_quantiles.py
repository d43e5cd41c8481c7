"""Noise levels would be drawn from a cluster that is left out, or not with the weights that were asked for."""

from collections.abc import Callable

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import strategies as st

from diffcurr.curriculum import clusters, quantiles
from diffcurr.curriculum.quantiles import cluster_of

DRAWS = 4096
draw = jax.jit(quantiles.draw, static_argnames=("batch_size", "stratified"))


def masked(
    key: jax.Array, mask: jax.Array, edges: jax.Array, batch_size: int, *, stratified: bool = False
) -> jax.Array:
    """The draw from a boolean mask as it was before clusters had weights: with weights of 0 and 1, still the same."""
    v = jax.random.uniform(key, (batch_size,), jnp.float32)
    if stratified:
        v = (jnp.arange(batch_size, dtype=jnp.float32) + v) / batch_size
        v = jnp.minimum(v, jnp.float32(1.0 - 2.0**-24))
    edges = jnp.asarray(edges, jnp.float32)
    inactive_width = jnp.where(mask, 0.0, jnp.diff(edges))
    gap_above = jnp.cumsum(inactive_width)
    gap_below = gap_above - inactive_width
    upper = jnp.where(mask, edges[1:] - gap_above, -1.0)
    w = v * (1.0 - gap_above[-1])
    below_upper = w[:, None] < upper
    last_active = jnp.max(jnp.where(mask, jnp.arange(mask.shape[0]), 0))
    k = jnp.where(jnp.any(below_upper, axis=1), jnp.argmax(below_upper, axis=1), last_active)
    return jnp.clip(w + gap_below[k], edges[k], jnp.nextafter(edges[k + 1], jnp.float32(0.0)))


draw_masked = jax.jit(masked, static_argnames=("batch_size", "stratified"))


def of(weights: np.ndarray | list) -> jax.Array:
    """Weights as the step passes them; of a mask, 0 and 1."""
    return jnp.asarray(weights, jnp.float32)


def edges_of(widths: np.ndarray) -> np.ndarray:
    """Clusters of these widths, scaled to [0, 1]."""
    edges = np.concatenate([[0.0], np.cumsum(widths) / widths.sum()])
    edges[-1] = 1.0
    return edges


@st.composite
def some_edges(draw_value: st.DrawFn) -> np.ndarray:
    number = draw_value(st.sampled_from([1, 2, 5, 20]))
    return edges_of(np.array(draw_value(st.lists(st.floats(0.01, 1.0), min_size=number, max_size=number))))


@st.composite
def masks_and_edges(draw_value: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    edges = draw_value(some_edges())
    number = len(edges) - 1
    mask = np.array(draw_value(st.lists(st.booleans(), min_size=number, max_size=number)))
    mask[draw_value(st.integers(0, number - 1))] = True
    return mask, edges


@st.composite
def weights_and_edges(draw_value: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Weights of any size, 0 among them."""
    edges = draw_value(some_edges())
    number = len(edges) - 1
    weight = st.just(0.0) | st.floats(1e-3, 1e3)
    weights = np.array(draw_value(st.lists(weight, min_size=number, max_size=number)))
    weights[draw_value(st.integers(0, number - 1))] = draw_value(st.floats(1e-3, 1e3))
    return weights, edges


def to_weighted_share(u: np.ndarray, weights: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The share of the weighted width that lies below u: uniform on [0, 1) if the draw has these weights.

    Of 0/1 weights it is the share of the active union.
    """
    edges = edges.astype(np.float32).astype(np.float64)
    widths = np.diff(edges) * weights
    k = np.clip(np.searchsorted(edges, u, side="right") - 1, 0, len(weights) - 1)
    return (np.concatenate([[0], np.cumsum(widths)])[k] + (u - edges[k]) * weights[k]) / widths.sum()


@hypothesis.given(masks_and_edges(), st.integers(0, 2**31 - 1), st.booleans())
def test_never_leaves_the_active_clusters(case: tuple[np.ndarray, np.ndarray], seed: int, stratified: bool) -> None:
    mask, edges = case
    u = draw(jax.random.key(seed), of(mask), jnp.asarray(edges, jnp.float32), DRAWS, stratified=stratified)
    assert np.all((u >= 0) & (u < 1))
    assert np.all(mask[np.asarray(cluster_of(u, jnp.asarray(edges, jnp.float32)))])


@hypothesis.given(masks_and_edges(), st.integers(0, 2**31 - 1))
def test_is_uniform_on_the_active_clusters(case: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    mask, edges = case
    u = draw(jax.random.key(seed), of(mask), jnp.asarray(edges, jnp.float32), DRAWS)
    share = to_weighted_share(np.asarray(u, np.float64), mask, edges)
    # 50 cases: a fair draw falls below this level in all of them with probability 0.995.
    assert scipy.stats.kstest(share, "uniform").pvalue > 1e-4


def test_many_masks_together_are_uniform() -> None:
    edges = clusters.by_log_snr(-(np.linspace(0, 3, 200) ** 2) - np.linspace(0, 1, 200), 12)
    rng, shares = np.random.default_rng(0), []
    for seed in range(200):
        mask = rng.random(12) < 0.4
        mask[rng.integers(12)] = True
        u = draw(jax.random.key(seed), of(mask), jnp.asarray(edges, jnp.float32), 500)
        shares.append(to_weighted_share(np.asarray(u, np.float64), mask, edges))
    assert scipy.stats.kstest(np.concatenate(shares), "uniform").pvalue > 0.01


@pytest.mark.parametrize("number", [1, 3, 7, 20, 1000])
def test_all_active_is_the_plain_draw_bit_for_bit(number: int) -> None:
    edges = edges_of(np.random.default_rng(number).random(number) + 0.01)
    key = jax.random.key(number)
    u = draw(key, jnp.ones(number), jnp.asarray(edges, jnp.float32), DRAWS)
    np.testing.assert_array_equal(u, jax.random.uniform(key, (DRAWS,)))


@pytest.mark.parametrize("weight", [0.3, 0.5, 7.0])
def test_only_the_ratios_of_weights_count(weight: float) -> None:
    """To rounding: a division by the largest weight may give 1 - 2^-24 where it is not 1."""
    edges, key = edges_of(np.random.default_rng(0).random(20) + 0.01), jax.random.key(3)
    equal = draw(key, jnp.full(20, weight), jnp.asarray(edges, jnp.float32), DRAWS)
    np.testing.assert_allclose(equal, jax.random.uniform(key, (DRAWS,)), atol=2.0**-23)
    weights = np.random.default_rng(1).random(20)
    scaled, plain = (draw(key, of(w), jnp.asarray(edges, jnp.float32), DRAWS) for w in (weight * weights, weights))
    np.testing.assert_allclose(scaled, plain, atol=1e-5)


@hypothesis.given(masks_and_edges(), st.integers(0, 2**31 - 1), st.booleans())
def test_weights_of_0_and_1_are_the_masked_draw_bit_for_bit(
    case: tuple[np.ndarray, np.ndarray], seed: int, stratified: bool
) -> None:
    mask, edges = case
    key, edges = jax.random.key(seed), jnp.asarray(edges, jnp.float32)
    u = draw(key, of(mask), edges, DRAWS, stratified=stratified)
    np.testing.assert_array_equal(u, draw_masked(key, jnp.asarray(mask), edges, DRAWS, stratified=stratified))


def test_the_stages_of_the_paper_are_the_masked_draw_bit_for_bit() -> None:
    """Of every stage, on clusters of equal width and on those by log-SNR."""
    for edges in (
        clusters.uniform(20),
        clusters.by_log_snr(-(np.linspace(0, 3, 200) ** 2) - np.linspace(0, 1, 200), 20),
    ):
        for stage in range(1, 21):
            mask, key = np.arange(20) >= 20 - stage, jax.random.key(stage)
            u = draw(key, of(mask), jnp.asarray(edges, jnp.float32), DRAWS)
            np.testing.assert_array_equal(
                u, draw_masked(key, jnp.asarray(mask), jnp.asarray(edges, jnp.float32), DRAWS)
            )


@hypothesis.given(weights_and_edges(), st.integers(0, 2**31 - 1), st.booleans())
def test_never_leaves_the_clusters_whose_weight_is_above_0(
    case: tuple[np.ndarray, np.ndarray], seed: int, stratified: bool
) -> None:
    weights, edges = case
    edges = jnp.asarray(edges, jnp.float32)
    u = draw(jax.random.key(seed), of(weights), edges, DRAWS, stratified=stratified)
    assert np.all((u >= 0) & (u < 1))
    assert np.all(weights[np.asarray(cluster_of(u, edges))] > 0)


@hypothesis.given(weights_and_edges(), st.integers(0, 2**31 - 1))
def test_each_cluster_has_the_share_of_its_weight_times_its_width(
    case: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    """Within five standard errors of a binomial count, and inside each cluster uniform."""
    weights, edges = case
    u = draw(jax.random.key(seed), of(weights), jnp.asarray(edges, jnp.float32), DRAWS)
    mass = weights * np.diff(edges)
    share = mass / mass.sum()
    count = np.bincount(np.asarray(cluster_of(u, jnp.asarray(edges, jnp.float32))), minlength=len(weights))
    error = np.sqrt(DRAWS * share * (1 - share))
    np.testing.assert_array_less(np.abs(count - DRAWS * share), 5 * error + 5)
    # 50 cases, as above.
    whole = to_weighted_share(np.asarray(u, np.float64), weights, edges)
    assert scipy.stats.kstest(whole, "uniform").pvalue > 1e-4


def test_many_weights_together_are_exact() -> None:
    """100,000 draws, whose shares would show an error of a few parts in a thousand."""
    edges, rng, shares = clusters.uniform(12), np.random.default_rng(0), []
    for seed in range(200):
        weights = rng.gamma(0.5, size=12)
        u = draw(jax.random.key(seed), of(weights), jnp.asarray(edges, jnp.float32), 500)
        shares.append(to_weighted_share(np.asarray(u, np.float64), weights, edges))
    assert scipy.stats.kstest(np.concatenate(shares), "uniform").pvalue > 0.01


def test_weights_do_not_recompile(compilations: Callable[[], int]) -> None:
    """They are an input of fixed shape: the step compiles once, whatever the rule gives."""
    edges, key = jnp.asarray(clusters.uniform(6), jnp.float32), jax.random.key(0)
    draw(key, of([True] * 6), edges, 33)
    before = compilations()
    for seed in range(5):
        draw(key, jax.device_put(np.random.default_rng(seed).random(6).astype(np.float32)), edges, 33)
    assert compilations() == before


def test_stratified_puts_one_draw_into_each_stratum() -> None:
    mask, edges = np.array([False, True, False, True]), np.array([0, 0.1, 0.4, 0.8, 1.0])
    u = draw(jax.random.key(0), of(mask), jnp.asarray(edges, jnp.float32), 64, stratified=True)
    stratum = np.floor(to_weighted_share(np.asarray(u, np.float64), mask, edges) * 64 + 1e-4)
    np.testing.assert_array_equal(stratum, np.arange(64))
    weights = np.array([0.2, 1.0, 0.0, 3.0])
    u = draw(jax.random.key(0), of(weights), jnp.asarray(edges, jnp.float32), 64, stratified=True)
    stratum = np.floor(to_weighted_share(np.asarray(u, np.float64), weights, edges) * 64 + 1e-4)
    np.testing.assert_array_equal(stratum, np.arange(64))


def test_the_largest_draws_stay_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = np.float32(1.0) - np.float32(2.0**-23)
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.full(shape, largest, dtype))
    edges = jnp.asarray([0, 1 / 3, 0.6, 1.0], jnp.float32)
    for mask in (
        [True, True, True],
        [True, False, True],
        [True, True, False],
        [True, False, False],
        [False, True, False],
        [0.1, 1.0, 0.3],
        [1.0, 1e-6, 0.0],
        [0.7, 0.0, 1e-6],
    ):
        for stratified in (False, True):
            u = quantiles.draw(jax.random.key(0), of(mask), edges, 1001, stratified=stratified)
            assert np.all(np.asarray(mask)[np.asarray(cluster_of(u, edges))] > 0)
            assert np.all(np.asarray(u) < 1)
