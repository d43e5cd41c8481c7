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
    arrays = {"fc.weight": np.zeros((1008, 2048), np.float32), "fc.bias": np.zeros(1008, np.float32)}
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
    """Weights load from both kinds of file, and a grey image has the features of an image with three equal channels.

    Without the classifier the network has 21.8 million parameters.
    """
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
    parameters = nnx.state(inception.from_public(public_weights), nnx.Param)
    assert sum(x.size for x in jax.tree.leaves(parameters)) == 21_768_352


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
    with pytest.raises(UserError, match="other.npz: .*neither a classifier of --job=features nor the Inception"):
        features.load(tmp_path / "other.npz")
