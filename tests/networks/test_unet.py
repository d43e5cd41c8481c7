"""The U-Net would not be the public architecture, would ignore an input, or would drop activations by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffcurr.conditioning import Class, Field, Nothing
from diffcurr.networks import SongUNet
from diffcurr.networks.unet_blocks import UNetBlock, resample
from diffcurr.training.state import split_network

CIFAR10 = dict(model_channels=128, channel_mult=(2, 2, 2), num_blocks=4, attn_resolutions=(16,), dropout=0.13)
NCSNPP = dict(embedding_type="fourier", encoder_type="residual", channel_mult_noise=2, resample_filter=(1, 3, 3, 1))


def make(**settings: object) -> SongUNet:
    sizes = dict(model_channels=16, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,), dropout=0.5)
    return SongUNet(8, 2, 2, **(sizes | settings), rngs=nnx.Rngs(0))  # type: ignore[arg-type]


def awake(network: SongUNet) -> SongUNet:
    """With the convolutions that start at nearly zero as large as the others: a fresh network's output is almost 0."""
    network.dec["8x8_aux_conv"].conv.kernel[...] *= 1e5
    for block in (*network.enc.values(), *network.dec.values()):
        if isinstance(block, UNetBlock):
            block.conv1.conv.kernel[...] *= 1e5
    return network


def inputs() -> tuple[jax.Array, jax.Array]:
    return jax.random.normal(jax.random.key(0), (3, 8, 8, 2)), jnp.asarray([-1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("settings", "count"),
    [({}, 55_732_739), ({"augment_dim": 9}, 55_733_891), ({"augment_dim": 9, "label_dim": 10}, 55_735_299)],
)
def test_parameter_counts_of_the_public_network(settings: dict, count: int) -> None:
    network = nnx.eval_shape(lambda: SongUNet(32, 3, 3, **CIFAR10, **settings, rngs=nnx.Rngs(0)))
    assert sum(np.prod(x.shape) for x in jax.tree.leaves(split_network(network)[1])) == count


@pytest.mark.parametrize("settings", [{}, NCSNPP, {"encoder_type": "skip", "decoder_type": "skip"}])
def test_arrangements(settings: dict) -> None:
    """Every parameter has a gradient, and output depends on the noise level."""
    x, t = inputs()
    graph, params = split_network(make(**settings))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    params = tree.unflatten([p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)])

    def output(params: dict, t: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(x, t)

    assert output(params, t).shape == x.shape and output(params, t).dtype == jnp.float32
    assert not np.allclose(output(params, t), output(params, t + 0.5), atol=1e-3)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(jnp.square(output(p, t)))))(params)
    assert all(float(jnp.linalg.norm(g)) > 0 for g in jax.tree.leaves(gradient))


def test_labels() -> None:
    """Whole numbers are classes, label_dim stands for none, and both kinds of labels matter."""
    network = awake(make(label_dim=10, augment_dim=9))
    x, t = inputs()
    classes = jnp.asarray([0, 3, 10])
    output = network(x, t, {"label": classes})
    one_hot = jnp.zeros((3, 10)).at[0, 0].set(1.0).at[1, 3].set(1.0)
    np.testing.assert_allclose(output, network(x, t, {"label": one_hot}), rtol=1e-5, atol=1e-5)
    assert not np.allclose(output, network(x, t, {"label": classes - 1}), atol=1e-3)
    np.testing.assert_allclose(
        output, network(x, t, {"label": classes, "augment": jnp.zeros((3, 9))}), rtol=1e-5, atol=1e-5
    )
    assert not np.allclose(output, network(x, t, {"label": classes, "augment": jnp.ones((3, 9))}), atol=1e-4)
    with pytest.raises(ValueError, match="class-conditional: its condition has no 'label'"):
        network(x, t, {})


