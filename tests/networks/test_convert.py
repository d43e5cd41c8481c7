"""Public weights would be loaded into other networks than those that they were trained in."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference_files import Reference

from diffcurr.networks import DiT, SongUNet
from diffcurr.networks.convert import load_torch
from diffcurr.processes import DDPM, EDM, Flow, Process
from diffcurr.training.state import split_network


def make_dit(learn_sigma: bool = True) -> DiT:
    return DiT(8, 2, 4, 48, 2, 4, 10, learn_sigma, class_dropout_prob=0.0, rngs=nnx.Rngs(0))


def make_unet(**settings: Any) -> SongUNet:
    sizes = dict(model_channels=32, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(8,), dropout=0.0)
    return SongUNet(16, 3, 3, **(sizes | settings), rngs=nnx.Rngs(0))


CASES: dict[str, tuple[Callable[[], nnx.Module], Process]] = {
    "dit": (make_dit, DDPM(learn_variance=True)),
    "sit": (make_dit, Flow()),
    "edm": (make_unet, EDM()),
}


@pytest.mark.parametrize("name", CASES)
def test_parity(name: str) -> None:
    """Output within 2e-5, loss within 1e-5, each parameter's gradient within 1e-4 of its norm."""
    make, process = CASES[name]
    reference, network = Reference(name), make()
    load_torch(network, reference.weights())
    graph, params = split_network(network)
    x0, noise = reference["x"], reference["eps"]
    if name == "edm":
        time, condition, channels = reference["sigma"], {}, 3
    else:
        time, condition, channels = (
            reference["t"].astype(jnp.float32),
            {"label": reference["y"]},
            8 if name == "dit" else 4,
        )

    def predict(params: Any, x: jax.Array, t: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(x, t, condition)[..., :channels]

    alpha, sigma = (v[:, None, None, None] for v in process.alpha_sigma(time))
    x = alpha * x0 + sigma * noise
    if name == "edm":
        output, recorded = process.denoise(lambda x, t: predict(params, x, t), x, time).x0, reference["D"]
    else:
        np.testing.assert_allclose(x, reference["xt"], atol=1e-6)
        output, recorded = predict(params, x, time), reference["model_out"]
    assert float(jnp.linalg.norm(output - recorded) / jnp.linalg.norm(recorded)) < 2e-5

    class Fixed(type(process)):  # type: ignore[misc]
        """The process at the recorded times, which a quantile in float32 would not give exactly."""

        def time(self, u: jax.Array) -> jax.Array:
            return time

    @jax.jit
    @jax.value_and_grad
    def loss_and_gradient(params: Any) -> jax.Array:
        settings = {"learn_variance": True} if name == "dit" else {}
        losses = Fixed(**settings).losses(lambda x, t: predict(params, x, t), x0, jnp.zeros_like(time), noise)
        return jnp.mean(losses.loss)

    loss, gradient = loss_and_gradient(params)
    np.testing.assert_allclose(loss, reference["loss"], rtol=1e-5)
    expected = make()
    load_torch(expected, reference.gradients())
    jax.tree.map(
        lambda got, want: np.testing.assert_array_less(jnp.linalg.norm(got - want), 1e-4 * jnp.linalg.norm(want)),
        gradient,
        split_network(expected)[1],
    )


def test_sit_without_the_half_that_it_ignores() -> None:
    reference, network = Reference("sit"), make_dit(learn_sigma=False)
    load_torch(network, reference.weights())
    output = network(reference["xt"], reference["t"], {"label": reference["y"]})
    np.testing.assert_allclose(output, reference["model_out"], atol=1e-5)


def test_every_name_is_used_once() -> None:
    weights = Reference("dit").weights()
    extra = weights | {"surprise": np.zeros(3)}
    with pytest.raises(ValueError, match="arrays missing: none; left over: surprise"):
        load_torch(make_dit(), extra)
    del weights["blocks.1.attn.qkv.bias"]
    with pytest.raises(ValueError, match=r"arrays missing: blocks\.1\.attn\.qkv\.bias; left over: none"):
        load_torch(make_dit(), weights)
    with pytest.raises(ValueError, match="left over: .*16x16_aux_conv"):
        load_torch(make_dit(), Reference("edm").weights())


def test_fixed_tables_and_shapes_are_checked() -> None:
    weights = Reference("dit").weights()
    with pytest.raises(ValueError, match="pos_embed: is another table"):
        load_torch(make_dit(), weights | {"pos_embed": weights["pos_embed"] + 0.1})
    with pytest.raises(ValueError, match=r"t_embedder\.mlp\.0\.bias: gives shape \(47,\), the network has \(48,\)"):
        load_torch(make_dit(), weights | {"t_embedder.mlp.0.bias": np.zeros(47)})
    kernel = weights["x_embedder.proj.weight"]
    for other in (kernel[:, :, :, :1], kernel.reshape(*kernel.shape[:1], -1, 1, 1)):
        with pytest.raises(ValueError, match=r"x_embedder\.proj\.weight: gives shape"):
            load_torch(make_dit(), weights | {"x_embedder.proj.weight": other})
    unet = Reference("edm").weights()
    name = "model.enc.8x8_down.conv0.resample_filter"
    with pytest.raises(ValueError, match=r"enc\.8x8_down\.conv0\.resample_filter: is another table"):
        load_torch(make_unet(), unet | {name: 2 * unet[name]})


def test_frequencies_of_ncsnpp_are_loaded() -> None:
    network = make_unet(embedding_type="fourier")
    weights = Reference("edm").weights()
    drawn = np.linspace(-20, 20, 16).astype(np.float32)
    load_torch(network, weights | {"model.map_noise.freqs": drawn})
    np.testing.assert_allclose(network.frequencies, drawn)
    with pytest.raises(ValueError, match=r"map_noise\.freqs: has shape \(3,\), the network has \(16,\)"):
        load_torch(network, weights | {"model.map_noise.freqs": drawn[:3]})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (np.zeros(48, int), "is of dtype int64"),
        (np.full(48, "a"), "is of dtype <U1"),
        (np.full(48, None), "is of dtype object"),
        (np.full(48, np.inf, np.float32), "holds NaN or infinity"),
    ],
)
def test_only_finite_floats_are_weights(other: np.ndarray, message: str) -> None:
    """And a network that refuses them is as it was."""
    network, weights = make_dit(), Reference("dit").weights()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(network)))
    with pytest.raises(ValueError, match=rf"t_embedder\.mlp\.0\.bias: {message}"):
        load_torch(network, weights | {"t_embedder.mlp.0.bias": other})
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(network)), before)


