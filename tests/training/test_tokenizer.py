"""If these fail, a tokenizer is trained on another loss than it says, or a network moves that should stand still."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import tiny
from etils import epath

from diffcurr import experiment as experiment_lib
from diffcurr.errors import UserError
from diffcurr.metrics.features import SHIPPED
from diffcurr.networks.discriminator import halved, with_spread
from diffcurr.pretrained import arrays, classifier
from diffcurr.training import dead_codes
from diffcurr.training.optimizer import Adam, apart
from diffcurr.training.perceptual import OfClassifier
from diffcurr.training.pixels import LOG_SCALES, logit_laplace
from diffcurr.training.tokenizer import losses

SETTINGS: dict[str, Any] = {"task": tiny.TOKENIZER_TASK, "codec": tiny.TOKENIZER, "conditioning": "none"}


def test_logit_laplace_is_a_density_and_its_formula() -> None:
    location, b = 0.7, 0.6
    x = np.linspace(1e-3, 1 - 1e-3, 100_001)
    arguments = (jnp.full(x.shape, value, jnp.float32) for value in (x, location, np.log(b)))
    found = np.exp(-np.asarray(logit_laplace(*arguments)))
    np.testing.assert_allclose(
        found, np.exp(-np.abs(scipy.special.logit(x) - location) / b) / (2 * b * x * (1 - x)), rtol=2e-3
    )
    assert scipy.integrate.trapezoid(found, x) == pytest.approx(1.0, abs=1e-3)
    clipped = logit_laplace(jnp.full(2, 0.3), jnp.zeros(2), jnp.array([-99.0, LOG_SCALES[0]]))
    assert clipped[0] == clipped[1]


def test_each_network_moves_by_its_own_loss() -> None:
    """The gradient of each network is that of its loss alone; before the start the discriminator has none."""
    experiment = tiny.experiment(**SETTINGS)
    perceptual = OfClassifier().load((8, 8, 1), "digits")
    params, images = experiment.init_state().params, tiny.batch(experiment, 0).x
    config = experiment.task.step_of(experiment)

    def everything(params: Any, images: Any, step: Any) -> Any:
        whole, (of_generator, parts, _, _) = losses(params, images, config, step, perceptual)
        return {"whole": whole, "generator": of_generator, "discriminator": parts.discriminator, "parts": parts}

    def one(name: str) -> Any:
        return jax.grad(lambda params, images, step: everything(params, images, step)[name])

    jitted = jax.jit(lambda *x: (everything(*x), *(one(name)(*x) for name in ("whole", "generator", "discriminator"))))
    values, whole, generator, discriminator = jitted(params, images, 4)
    same = lambda a, b: jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a, b)  # noqa: E731
    same(whole["generator"], generator["generator"])
    same(whole["discriminator"], discriminator["discriminator"])
    for gradient, other in ((generator, "discriminator"), (discriminator, "generator")):
        assert not any(np.any(x) for x in jax.tree.leaves(gradient[other])), f"moves the {other}"
    assert all(np.any(x) for x in jax.tree.leaves(whole["discriminator"]["last"]["kernel"]))
    parts = values["parts"]
    expected = parts.l2 + 0.1 * (parts.logit_laplace + parts.perceptual + parts.adversarial) + 1.25 * parts.quantisation
    assert float(values["generator"]) == pytest.approx(float(expected), rel=1e-5)

    values, whole, *_ = jitted(params, images, 3)
    assert not any(np.any(x) for x in jax.tree.leaves(whole["discriminator"]))
    assert float(values["generator"]) == pytest.approx(float(expected - 0.1 * parts.adversarial), rel=1e-5)


def test_each_network_has_its_optimizer() -> None:
    """Clipping of one does not see the gradient of the other, and neither does its state."""
    one = Adam(learning_rate=0.1, clip_norm=1.0).transformation(10)
    both, params = apart(one), {"generator": jnp.ones(3), "discriminator": jnp.ones(2)}
    gradients = {"generator": jnp.array([3.0, 4.0, 0.0]), "discriminator": jnp.full(2, 1e6)}
    state, alone = both.init(params), one.init(params["generator"])
    for scale in (1.0, 0.1):
        scaled = jax.tree.map(lambda x, scale=scale: scale * x, gradients)
        updates, state = both.update(scaled, state, params)
        expected, alone = one.update(scaled["generator"], alone, params["generator"])
        np.testing.assert_array_equal(updates["generator"], expected)
    jax.tree.map(np.testing.assert_array_equal, state["generator"], alone)


def test_features_of_a_picture_are_those_of_the_classifier() -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 1)).astype(np.float32)
    network, of = classifier.from_arrays(*arrays.read(SHIPPED / "digits.safetensors")), OfClassifier()
    params = of.load((8, 8, 1), "digits")
    x = jnp.asarray(images)
    for conv, found in zip(network.convs, of.layers(params, x), strict=True):
        x = jax.nn.silu(conv(x))
        np.testing.assert_allclose(found, x, atol=1e-5)
    np.testing.assert_allclose(of.distance(params, jnp.asarray(images), jnp.asarray(images)), 0, atol=1e-6)
    with pytest.raises(UserError, match="other pictures than those of"):
        of.load((28, 28, 1), "digits")
    with pytest.raises(UserError, match="no classifier is shipped for dataset folder"):
        of.load((8, 8, 1), "folder")


def test_codes_that_are_not_used_are_put_where_vectors_are() -> None:
    """Vectors that have their code are hardly drawn; none twice while there are others; after so many steps."""
    vectors = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
    codes = vectors.at[:4].add(1.0)  # the others have their codes
    found = np.asarray(dead_codes.candidates(jax.random.key(0), vectors, codes, 4))
    assert {tuple(row) for row in found} == {tuple(row) for row in np.asarray(vectors[:4])}
    assert len(dead_codes.candidates(jax.random.key(0), vectors, codes, 20)) == 20
    unused, dead = dead_codes.aged(jnp.array([0, 2, 1]), jnp.array([1.0, 0.0, 0.0]), after=3)
    np.testing.assert_array_equal(unused, [0, 0, 2])
    np.testing.assert_array_equal(dead, [False, True, False])
    use, perplexity = dead_codes.spread(jnp.array([5.0, 5.0, 0.0, 0.0]))
    assert float(use) == 0.5 and float(perplexity) == pytest.approx(2.0)


def test_the_first_step_puts_all_unused_codes_where_vectors_are() -> None:
    codec = tiny.TOKENIZER | {"quantizer": {"name": "codebook", "size": 48, "code_dim": 4}}
    alone = {"codec": codec, "task__adversarial": 0.0, "task__perceptual": {"name": "classifier", "weight": 0.0}}
    state, metrics = tiny.train(tiny.experiment(**SETTINGS | alone), 2)
    assert metrics[0].codebook_use < 0.6 and metrics[1].codebook_use > metrics[0].codebook_use + 0.1
    assert np.all(np.asarray(state.curriculum) < 3)


def test_blocks_of_the_discriminator() -> None:
    """Constant pictures stay as they are, away from the edge; the spread of a group of four is the mean deviation."""
    np.testing.assert_allclose(halved(jnp.ones((1, 7, 8, 1)))[0, 1:-1, 1:-1], 1.0)
    assert halved(jnp.ones((1, 7, 8, 1))).shape == (1, 4, 4, 1)
    x = np.random.default_rng(0).normal(size=(8, 2, 2, 3)).astype(np.float32)
    found = with_spread(jnp.asarray(x))
    np.testing.assert_allclose(found[..., :3], x)
    np.testing.assert_allclose(found[0, ..., 3], x[::2].std(axis=0).mean(), rtol=1e-5)


def test_a_diffusion_run_trains_on_the_latents_of_a_tokenizer(tmp_path: pathlib.Path) -> None:
    experiment = tiny.experiment(**SETTINGS)
    experiment.task.export(experiment, experiment.init_state(), epath.Path(tmp_path))
    codec = tiny.TOKENIZER | {"weights": str(tmp_path / experiment.task.file)}
    settings = {"network__patch_size": 1, "sampling__clip": 0.0, "codec": codec}
    state, metrics = tiny.train(tiny.experiment(**settings), 1)
    assert np.isfinite(metrics[0].loss) and int(state.step) == 1
    assert tiny.experiment(**settings).shape == (2, 2, 4)


FINITE = tiny.TOKENIZER | {"quantizer": {"name": "fsq", "levels": (4, 4)}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codec": tiny.AUTOENCODER}, "choose codec.name = 'vit_vqgan'"),
        ({"codec": tiny.TOKENIZER | {"logit_laplace": False}}, "logit_laplace = 0.1: needs codec.logit_laplace = True"),
        (
            {"codec": FINITE},
            "restart_after = 3: is for a codebook",
        ),
    ],
)
def test_what_does_not_fit_is_named(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        experiment_lib.from_config(tiny.config(**SETTINGS | settings))