def test_dropout_needs_a_key_and_keeps_the_mean() -> None:
    network, (x, t) = awake(make()), inputs()
    keys = [jax.random.key(i) for i in range(2)]
    np.testing.assert_array_equal(network(x, t), network(x, t))
    first, second = (network(x, t, {}, key=key) for key in keys)
    assert not np.allclose(first, second, atol=1e-3)
    np.testing.assert_array_equal(first, network(x, t, {}, key=keys[0]))


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_resampling(taps: tuple[int, ...]) -> None:
    """Constants stay, away from the border; a pixel spreads by the filter; halving is the transpose of doubling."""
    padding = (len(taps) - 1) // 2
    x = jnp.ones((1, 8, 8, 2))
    up, down = resample(x, taps, down=False, padding=padding), resample(x, taps, down=True, padding=padding)
    assert up.shape == (1, 16, 16, 2) and down.shape == (1, 4, 4, 2)
    np.testing.assert_allclose(up[:, 2:-2, 2:-2], 1.0, rtol=1e-6)
    np.testing.assert_allclose(down[:, 1:-1, 1:-1], 1.0, rtol=1e-6)
    y = jax.random.normal(jax.random.key(0), (1, 16, 16, 2))
    z = jax.random.normal(jax.random.key(1), (1, 8, 8, 2))
    forth = jnp.vdot(resample(z, taps, down=False, padding=padding), y)
    back = jnp.vdot(z, resample(y, taps, down=True, padding=padding))
    np.testing.assert_allclose(forth, 4 * back, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder_type": "deep"}, "encoder_type = 'deep': choose one of standard, skip, residual"),
        ({"channel_mult": (1, 1, 1, 1, 1)}, "an image's side of 8 cannot be halved 4 times"),
        ({"model_channels": 6}, "model_channels = 6: must be an integer from 4 to 2\\^16, divisible by 4"),
    ],
)
def test_rejects(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_from_spec() -> None:
    """The labels' dimensions are those of the condition; the output has a variance where it is learned."""

    def made(condition: dict[str, Field], learn_variance: bool = False) -> SongUNet:
        settings = dict(model_channels=16, channel_mult=(1, 2), num_blocks=1)
        return nnx.eval_shape(
            lambda: SongUNet.from_spec(
                (8, 8, 2), condition, learn_variance=learn_variance, rngs=nnx.Rngs(0), **settings
            )
        )

    augment = {"augment": Field((9,), jnp.float32)}
    both = made(Class(num_classes=10).spec() | augment)
    assert (both.label_dim, both.augment_dim) == (10, 9)
    neither = made(Nothing().spec(), learn_variance=True)
    assert (neither.label_dim, neither.augment_dim) == (0, 0)
    x, t = inputs()
    outputs = [jax.eval_shape(lambda network: network(x, t, {}), network) for network in (made(augment), neither)]
    assert [output.shape for output in outputs] == [(3, 8, 8, 2), (3, 8, 8, 4)]


@pytest.mark.parametrize(
    ("shape", "field", "message"),
    [
        ((8, 6, 2), "label", "images of 8x6: the U-Net takes square ones"),
        ((8, 8, 2), "depth", "the U-Net takes no depth: only a class label, a text and labels of augmentations"),
    ],
)
def test_from_spec_rejects(shape: tuple[int, ...], field: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SongUNet.from_spec(shape, {field: Field((9,), jnp.float32)}, learn_variance=False, rngs=nnx.Rngs(0))


def test_told_a_text() -> None:
    """Each word counts, by attention and in the mean; what stands where there is no word changes no bit."""
    x, t = inputs()
    told = {
        "text": jax.random.normal(jax.random.key(2), (3, 5, 6)),
        "text_mask": jnp.asarray([[True] * 5, [True] * 2 + [False] * 3, [True] + [False] * 4]),
    }
    network = awake(make(text_width=6))
    attending = [block for block in (*network.enc.values(), *network.dec.values()) if getattr(block, "text", None)]
    assert len(attending) == 3  # at 4x4: one of the encoder, the decoder's middle and its last
    for block in attending:
        block.text.proj.kernel[...] += 0.1
    call = nnx.jit(lambda network, told: network(x, t, told))
    output = call(network, told)
    beyond = jnp.where(told["text_mask"][..., None], told["text"], 1e4)
    np.testing.assert_array_equal(output, call(network, told | {"text": beyond}))
    for word, changed in ((0, [True, True, True]), (1, [True, True, False]), (4, [True, False, False])):
        other = call(network, told | {"text": told["text"].at[:, word].add(1.0)})
        np.testing.assert_array_equal(np.abs(other - output).max(axis=(1, 2, 3)) > 1e-4, changed)
    np.testing.assert_allclose(call(network, network.once(told)), output, atol=1e-5)
    without_mean = call(network, network.once(told) | {"text_mean": jnp.ones((3, 6))})
    assert np.abs(without_mean - output).max() > 1e-4
    with pytest.raises(ValueError, match="has no 'text'"):
        network(x, t, {})
