"""The network of the Fréchet inception distance, with random weights.

`tests/reference/inception.npz` holds features [image, 2048] that an independent public PyTorch translation
(torch-fidelity 0.4.0, in float64) computes from the images and weights that `images` and `public_weights` make.
"""

import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx
from safetensors.numpy import save_file

from diffcurr.errors import UserError
from diffcurr.metrics import features
from diffcurr.pretrained import inception
from diffcurr.tensorflow_cpu import import_tensorflow

REFERENCE = pathlib.Path(__file__).parents[1] / "reference" / "inception.npz"
SHAPES = {"small": (2, 32, 32, 3), "large": (1, 320, 300, 3)}


def generator(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def images(name: str) -> np.ndarray:
    return generator(name).integers(0, 256, SHAPES[name]).astype(np.float32) / 127.5 - 1


@pytest.fixture(scope="module")
def public_weights() -> dict[str, np.ndarray]:
    """Random weights for every layer, under the public names, and the other arrays that the public file holds."""
    arrays = {"fc.weight": generator("fc").normal(0, 0.005, (1008, 2048)), "fc.bias": np.ones(1008)}
    network = nnx.eval_shape(lambda: inception.Inception(rngs=nnx.Rngs(0)))
    for name, conv in network.convs.items():
        height, width, inside, outside = conv.kernel.shape
        weight = f"{name}.conv.weight"
        arrays[weight] = generator(weight).normal(size=(outside, inside, height, width))
        arrays[weight] *= np.sqrt(2 / (inside * height * width))
        for part in inception.NORMALISATION:
            rng = generator(f"{name}.{part}")
            positive = part in ("bn.weight", "bn.running_var")
            arrays[f"{name}.{part}"] = rng.uniform(0.5, 1.5, outside) if positive else 0.1 * rng.normal(size=outside)
        arrays[f"{name}.bn.num_batches_tracked"] = np.asarray(0)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def test_features_are_the_public_networks(public_weights: dict[str, np.ndarray], tmp_path: pathlib.Path) -> None:
    """Weights load from both kinds of file, and a grey image has the features of an image with three equal channels."""
    save_file(public_weights, tmp_path / "inception.safetensors")
    np.savez(tmp_path / "inception.npz", **public_weights)
    network, other = (
        features.load(tmp_path / f"inception.{kind}")._replace(batch=2) for kind in ("safetensors", "npz")
    )
    assert network.name.startswith("Inception ") and network.width == 2048
    with np.load(REFERENCE) as reference:
        for name in SHAPES:
            expected = reference[name]
            assert expected.std() > 0.1
            found = network.extract(images(name))
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).mean())
    grey = images("small")[:1, :, :, :1]
    np.testing.assert_allclose(other.extract(grey), network.extract(np.repeat(grey, 3, axis=-1)), rtol=1e-4, atol=1e-4)


def test_features_of_several_kinds(public_weights: dict[str, np.ndarray], tmp_path: pathlib.Path) -> None:
    """Side by side, each as the network gives it; samples become picture files as the pipeline says."""
    save_file(public_weights, tmp_path / "inception.safetensors")
    found = features.load(tmp_path / "inception.safetensors", ("pool", "spatial", "probabilities"), "adm")
    assert found.name.endswith(", adm") and found.width == 2048 + 2023 + 1008
    pictures = images("small")
    shown = found.shown(pictures * np.float32(0.999), on_grid=lambda x: x)
    levels = (shown + 1) * 127.5
    np.testing.assert_allclose(levels, np.floor((pictures * np.float32(0.999) + 1) * np.float32(127.5)), atol=1e-4)
    looked = found._replace(batch=2).look(shown)
    network = inception.from_public(public_weights)
    outputs = jax.jit(network.outputs)(jnp.asarray(shown))
    for kind, columns in found.kinds.items():
        np.testing.assert_allclose(looked[:, columns], getattr(outputs, kind), rtol=1e-3, atol=1e-5)
    spoilt = np.where(np.arange(2)[:, None, None, None] == 1, np.nan, pictures).astype(np.float32)
    assert list(np.isnan(found.shown(spoilt, on_grid=lambda x: x)).all(axis=(1, 2, 3))) == [False, True]
    for wanted in ({"kinds": ("pool", "spatial")}, {"pipeline": "edm"}):
        with pytest.raises(UserError, match=r"(spatial|'edm'): needs the Inception network .*, which this is not"):
            features.load("digits", **wanted)
    assert "classes" not in found.kinds, "its classes are not those of the data"


