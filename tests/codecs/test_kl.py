"""Weights of Stable Diffusion's autoencoder would make other latents, and other pictures, than those they are for."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import Array
from reference_files import Reference
from safetensors.numpy import load_file, save_file

from diffcurr import experiment, parts
from diffcurr.codecs import CODECS, KL, kl_blocks, kl_weights
from diffcurr.codecs.kl import KLAutoencoder, params_of
from diffcurr.config import load
from diffcurr.errors import UserError
from diffcurr.networks.convert import load_torch

assert experiment  # it fills in the tables
REFERENCE = Reference("kl_autoencoder")
TINY: dict[str, Any] = dict(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def abstract(*sizes: Any, **settings: Any) -> KLAutoencoder:
    return nnx.eval_shape(lambda: KLAutoencoder(*sizes, **settings, rngs=nnx.Rngs(0)))


def make(seed: int = 0, **settings: Any) -> KLAutoencoder:
    """A tiny network with random parameters from NumPy, which compiles nothing."""
    network, rng = abstract(**(TINY | settings)), np.random.default_rng(seed)

    def draw(x: jax.ShapeDtypeStruct) -> Array:
        spread = 1 / np.sqrt(np.prod(x.shape[:-1])) if len(x.shape) > 1 else 0.1
        return jnp.asarray(rng.normal(1.0 if len(x.shape) == 1 else 0.0, spread, x.shape), jnp.float32)

    nnx.update(network, jax.tree.map(draw, params_of(network)))
    return network


def split(network: KLAutoencoder) -> tuple[Any, Any]:
    return nnx.split(network, nnx.Param)[0], params_of(network)


INPUTS = (
    np.random.default_rng(0).uniform(-1, 1, (2, 8, 12, 3)).astype(np.float32),
    np.random.default_rng(1).normal(size=(2, 4, 6, 4)).astype(np.float32),
)
"""Pictures and latents of a tiny network."""


@functools.partial(jax.jit, static_argnums=0)
def both_ways(graph: Any, params: Any, images: Array, latents: Array) -> tuple[Array, ...]:
    """Mean and standard deviation of the images' latents, and decoded latents."""
    network = nnx.merge(graph, params)
    return *network.encode(images), network.decode(latents)


def loaded(**settings: Any) -> KLAutoencoder:
    """The network of the reference."""
    network = abstract(3, (16, 32), 1, 4, 8, True, **settings)
    load_torch(network, REFERENCE.weights())
    return network


def old_names(arrays: dict[str, np.ndarray], convolutions: bool) -> dict[str, np.ndarray]:
    """Weights as older files name the attention's layers."""
    found = {}
    for name, array in arrays.items():
        old = name
        for new, layer in OLD.items():
            old = old.replace(f".attentions.0.{new}.", f".attentions.0.{layer}.")
        found[old] = array[..., None, None] if convolutions and old != name and array.ndim == 2 else array
    assert found.keys() != arrays.keys()
    return found


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    """Weights for `KL(**TINY)`, random."""
    path = tmp_path / "vae.safetensors"
    path.write_bytes(kl_weights.to_bytes(params_of(make())))
    return path


def test_parity() -> None:
    """Moments and reconstruction within 1e-4, the loss within 1e-5, each gradient within 1e-4 of its norm."""
    graph, params = split(loaded())
    x = REFERENCE["x_nchw"]

    def loss_and_outputs(params: Any) -> tuple[Array, tuple[Array, ...]]:
        network = nnx.merge(graph, params)
        mean, std = network.encode(x)
        reconstruction = network.decode(mean)
        kl = 0.5 * jnp.sum(jnp.square(mean) + jnp.square(std) - 1 - 2 * jnp.log(std), axis=(1, 2, 3))
        loss = jnp.mean(jnp.square(reconstruction - x)) + 1e-3 * jnp.mean(kl)
        return loss, (mean, 2 * jnp.log(std), reconstruction)

    (loss, outputs), gradient = jax.jit(jax.value_and_grad(loss_and_outputs, has_aux=True))(params)
    for name, output in zip(("mean", "logvar", "reconstruction"), outputs, strict=True):
        np.testing.assert_allclose(output, REFERENCE[f"{name}_nchw"], atol=1e-4, err_msg=name)
    np.testing.assert_allclose(loss, REFERENCE["loss"], atol=1e-5)
    found, expected = kl_weights.public_arrays(gradient), REFERENCE.gradients()
    assert found.keys() == expected.keys()
    for name, recorded in expected.items():
        # A key's bias changes no attention: its gradient is 0 but for rounding.
        tolerance = 1e-4 * max(np.linalg.norm(recorded), 1e-3)
        assert np.linalg.norm(found[name] - recorded) < tolerance, name


