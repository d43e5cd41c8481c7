"""If these fail, tokens are drawn from other distributions than the network predicts, or depend on the devices."""

import dataclasses
import pathlib
from typing import Any

import coded
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from diffcurr.errors import UserError
from diffcurr.experiment import Experiment
from diffcurr.jobs import analyze
from diffcurr.run import Run
from diffcurr.sampling import drawing, tokens
from diffcurr.sampling.drawing import Sampling

coded_guests = coded.coded_guests  # a fixture of this module too

SETTINGS: dict[str, Any] = coded.TOKENS | {"sampling__guidance": 1.7}


def moved(experiment: Experiment) -> Any:
    """Parameters of which all matter, so that tokens depend on those before them and on the class."""
    params = experiment.init_state().ema
    return jax.tree.map(lambda x: x + 0.3 * np.cos(np.arange(x.size, dtype=np.float32)).reshape(x.shape), params)


def test_samples_do_not_depend_on_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one device, on eight, on six, which divide nothing, several parts at once, a few samples at a time."""
    monkeypatch.setattr(drawing, "PART", 16)
    one = tiny.experiment(1, **SETTINGS)
    key, condition = jax.random.key(3), one.conditioning.chosen(45)
    found = one.sampler.draw(moved(one), key, condition, 45)
    assert found.shape == (45, 8, 8, 1) and len(np.unique(found[:16], axis=0)) > 8
    for devices, settings, number in ((8, {"mesh__fsdp": 4}, 45), (6, {"batch_size": 12}, 20)):
        other = tiny.experiment(devices, **SETTINGS | settings)
        condition = {"label": np.arange(number, dtype=np.int32) % 10}
        monkeypatch.setattr(tokens, "CACHE", 3000)
        np.testing.assert_array_equal(other.sampler.draw(moved(other), key, condition, number), found[:number])


def test_the_likeliest_tokens_are_those_of_the_full_pass() -> None:
    """At a temperature near 0, with guidance: each token is the likeliest given those before it and the class."""
    one = tiny.experiment(1, **SETTINGS, sampling__temperature=1e-4)
    params, label = moved(one), jnp.arange(10)
    condition = {"label": label}
    cold = one.sampler
    drawn = jax.jit(lambda: cold.encoded(params, jax.random.key(0), jnp.int32(0), condition, 10, 1))()
    network = nnx.merge(one.abstract_network[0], params)
    told, null = jax.jit(lambda: (network(drawn, condition), network(drawn, one.conditioning.null(condition))))()
    np.testing.assert_array_equal(drawn.reshape(10, 4), jnp.argmax(null + 1.7 * (told - null), axis=-1))
    assert len(np.unique(drawn.reshape(10, 4), axis=0)) > 1, "the class matters"
    codec_params = jax.tree.map(jnp.asarray, one.codec.load())
    pictures = cold.draw(params, jax.random.key(0), {"label": np.arange(10, dtype=np.int32)}, 10)
    np.testing.assert_array_equal(pictures, one.codec.decode_tokens_with(codec_params, drawn))
    run = Run(one, one.init_state())
    assert run.sample(2, temperature=0.5, top_k=2, top_p=0.9).shape == (2, 8, 8, 1)


def test_which_tokens_may_be_drawn() -> None:
    shares = np.array([0.1, 0.4, 0.05, 0.25, 0.2])
    logits = jnp.log(jnp.asarray(shares)) + 3.0
    for top_k, top_p, wanted in (
        (0, 1.0, {0, 1, 2, 3, 4}),
        (2, 1.0, {1, 3}),
        (9, 1.0, {0, 1, 2, 3, 4}),
        (0, 0.39, {1}),
        (0, 0.41, {1, 3}),  # the one that passes it is in
        (0, 0.84, {1, 3, 4}),
        (3, 0.7, {1, 3}),  # of 0.4, 0.25 and 0.2, renormalised: 0.47, 0.76
        (2, 1e-9, {1}),
    ):
        assert set(np.flatnonzero(tokens.likely(logits, top_k, top_p))) == wanted, (top_k, top_p)
    settings = Sampling(steps=1, temperature=2.0, top_k=3)
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = jax.jit(jax.vmap(lambda key: tokens.drawn(key, logits, jnp.int32(5), settings)))(keys)
    expected = np.sqrt(shares * [0, 1, 0, 1, 1])
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / 20_000, expected / expected.sum(), atol=0.01)


def test_bits_of_held_out_pictures() -> None:
    """Those of the network's own logits, on one device and on eight; of one that knows nothing, log2 of the codes."""
    settings = coded.TOKENS | {"dataset__held_out": 0.02, "evaluation__denoising__images": 30}
    one, eight = tiny.experiment(1, **settings), tiny.experiment(8, **settings)
    measured = one.held_out_error()(moved(one))["bits_per_token"]
    images, params = one.held_out_images(), jax.tree.map(jnp.asarray, one.codec.load())
    codes = one.codec.tokens_with(params, jnp.asarray(images.x))
    logits = nnx.merge(one.abstract_network[0], moved(one))(codes, images.condition)
    bits = -jnp.take_along_axis(jax.nn.log_softmax(logits), codes.reshape(30, 4)[..., None], axis=-1) / np.log(2)
    assert measured["value"] == pytest.approx(float(bits.mean()), rel=1e-5) and measured["examples"] == 30
    assert measured["low"] < measured["value"] < measured["high"]
    assert eight.held_out_error()(moved(eight))["bits_per_token"]["value"] == pytest.approx(measured["value"], rel=1e-5)
    nothing = jax.tree.map(jnp.zeros_like, one.init_state().ema)
    assert one.held_out_error()(nothing)["bits_per_token"]["value"] == pytest.approx(np.log2(12), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codec": "identity"}, "task tokens: the codec Identity makes no tokens"),
        (
            {"network": "dit", "network__patch_size": 1},
            "network dit: predicts no tokens; choose network.name = 'token_transformer'",
        ),
        ({"task": "diffusion"}, "network token_transformer: predicts tokens, and does not denoise"),
        ({"sampling__top_k": 13}, "sampling: top_k = 13: there are 12 codes"),
        ({"sampling__spacing": "log_snr"}, "sampling: spacing = log_snr: is for denoising; give process"),
        ({"sampling__guidance": 2.0, "conditioning": "none"}, "sampling: guidance = 2.0: the network is unconditional"),
        (
            {"codec": "identity", "network": "dit", "task": "diffusion", "sampling__top_p": 0.9},
            "top_p = 0.9: is for tokens",
        ),
    ],
)
def test_what_does_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny.experiment(**coded.TOKENS | settings)


def test_estimates_are_a_denoisers(tmp_path: pathlib.Path) -> None:
    one = tiny.experiment(1, **coded.TOKENS)
    with pytest.raises(
        UserError, match="network.name = 'token_transformer': --job=analyze trains networks that denoise"
    ):
        analyze.run(one.config, tmp_path)
    with pytest.raises(UserError, match="task.name = 'tokens': estimates are those of a denoising network"):
        Run(one, one.init_state()).denoise(np.zeros((1, 8, 8, 1), np.float32), 0.5)
    with pytest.raises(ValueError, match="steps = 3: tokens are drawn one after another"):
        Run(one, one.init_state()).sample(1, steps=3)
    assert dataclasses.replace(one.codec).loads == []