def test_outputs_are_those_of_adms_evaluator(public_weights: dict[str, np.ndarray]) -> None:
    """Spatial features are the first channels of Mixed_6d's 1x1 convolution, normalised, after the ReLU.

    They are computed here from what the block is given, under the public names.
    """
    network, shown = inception.from_public(public_weights), jnp.asarray(images("small"))
    found = jax.jit(network.outputs)(shown)
    assert found._fields == ("pool", "spatial", "probabilities")
    with np.load(REFERENCE) as reference:
        expected = reference["small"]
        np.testing.assert_allclose(found.pool, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).mean())

    def given(images: jax.Array) -> jax.Array:
        x = network._apply("", inception.STEM, inception.enlarge(images))
        for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c"):
            branches = inception.BLOCKS[block]
            x = jnp.concatenate([network._apply(f"{block}.", branch, x) for branch in branches], axis=-1)
        return x

    layer = {name: array.astype(np.float64) for name, array in public_weights.items() if "Mixed_6d.branch1x1." in name}
    kernel, *parts = (layer[f"Mixed_6d.branch1x1.{part}"] for part in ("conv.weight", *inception.NORMALISATION))
    scale, shift, mean, variance = (part[:7] for part in parts)
    convolved = np.asarray(jax.jit(given)(shown), np.float64) @ kernel[:7, :, 0, 0].T
    expected = np.maximum((convolved - mean) / np.sqrt(variance + 1e-3) * scale + shift, 0)
    assert found.spatial.shape == (2, 2023) and 0.2 < np.mean(expected > 0) < 0.8
    np.testing.assert_allclose(found.spatial, expected.reshape(2, -1), rtol=1e-4, atol=1e-4 * expected.mean())
    logits = np.asarray(found.pool, np.float64) @ public_weights["fc.weight"].T.astype(np.float64)
    np.testing.assert_allclose(found.probabilities, scipy.special.softmax(logits, axis=1), rtol=1e-3, atol=1e-8)


def test_the_classifier_may_be_left_out(public_weights: dict[str, np.ndarray]) -> None:
    """Without it the network has 21.8 million parameters, and no probabilities."""
    network = inception.from_public({name: x for name, x in public_weights.items() if not name.startswith("fc.")})
    assert sum(x.size for x in jax.tree.leaves(nnx.state(network, nnx.Param))) == 21_768_352
    with pytest.raises(ValueError, match=r"fc\.weight: is not among the weights"):
        network.outputs(jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"fc\.weight: has shape \(1000, 2048\), in the network \(1008, 2048\)"):
        inception.from_public(public_weights | {"fc.weight": public_weights["fc.weight"][:1000]})


@pytest.mark.parametrize("side", [32, 64, 299, 320])
def test_images_are_enlarged_as_by_tensorflow(side: int) -> None:
    tf = import_tensorflow()
    pixels = generator(f"{side}").integers(0, 256, (2, side, side, 3)).astype(np.float32)
    resized = tf.compat.v1.image.resize_bilinear(pixels, (299, 299), align_corners=False, half_pixel_centers=False)
    expected = (resized.numpy() - 128) / 128
    np.testing.assert_allclose(inception.enlarge(jnp.asarray(pixels / 127.5 - 1)), expected, atol=1e-5)


def test_rejects(public_weights: dict[str, np.ndarray], tmp_path: pathlib.Path) -> None:
    lacks = dict(public_weights)
    del lacks["Mixed_6c.branch1x1.bn.bias"]
    np.savez(tmp_path / "lacks.npz", **lacks)
    with pytest.raises(UserError, match="lacks.npz: arrays missing: Mixed_6c.branch1x1.bn.bias"):
        features.load(tmp_path / "lacks.npz")
    with pytest.raises(ValueError, match="missing: none; left over: AuxLogits.fc.weight"):
        inception.from_public(public_weights | {"AuxLogits.fc.weight": np.zeros(2)})
    name = "Mixed_7a.branch3x3_1.conv.weight"
    with pytest.raises(ValueError, match=f"{name}: has shape"):
        inception.from_public(public_weights | {name: public_weights[name][:, :-1]})
    name = "Mixed_7a.branch3x3_1.bn.running_var"
    with pytest.raises(ValueError, match=f"{name}: has shape"):
        inception.from_public(public_weights | {name: public_weights[name][:1]})
    with pytest.raises(ValueError, match=f"{name}: holds -.*: a variance is not negative"):
        inception.from_public(public_weights | {name: -public_weights[name]})
    (tmp_path / "pickled.pth").write_bytes(b"\x80\x02")
    with pytest.raises(UserError, match="pickled.pth: .*safetensors or npz"):
        features.load(tmp_path / "pickled.pth")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(UserError, match="other.npz: .*no classifier of --job=features, and neither the Inception"):
        features.load(tmp_path / "other.npz")