def test_the_sizes_of_stable_diffusion() -> None:
    """The defaults."""
    params = KL().abstract_params()
    assert sum(x.size for x in jax.tree.leaves(params)) == 83_653_863
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    assert KL().latent_shape((256, 256, 3)) == (32, 32, 4)


@pytest.mark.parametrize("convolutions", [False, True])
def test_older_names_of_the_attention(convolutions: bool) -> None:
    network = abstract(3, (16, 32), 1, 4, 8, True)
    load_torch(network, old_names(REFERENCE.weights(), convolutions))
    jax.tree.map(np.testing.assert_array_equal, params_of(network), params_of(loaded()))


def test_three_levels_sixteen_channels_no_quant_convs() -> None:
    settings: dict[str, Any] = dict(
        block_out_channels=(8, 8, 16), layers_per_block=2, latent_channels=16, use_quant_conv=False
    )
    network = make(**settings)
    arrays = kl_weights.public_arrays(params_of(network))
    assert not [name for name in arrays if "quant" in name]
    assert arrays["encoder.conv_out.weight"].shape == (32, 16, 3, 3)
    assert arrays["decoder.up_blocks.1.resnets.2.conv1.weight"].shape == (8, 8, 3, 3)
    assert arrays["decoder.up_blocks.1.resnets.0.conv_shortcut.weight"].shape == (8, 16, 1, 1)
    assert "decoder.up_blocks.2.upsamplers.0.conv.weight" not in arrays
    other = abstract(**(TINY | settings))
    load_torch(other, arrays)
    jax.tree.map(np.testing.assert_array_equal, params_of(network), params_of(other))
    mean, std = nnx.eval_shape(lambda network: network.encode(jnp.zeros((1, 16, 8, 3))), network)
    assert mean.shape == std.shape == (1, 4, 2, 16)
    assert nnx.eval_shape(lambda network: network.decode(jnp.zeros(mean.shape)), network).shape == (1, 16, 8, 3)


def test_written_weights_are_those_that_were_read(tmp_path: pathlib.Path) -> None:
    """Bit for bit, under the same names and in the same layout."""
    path = tmp_path / "vae.safetensors"
    path.write_bytes(kl_weights.to_bytes(params_of(loaded()), {"made by": "a test"}))
    written, weights = load_file(path), REFERENCE.weights()
    assert written.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)


def test_the_same_weights_in_another_network_are_refused() -> None:
    weights = REFERENCE.weights()
    with pytest.raises(ValueError, match=r"missing: none; left over: post_quant_conv\.bias, .*quant_conv\.weight: "):
        load_torch(abstract(3, (16, 32), 1, 4, 8, False), weights)
    with pytest.raises(
        ValueError, match=r"missing: decoder\.up_blocks\.0\.resnets\.2\.conv1\.bias, .*more; left over: none"
    ):
        load_torch(abstract(3, (16, 32), 2, 4, 8, True), weights)
    with pytest.raises(ValueError, match=r"decoder\.conv_in\.weight: gives shape"):
        load_torch(abstract(3, (16, 32), 1, 16, 8, True), weights)
    both = weights | {"encoder.mid_block.attentions.0.query.bias": weights["encoder.mid_block.attentions.0.to_q.bias"]}
    with pytest.raises(ValueError, match=r"left over: encoder\.mid_block\.attentions\.0\.query\.bias"):
        load_torch(loaded(), both)


def test_bfloat16_is_close() -> None:
    """Parameters stay float32, and so do moments and pictures."""
    x, outputs = REFERENCE["x_nchw"], {}
    for dtype in ("float32", "bfloat16"):
        graph, params = split(loaded(dtype=dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
        outputs[dtype] = both_ways(graph, params, x, REFERENCE["mean_nchw"])
    for found, expected in zip(outputs["bfloat16"], outputs["float32"], strict=True):
        assert found.dtype == np.float32
        error = float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))
        assert 0 < error < 0.02


def test_statistics_of_bfloat16_are_those_of_float32() -> None:
    """Means of bfloat16 would lose small differences from a large value."""
    norm = kl_blocks.Maker(jnp.dtype("bfloat16"), 4, False, nnx.Rngs(0)).norm(16)
    x = jnp.asarray(100.0 + np.random.default_rng(0).integers(-1, 2, (1, 8, 8, 16)), jnp.bfloat16)
    y = np.asarray(norm(x), np.float32)
    assert norm(x).dtype == jnp.bfloat16
    assert abs(y.mean()) < 0.01 and abs(y.std() - 1) < 0.01