def test_half_precision_is_loaded() -> None:
    """Its tables are rounded as its weights are."""
    network, weights = make_dit(), Reference("dit").weights()
    load_torch(network, {name: x.astype(jnp.bfloat16) for name, x in weights.items()})
    expected = make_dit()
    load_torch(expected, weights)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8), *(nnx.state(n) for n in (network, expected))
    )


def test_only_the_networks_own_filters_are_taken() -> None:
    weights = Reference("edm").weights()
    name = "model.enc.8x8_down.conv0.resample_filter"
    with pytest.raises(ValueError, match=r"left over: model\.enc\.4x4_down\.conv0\.resample_filter"):
        load_torch(make_unet(), weights | {name.replace("8x8", "4x4"): weights[name]})
    del weights[name]
    with pytest.raises(ValueError, match=r"arrays missing: model\.enc\.8x8_down\.conv0\.resample_filter"):
        load_torch(make_unet(), weights)


def make_pixart() -> DiT:
    return DiT(8, 2, 4, 48, 2, 4, 0, text_width=24, shared_modulation=True, rngs=nnx.Rngs(0))


def test_pixart() -> None:
    """Output within 2e-5, loss within 1e-5, each parameter's gradient within 1e-4 of its norm."""
    reference, network = Reference("pixart"), make_pixart()
    load_torch(network, reference.weights())
    graph, params = split_network(network)
    condition = {"text": reference["text"], "text_mask": reference["text_mask"].astype(bool)}

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss_and_gradient(params: Any) -> tuple[jax.Array, jax.Array]:
        output = nnx.merge(graph, params)(reference["x_nchw"], reference["t"].astype(jnp.float32), condition)
        return jnp.mean(jnp.square(output - reference["target_nchw"])), output

    (loss, output), gradient = jax.jit(loss_and_gradient)(params)
    np.testing.assert_allclose(output, reference["output_nchw"], atol=2e-5)
    np.testing.assert_allclose(loss, reference["loss"], rtol=1e-5)
    expected = make_pixart()
    load_torch(expected, reference.gradients())
    jax.tree.map(
        lambda got, want: np.testing.assert_array_less(jnp.linalg.norm(got - want), 1e-4 * jnp.linalg.norm(want)),
        gradient,
        split_network(expected)[1],
    )


def test_a_text_without_shared_modulation_has_no_public_weights() -> None:
    network = DiT(8, 2, 4, 48, 2, 4, 0, text_width=24, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="text_width and shared_modulation"):
        load_torch(network, Reference("pixart").weights())
