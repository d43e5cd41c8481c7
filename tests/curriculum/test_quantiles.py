import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import strategies as st

from diffcurr.curriculum import clusters
from diffcurr.curriculum.quantiles import cluster_of, masked_quantiles

DRAWS = 4096
draw = jax.jit(masked_quantiles, static_argnames=("batch_size", "stratified"))


@st.composite
def masks_and_edges(draw_value: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    number = draw_value(st.sampled_from([1, 2, 5, 20]))
    widths = np.array(draw_value(st.lists(st.floats(0.01, 1.0), min_size=number, max_size=number)))
    edges = np.concatenate([[0.0], np.cumsum(widths) / widths.sum()])
    edges[-1] = 1.0
    mask = np.array(draw_value(st.lists(st.booleans(), min_size=number, max_size=number)))
    mask[draw_value(st.integers(0, number - 1))] = True
    return mask, edges


def to_active_share(u: np.ndarray, mask: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The share of the active union that lies below u: uniform on [0, 1) if u is uniform on the union."""
    edges = edges.astype(np.float32).astype(np.float64)
    widths = np.diff(edges) * mask
    k = np.clip(np.searchsorted(edges, u, side="right") - 1, 0, len(mask) - 1)
    return (np.concatenate([[0], np.cumsum(widths)])[k] + (u - edges[k])) / widths.sum()


@hypothesis.given(masks_and_edges(), st.integers(0, 2**31 - 1), st.booleans())
def test_never_leaves_the_active_clusters(case: tuple[np.ndarray, np.ndarray], seed: int, stratified: bool) -> None:
    mask, edges = case
    u = draw(jax.random.key(seed), jnp.asarray(mask), jnp.asarray(edges, jnp.float32), DRAWS, stratified=stratified)
    assert np.all((u >= 0) & (u < 1))
    assert np.all(mask[np.asarray(cluster_of(u, jnp.asarray(edges, jnp.float32)))])


@hypothesis.given(masks_and_edges(), st.integers(0, 2**31 - 1))
def test_is_uniform_on_the_active_clusters(case: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    mask, edges = case
    u = draw(jax.random.key(seed), jnp.asarray(mask), jnp.asarray(edges, jnp.float32), DRAWS)
    share = to_active_share(np.asarray(u, np.float64), mask, edges)
    # 50 cases: a fair draw falls below this level in all of them with probability 0.995.
    assert scipy.stats.kstest(share, "uniform").pvalue > 1e-4


def test_many_masks_together_are_uniform() -> None:
    edges = clusters.by_log_snr(-(np.linspace(0, 3, 200) ** 2) - np.linspace(0, 1, 200), 12)
    rng, shares = np.random.default_rng(0), []
    for seed in range(200):
        mask = rng.random(12) < 0.4
        mask[rng.integers(12)] = True
        u = draw(jax.random.key(seed), jnp.asarray(mask), jnp.asarray(edges, jnp.float32), 500)
        shares.append(to_active_share(np.asarray(u, np.float64), mask, edges))
    assert scipy.stats.kstest(np.concatenate(shares), "uniform").pvalue > 0.01


@pytest.mark.parametrize("number", [1, 3, 7, 20, 1000])
def test_all_active_is_the_plain_draw_bit_for_bit(number: int) -> None:
    widths = np.random.default_rng(number).random(number) + 0.01
    edges = np.concatenate([[0.0], np.cumsum(widths)]) / widths.sum()
    edges[-1] = 1.0
    key = jax.random.key(number)
    u = draw(key, jnp.ones(number, bool), jnp.asarray(edges, jnp.float32), DRAWS)
    np.testing.assert_array_equal(u, jax.random.uniform(key, (DRAWS,)))


def test_stratified_puts_one_draw_into_each_stratum() -> None:
    mask, edges = np.array([False, True, False, True]), np.array([0, 0.1, 0.4, 0.8, 1.0])
    u = draw(jax.random.key(0), jnp.asarray(mask), jnp.asarray(edges, jnp.float32), 64, stratified=True)
    stratum = np.floor(to_active_share(np.asarray(u, np.float64), mask, edges) * 64 + 1e-4)
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
    ):
        for stratified in (False, True):
            u = masked_quantiles(jax.random.key(0), jnp.asarray(mask), edges, 1001, stratified=stratified)
            assert np.all(np.asarray(mask)[np.asarray(cluster_of(u, edges))])
            assert np.all(np.asarray(u) < 1)