def test_remat_computes_again_and_changes_no_gradient() -> None:
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, 4, 4, 3)), jnp.float32)

    def gradient(remat: bool) -> tuple[Any, str]:
        graph, params = split(make(block_out_channels=(8,), remat=remat))

        def loss(params: Any) -> Array:
            network = nnx.merge(graph, params)
            mean, std = network.encode(x)
            return jnp.mean(jnp.square(network.decode(mean + std)))

        traced = jax.jit(jax.grad(loss)).trace(params)
        return traced.lower().compile()(params), str(traced.jaxpr)

    (plain, plain_program), (rematted, program) = gradient(False), gradient(True)
    # Recomputation shows as more sigmoids (of SiLU) in the program than forward and derivative need.
    assert program.count("logistic") > plain_program.count("logistic")
    assert "remat" not in plain_program and program.count("remat") >= 9
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, rematted)


def test_log_variances_are_clipped() -> None:
    network = make()
    network.quant_conv.bias[...] = jnp.array([0.0] * 4 + [100.0, -100.0, 0.0, 0.0])
    _, std, _ = both_ways(*split(network), *INPUTS)
    np.testing.assert_allclose(std[..., 0], np.exp(10.0), rtol=1e-5)
    np.testing.assert_allclose(std[..., 1], np.exp(-15.0), rtol=1e-5)


################################################################## the codec


def test_the_codec_is_jittable_and_compiles_once(file: pathlib.Path, compilations: Any) -> None:
    codec = parts.build("codec", {"name": "kl", "weights": str(file), **TINY, "block_out_channels": [8, 16]})
    assert codec == KL(weights=str(file), **TINY) and CODECS["kl"] is KL and hash(codec)
    with jax.transfer_guard("disallow"):  # as in training
        params = codec.load()
    assert {type(leaf) for leaf in jax.tree.leaves(params)} == {np.ndarray}
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), params)
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), codec.abstract_params())
    images = INPUTS[0]
    encode, decode = jax.jit(codec.encode_with), jax.jit(codec.decode_with)
    mean, std = encode(params, images)
    assert mean.shape == std.shape == (2, *codec.latent_shape((8, 12, 3))) == (2, 4, 6, 4)
    assert decode(params, mean).shape == images.shape
    before = compilations()
    decode(params, encode(params, images + 0.5)[0])
    assert compilations() == before
    expected, spread, _ = both_ways(*split(make()), *INPUTS)
    np.testing.assert_allclose(mean, expected * 0.18215, atol=1e-5)
    np.testing.assert_allclose(std, spread * 0.18215, atol=1e-5)


def test_latents_are_normalised_by_one_formula_and_back(file: pathlib.Path) -> None:
    mean, std = (0.1, -0.2, 0.3, 0.0), (1.0, 2.0, 0.5, 4.0)
    codec = KL(weights=str(file), scale=0.5, shift=0.25, mean=mean, std=std, **TINY)
    params, (images, z) = codec.load(), INPUTS
    z_mean, z_std, decoded = both_ways(*split(make()), images, z)

    def normalised(z: Any) -> Any:
        return (z - 0.25 - np.array(mean, np.float32)) / np.array(std, np.float32) * np.float32(0.5)

    found_mean, found_std = jax.jit(codec.encode_with)(params, images)
    np.testing.assert_allclose(found_mean, normalised(z_mean), atol=1e-5)
    np.testing.assert_allclose(found_std, z_std / np.array(std) * 0.5, rtol=1e-4)
    np.testing.assert_allclose(jax.jit(codec.decode_with)(params, normalised(z)), decoded, atol=1e-4)


