"""If these fail, what is exported is not what was trained, or has names under which nobody else reads it."""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference_files import Reference

from diffcurr import weights
from diffcurr.codecs.kl import KLAutoencoder
from diffcurr.networks import DiT, SongUNet, diffusers_config
from diffcurr.networks.convert import export_torch, load_torch
from diffcurr.weights import Layout, Source


def dit(**settings: Any) -> DiT:
    text = settings.get("text_width", 0)
    told = dict(num_classes=0 if text else 10, class_dropout_prob=0.0, shared_modulation=text > 0)
    return outline(lambda: DiT(8, 2, 4, 48, 2, 4, **(told | settings), rngs=nnx.Rngs(0)))


def unet(**settings: Any) -> SongUNet:
    sizes = dict(model_channels=32, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(8,))
    return outline(lambda: SongUNet(16, 3, 3, **(sizes | settings), rngs=nnx.Rngs(0)))


def autoencoder() -> KLAutoencoder:
    return outline(lambda: KLAutoencoder(3, (16, 32), 1, 4, 8, True, rngs=nnx.Rngs(0)))


def outline(make: Callable[[], Any]) -> Any:
    """A network with shapes for arrays: nothing is compiled."""
    return nnx.eval_shape(make)


def filled(network: Any) -> Any:
    """With random parameters."""
    rng = np.random.default_rng(0)
    state = nnx.state(network, nnx.Param)
    nnx.update(network, jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), state))
    return network


REFERENCES: dict[str, Callable[[], Any]] = {
    "dit": dit,
    "sit": dit,
    "edm": unet,
    "pixart": lambda: dit(text_width=24),
    "kl_autoencoder": autoencoder,
}
VARIANTS: dict[str, tuple[Callable[[], Any], Any]] = {
    "diffusers' dit": (dit, "diffusers"),
    "sit without the half that it ignores": (lambda: dit(learn_sigma=False), "public"),
    "dit without classes": (lambda: dit(num_classes=0), "public"),
    "ncsn++": (
        lambda: unet(
            model_channels=8,
            channel_mult=(1, 1),
            embedding_type="fourier",
            encoder_type="residual",
            resample_filter=(1, 3, 3, 1),
        ),
        "public",
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_a_public_network_comes_back_bit_for_bit(name: str) -> None:
    """With every array that it holds, tables of positions and filters too."""
    network, public = REFERENCES[name](), Reference(name).weights()
    load_torch(network, public)
    exported = export_torch(network)
    assert exported.keys() == public.keys()
    for key, array in public.items():
        assert (exported[key].dtype, exported[key].shape) == (array.dtype, array.shape), key
        np.testing.assert_array_equal(exported[key], array, key)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_exported_loads_again_bit_for_bit(name: str) -> None:
    make, format = VARIANTS[name]
    network, other = filled(make()), make()
    load_torch(other, export_torch(network, format))
    jax.tree.map(np.testing.assert_array_equal, *(nnx.state(n, nnx.Param) for n in (network, other)))
    if isinstance(network, SongUNet):
        np.testing.assert_array_equal(np.float32(network.frequencies), np.float32(other.frequencies))


def test_diffusers_repeats_the_embeddings_in_each_block() -> None:
    """And they must be the same, since ours has them once."""
    exported = export_torch(filled(dit()), "diffusers")
    names = [f"transformer_blocks.{block}.norm1.emb.class_embedder.embedding_table.weight" for block in range(2)]
    np.testing.assert_array_equal(exported[names[0]], exported[names[1]])
    with pytest.raises(ValueError, match=r"transformer_blocks\.1\.norm1\.emb.*: is another table"):
        load_torch(dit(), exported | {names[1]: exported[names[1]] + 1})


def test_a_name_is_used_once() -> None:
    sources = {("a",): Source(("x",), weights.same), ("b",): Source(("x",), weights.same)}
    with pytest.raises(ValueError, match="x: would be the name of two arrays"):
        weights.export({("a",): np.zeros(1), ("b",): np.zeros(1)}, Layout(sources))


def test_what_has_no_public_network() -> None:
    with pytest.raises(ValueError, match="text_width and shared_modulation"):
        export_torch(dit(text_width=24, shared_modulation=False))
    with pytest.raises(ValueError, match="Linear: says in no method torch_layout"):
        export_torch(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))


def test_diffusers_dit() -> None:
    """Weights, config and output of a tiny DiTTransformer2DModel of diffusers 0.42, with the original's frequencies.

    (`downscale_freq_shift = 0` in each block, which `diffusers_config.FREQUENCIES` asks for.)
    """
    reference = Reference("diffusers_dit")
    network = outline(lambda: DiT(8, 2, 4, 24, 2, 2, 10, rngs=nnx.Rngs(0)))
    public = reference.weights()
    load_torch(network, public)
    output = network(reference["x_nchw"], reference["t"], {"label": reference["y"]})
    np.testing.assert_allclose(output, reference["output_nchw"], atol=2e-5)
    exported = export_torch(network, "diffusers")
    assert exported.keys() == public.keys()
    for key, array in public.items():
        np.testing.assert_array_equal(exported[key], array, key)
    recorded, model = json.loads(reference.text("config")), diffusers_config.model(network)
    assert {key: recorded[key] for key in model.config} == model.config
    assert (model.pipeline, model.notes) == ("DiTPipeline", (diffusers_config.FREQUENCIES,))


def test_pixart_in_diffusers() -> None:
    model = diffusers_config.model(dit(text_width=24))
    assert model.pipeline == "PixArtAlphaPipeline" and model.others == ("tokenizer", "text_encoder")
    assert model.config["caption_channels"] == 24 and model.config["cross_attention_dim"] == 48


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: unet(model_channels=8), "diffusers has no SongUNet: give --format=public"),
        (lambda: dit(mlp_ratio=2.0), "mlp_ratio = 2: is always 4 in diffusers"),
        (lambda: dit(num_classes=0), "diffusers' DiT is told a class, and this network is told nothing"),
    ],
)
def test_what_diffusers_does_not_have(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diffusers_config.model(make())
