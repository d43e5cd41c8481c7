"""If these fail, tokens are predicted from those that follow, or sampling sees other logits than training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffcurr.networks.token_transformer import TokenTransformer, _dropped

ROWS, COLUMNS, CODES, CLASSES = 3, 4, 11, 5


def made(**settings: Any) -> TokenTransformer:
    sizes = {"hidden_size": 16, "mlp_size": 24, "depth": 2, "num_heads": 2}
    return TokenTransformer(ROWS, COLUMNS, CODES, CLASSES, **sizes | settings, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def network() -> TokenTransformer:
    """One whose every parameter matters: no layer is 0 or 1."""

    def params() -> Any:
        plain = nnx.to_pure_dict(nnx.state(made(), nnx.Param))
        return jax.tree.map(lambda x: x + 0.2 * jnp.cos(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape), plain)

    return nnx.merge(nnx.graphdef(nnx.eval_shape(made)), jax.jit(params)())


@pytest.fixture(scope="module")
def tokens() -> jax.Array:
    return jax.random.randint(jax.random.key(1), (3, ROWS, COLUMNS), 0, CODES)


LABELS = {"label": jnp.array([0, 3, 5])}


def test_a_token_depends_on_those_before_it_alone(network: TokenTransformer, tokens: jax.Array) -> None:
    """The derivative is not at hand for tokens: each is changed, and the logits at and before it keep every bit."""
    logits = jax.jit(lambda tokens, condition: network(tokens, condition))
    whole = logits(tokens, LABELS)
    assert whole.shape == (3, ROWS * COLUMNS, CODES) and whole.dtype == jnp.float32
    for position in range(ROWS * COLUMNS):
        row, column = divmod(position, COLUMNS)
        changed = logits(tokens.at[:, row, column].add(1) % CODES, LABELS)
        np.testing.assert_array_equal(changed[:, : position + 1], whole[:, : position + 1])
        if position + 1 < ROWS * COLUMNS:
            assert np.all(np.abs(changed[:, position + 1 :] - whole[:, position + 1 :]).max(axis=2) > 1e-4)
    assert np.all(np.abs(logits(tokens, {"label": jnp.array([1, 4, 0])}) - whole).max(axis=2) > 1e-4)


def test_cached_logits_are_those_of_the_full_pass(network: TokenTransformer, tokens: jax.Array) -> None:
    flat = tokens.reshape(3, -1)

    def body(cache: Any, position: jax.Array) -> tuple[Any, jax.Array]:
        logits, cache = network.advance(cache, position, flat[:, position - 1], LABELS)
        return cache, logits

    steps = jnp.arange(ROWS * COLUMNS)
    cached = jax.jit(lambda: jax.lax.scan(body, network.empty_cache(3), steps)[1].swapaxes(0, 1))()
    np.testing.assert_allclose(cached, jax.jit(lambda: network(tokens, LABELS))(), atol=1e-5)


def test_features_are_averages_of_what_comes_out_of_each_block(network: TokenTransformer, tokens: jax.Array) -> None:
    found, states = jax.jit(lambda: network._blocks(tokens, LABELS, None, averages=True)[::-1])()
    assert found.shape == (2, 3, 16)
    np.testing.assert_allclose(found[1], states.mean(axis=1), atol=1e-6)
    np.testing.assert_array_equal(jax.jit(lambda: network.features(tokens, LABELS))(), found)


def test_dropout_needs_a_key_and_keeps_the_mean(network: TokenTransformer, tokens: jax.Array) -> None:
    drops = nnx.merge(nnx.graphdef(nnx.eval_shape(lambda: made(dropout=0.3))), nnx.state(network, nnx.Param))
    plain, with_key, other = jax.jit(
        lambda: (drops(tokens, LABELS), *(drops(tokens, LABELS, key=jax.random.key(seed)) for seed in (0, 1)))
    )()
    np.testing.assert_allclose(plain, jax.jit(lambda: network(tokens, LABELS))(), atol=1e-6)
    assert np.all(np.abs(with_key - plain).max(axis=2) > 1e-3) and np.all(np.abs(with_key - other).max(axis=2) > 1e-3)
    values = jax.jit(lambda: _dropped(jnp.ones(100_000), 0.3, jax.random.key(0)))()
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.7)} and abs(float(values.mean()) - 1) < 0.01


@pytest.mark.parametrize(
    ("width", "mlp", "depth", "heads", "total"),
    [(1536, 6144, 24, 16, 708_243_968), (2048, 8192, 36, 32, 1_850_611_712)],
    ids=["VIM-Base", "VIM-Large"],
)
def test_parameter_counts(width: int, mlp: int, depth: int, heads: int, total: int) -> None:
    """Yu et al. 2022, table 2: 650 M and 1.7 B. The matrices of the blocks alone are more: 680 M and 1.81 B.

    In units of 2^20 and 2^30 these matrices are 648 and 1.69: which is near to the table, and may be what it says.
    """
    matrices = depth * (4 * width**2 + 2 * width * mlp)
    vectors = depth * (4 * width + mlp + width + 4 * width)  # biases of qkv and proj, of fc1 and fc2; two norms
    ends = (1001 + 8192 + 1024) * width + 2 * width + 8192 * (width + 1)
    assert matrices + vectors + ends == total
    shapes = nnx.eval_shape(
        lambda: TokenTransformer(
            hidden_size=width, mlp_size=mlp, depth=depth, num_heads=heads, rngs=nnx.Rngs(0), dtype="bfloat16"
        )
    )
    assert sum(x.size for x in jax.tree.leaves(nnx.state(shapes, nnx.Param))) == total
    assert matrices == {1536: 679_477_248, 2048: 1_811_939_328}[width]


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="hidden_size = 10: must be divisible by num_heads = 3"):
        made(hidden_size=10, num_heads=3)
    with pytest.raises(ValueError, match="takes no text"):
        TokenTransformer.from_spec((2, 2, 5), {"text": None}, learn_variance=False, rngs=nnx.Rngs(0))