def test_identity_tells_other_weights_and_scales_apart(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    codec = KL(weights=str(file), std=(1, 2, 3, 4), **TINY)
    found = codec.identity()
    assert found | {"weights": ""} == {
        "name": "kl",
        "weights": "",
        "scale": 0.18215,
        "shift": 0.0,
        "mean": [],
        "std": [1.0, 2.0, 3.0, 4.0],
    }
    assert len(found["weights"]) == 16
    copy, other = tmp_path / "copy.safetensors", tmp_path / "other.safetensors"
    copy.write_bytes(file.read_bytes())
    other.write_bytes(kl_weights.to_bytes(params_of(make(seed=1))))
    assert KL(weights=str(copy), std=(1, 2, 3, 4), **TINY).identity() == found
    assert KL(weights=str(other), std=(1, 2, 3, 4), **TINY).identity() != found


def test_the_shipped_autoencoder_of_emoji() -> None:
    """A picture such as an emoji comes back; its latents have about the scale that the config says."""
    codec = parts.build("codec", load("emoji32_text").codec.to_dict())
    assert codec.weights == "emoji"
    y, x = np.mgrid[:32, :32] - 15.5
    disc = (x**2 + y**2 < 14**2)[..., None]
    images = np.stack([np.where(disc, colour, 1.0) for colour in ((1, 0.6, -0.6), (-0.7, 0.2, 0.9))]).astype(np.float32)
    params = codec.load()
    mean, _ = jax.jit(codec.encode_with)(params, images)
    error = np.mean((jax.jit(codec.decode_with)(params, mean) - images) ** 2)
    assert mean.shape == (2, 8, 8, 4) and 10 * np.log10(4 / error) > 25
    assert 0.5 < np.std(mean) < 2


def test_shapes_need_no_file() -> None:
    """As `--job=plan` asks for them."""
    codec = KL(**TINY)
    latent = jax.ShapeDtypeStruct((1, *codec.latent_shape((8, 8, 3))), jnp.float32)
    assert jax.eval_shape(codec.decode_with, codec.abstract_params(), latent).shape == (1, 8, 8, 3)
    for asked in (codec.load, codec.identity):
        with pytest.raises(UserError, match=r"^codec\.weights is empty: give the path of a safetensors file"):
            asked()


def test_a_file_that_cannot_be_used_is_named_in_one_line(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def refused(path: pathlib.Path, words: str, **settings: Any) -> None:
        with pytest.raises(UserError, match=words) as caught:
            KL(weights=str(path), **(TINY | settings)).load()
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    refused(tmp_path / "none.safetensors", "is not a file: give a safetensors")
    refused(file, r"missing: none; left over: .*quant_conv", use_quant_conv=False)
    refused(file, r"missing: .*; left over: none", layers_per_block=2)
    spoilt = tmp_path / "spoilt.safetensors"
    arrays = load_file(file)
    arrays["encoder.conv_in.bias"][0] = np.nan
    save_file(arrays, spoilt)
    refused(spoilt, r"encoder\.conv_in\.bias: holds NaN")
    spoilt.write_bytes(b"not weights at all")
    refused(spoilt, "cannot be read")
    with pytest.raises(UserError, match=r"none\.safetensors: cannot be read"):
        KL(weights=str(tmp_path / "none.safetensors"), **TINY).identity()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm_num_groups": 3}, r"norm_num_groups = 3: must divide each of block_out_channels = \(8, 16\)"),
        ({"mean": (1.0, 2.0)}, r"mean = \(1\.0, 2\.0\): give one number for each of the 4 latent_channels"),
        ({"std": (1.0,) * 5}, r"std = .*: give one number for each"),
        ({"std": (1.0, 0.0, 1.0, 1.0)}, r"std = .*: must be a sequence, each a number above 0"),
        ({"scale": 0.0}, r"scale = 0\.0: must be a number above 0"),
        ({"dtype": "float16"}, r"dtype = 'float16': choose one of float32, bfloat16"),
        ({"tile": 9}, r"tile = 9: must be a multiple of 2 pixels"),
        ({"tile": 6}, r"tile = 6: must be .* at least 8"),
        ({"block_out_channels": ()}, r"block_out_channels = \(\): must be a sequence of 1 to 16"),
    ],
)
def test_rejects(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KL(**(TINY | settings))


def test_pictures_that_cannot_be_encoded() -> None:
    with pytest.raises(ValueError, match=r"in_channels = 3: grey pictures need an autoencoder with in_channels = 1"):
        KL(**TINY).latent_shape((8, 8, 1))
    with pytest.raises(ValueError, match=r"in_channels = 1: pictures of 3 channels need .*in_channels = 3"):
        KL(in_channels=1, **TINY).latent_shape((8, 8, 3))
    with pytest.raises(
        ValueError, match=r"pictures of 28x30: .* divides sides by 4: give pictures whose sides are mult"
    ):
        KL(**(TINY | {"block_out_channels": (8, 8, 8)})).latent_shape((28, 30, 3))
    assert KL(in_channels=1, **TINY).latent_shape((28, 30, 1)) == (14, 15, 4)
