"""DiT would not be the public architecture, would ignore an input, or would cost more than it must."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffcurr.conditioning import Class, Field, Nothing
from diffcurr.networks import DiT, patches
from diffcurr.networks.embeddings import position_table, timestep_embedding
from diffcurr.training.state import split_network
from diffcurr.weights import parameters_of

INPUTS = (
    jax.random.normal(jax.random.key(0), (3, 8, 8, 2)),
    jnp.asarray([0.0, 10.0, 999.0]),
    {"label": jnp.asarray([0, 9, 10])},
)


def make(**settings: object) -> DiT:
    sizes = dict(
        input_size=8,
        patch_size=2,
        in_channels=2,
        hidden_size=16,
        depth=3,
        num_heads=2,
        num_classes=10,
        learn_sigma=False,
    )
    return DiT(**(sizes | settings), rngs=nnx.Rngs(0))  # type: ignore[arg-type]


def perturbed(network: DiT) -> tuple:
    """(graph, parameters) with every parameter moved: a fresh network's output is exactly 0."""
    graph, params = split_network(network)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.1 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return graph, jax.tree.unflatten(tree, moved)


def test_shapes_and_zero_at_initialisation() -> None:
    for learn_sigma, channels in ((False, 2), (True, 4)):
        output = make(learn_sigma=learn_sigma)(*INPUTS)
        assert output.shape == (3, 8, 8, channels) and output.dtype == jnp.float32
        np.testing.assert_array_equal(output, 0)


def test_time_class_and_position_matter() -> None:
    graph, params = perturbed(make())
    network = nnx.merge(graph, params)
    x, t, condition = INPUTS
    output = network(x, t, condition)
    assert not np.allclose(output, network(x, t + 1, condition), atol=1e-4)
    assert not np.allclose(output, network(x, t, {"label": (condition["label"] + 1) % 11}), atol=1e-4)
    shifted = network(jnp.roll(x, 2, axis=1), t, condition)
    assert not np.allclose(jnp.roll(output, 2, axis=1), shifted, atol=1e-4)


@pytest.mark.parametrize(
    ("sizes", "trainable"),
    [
        ((2, 384, 12, 6), 32_865_056),
        ((2, 768, 12, 12), 130_512_416 - 256 * 768),
        ((4, 768, 12, 12), 130_475_648 - 64 * 768),
    ],
)
def test_parameter_counts_of_the_public_networks(sizes: tuple[int, ...], trainable: int) -> None:
    """The public figures count the fixed position table (tokens x width) too."""
    patch, width, depth, heads = sizes
    network = nnx.eval_shape(lambda: DiT(32, patch, 4, width, depth, heads, 1000, True, rngs=nnx.Rngs(0)))
    assert sum(np.prod(x.shape) for x in jax.tree.leaves(split_network(network)[1])) == trainable


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_memory_and_not_gradients(remat: str) -> None:
    def gradient(remat: str) -> tuple:
        graph, params = perturbed(make(remat=remat))
        loss = jax.jit(jax.grad(lambda p: jnp.mean(jnp.square(nnx.merge(graph, p)(*INPUTS)))))
        return loss(params), str(jax.make_jaxpr(loss)(params))

    (plain, plain_program), (rematted, program) = gradient("none"), gradient(remat)
    # Recomputation shows as more tanh (of the GELU) in the program than forward and derivative need.
    assert program.count("tanh") > plain_program.count("tanh")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), plain, rematted)


def test_unroll_changes_nothing() -> None:
    graph, params = perturbed(make())
    unrolled, _ = split_network(make(scan_unroll=3))
    np.testing.assert_allclose(nnx.merge(graph, params)(*INPUTS), nnx.merge(unrolled, params)(*INPUTS), atol=1e-5)


def test_the_program_does_not_grow_with_depth() -> None:
    def length(depth: int) -> int:
        graph, params = split_network(make(depth=depth))
        return len(str(jax.make_jaxpr(lambda p: nnx.merge(graph, p)(*INPUTS))(params)).splitlines())

    assert length(28) == length(4)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters() -> None:
    graph, params = perturbed(make(dtype="bfloat16"))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    output = nnx.merge(graph, params)(*INPUTS)
    graph32, _ = perturbed(make())
    exact = nnx.merge(graph32, params)(*INPUTS)
    assert output.dtype == jnp.float32
    error = jnp.linalg.norm(output - exact) / jnp.linalg.norm(exact)
    assert 1e-4 < error < 5e-2  # not float32 in disguise, and close


def test_unconditional() -> None:
    network = make(num_classes=0)
    assert network(*INPUTS[:2]).shape == network(*INPUTS[:2], {}).shape == (3, 8, 8, 2)
    with pytest.raises(ValueError, match="class-conditional: its condition has no 'label'"):
        make()(*INPUTS[:2], {})


def test_from_spec() -> None:
    """The label table has a row for "no class" where it occurs; the output has a variance where it is learned."""
    settings = dict(patch_size=2, hidden_size=16, depth=1, num_heads=2)

    def made(conditioning: Class | Nothing, learn_variance: bool = False) -> DiT:
        return nnx.eval_shape(
            lambda: DiT.from_spec(
                (8, 8, 2), conditioning.spec(), learn_variance=learn_variance, rngs=nnx.Rngs(0), **settings
            )
        )

    assert made(Class(num_classes=10, dropout=0.1)).y_embedder.num_embeddings == 11
    assert made(Class(num_classes=10, dropout=0.0)).y_embedder.num_embeddings == 10
    assert made(Nothing()).y_embedder is None
    assert made(Nothing()).out_channels == 2 and made(Nothing(), learn_variance=True).out_channels == 4


@pytest.mark.parametrize(
    ("shape", "field", "message"),
    [
        ((8, 6, 2), "label", "images of 8x6: DiT takes square ones"),
        ((8, 8, 2), "augment", "DiT takes no augment; for dataset.augment choose song_unet, or set it to 0"),
        ((8, 8, 2), "depth", "DiT takes no depth"),
    ],
)
def test_from_spec_rejects(shape: tuple[int, ...], field: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiT.from_spec(shape, {field: Field((9,), jnp.float32)}, learn_variance=False, rngs=nnx.Rngs(0))


def test_patches() -> None:
    x = INPUTS[0]
    tokens = patches.patchify(x, 2)
    np.testing.assert_array_equal(tokens[1, 5].reshape(2, 2, 2), x[1, 2:4, 2:4])
    np.testing.assert_array_equal(patches.unpatchify(tokens, 2, 8, 8), x)


def test_embeddings() -> None:
    embedded = timestep_embedding(jnp.asarray([3.0]), 6)
    frequencies = np.array([1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3)])
    np.testing.assert_allclose(
        embedded[0], np.concatenate([np.cos(3 * frequencies), np.sin(3 * frequencies)]), atol=1e-6
    )
    table = position_table(3, 8)
    row, column = 2, 1
    np.testing.assert_allclose(table[3 * row + column, :2], np.sin(column * np.array([1, 0.01])), atol=1e-6)
    np.testing.assert_allclose(table[3 * row + column, 4:6], np.sin(row * np.array([1, 0.01])), atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"patch_size": 3}, {"num_heads": 3}, {"hidden_size": 18}, {"depth": 0}, {"remat": "some"}]
)
def test_rejects(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        make(**settings)


TEXT = {
    "text": jax.random.normal(jax.random.key(2), (3, 5, 6)),
    "text_mask": jnp.asarray([[True] * 5, [True] * 2 + [False] * 3, [True] + [False] * 4]),
}


@pytest.mark.parametrize("shared", [False, True])
def test_told_a_text(shared: bool) -> None:
    """Each word counts, what stands where there is no word changes no bit, and a text can be projected once."""
    graph, params = perturbed(make(num_classes=0, text_width=6, shared_modulation=shared))
    network, (x, t, _) = nnx.merge(graph, params), INPUTS
    output = network(x, t, TEXT)
    beyond = jnp.where(TEXT["text_mask"][..., None], TEXT["text"], 1e4)
    np.testing.assert_array_equal(output, network(x, t, TEXT | {"text": beyond}))
    for word, changed in ((0, [True, True, True]), (1, [True, True, False]), (4, [True, False, False])):
        other = network(x, t, TEXT | {"text": TEXT["text"].at[:, word].add(1.0)})
        np.testing.assert_array_equal(np.abs(other - output).max(axis=(1, 2, 3)) > 1e-4, changed)
    once = network.once(TEXT)
    assert set(once) == {"text_mask", "text_keys_values"}
    np.testing.assert_allclose(network(x, t, once), output, atol=1e-6)
    with pytest.raises(ValueError, match="has no 'text'"):
        network(x, t, {})


def test_a_class_and_a_text() -> None:
    graph, params = perturbed(make(text_width=6))
    network, (x, t, label) = nnx.merge(graph, params), INPUTS
    output = network(x, t, label | TEXT)
    assert not np.allclose(output, network(x, t, {"label": (label["label"] + 1) % 11} | TEXT), atol=1e-4)
    np.testing.assert_allclose(network(x, t, network.once(label | TEXT)), output, atol=1e-6)


def test_pixart_parameter_count() -> None:
    """Of PixArt-alpha for 256x256 with T5's states of width 4,096 (Chen et al. 2023)."""
    network = nnx.eval_shape(
        lambda: DiT(32, 2, 4, 1152, 28, 16, 0, text_width=4096, shared_modulation=True, rngs=nnx.Rngs(0))
    )
    assert sum(int(np.prod(shape)) for shape in parameters_of(network).values()) == 610_856_096
