"""If these fail, a perceptual loss looks through another network than VGG16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcurr.pretrained import vgg


def public_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {"classifier.0.weight": np.zeros((2, 2), np.float32)}
    for number, layer in vgg.abstract_params().items():
        height, width, inside, outside = layer["kernel"].shape
        shape = (outside, inside, height, width)
        found[f"features.{number}.weight"] = rng.normal(0, (2 / (9 * inside)) ** 0.5, shape).astype(np.float32)
        found[f"features.{number}.bias"] = rng.normal(0, 0.1, outside).astype(np.float32)
    return found


def test_features_are_those_of_the_public_network() -> None:
    """Of the first stage, against convolutions written out; the numbers are torchvision's."""
    arrays = public_arrays()
    params = vgg.from_arrays(arrays)
    assert list(params) == ["0", "2", "5", "7", "10", "12", "14", "17", "19", "21", "24", "26", "28"]
    images = np.random.default_rng(1).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    found = jax.jit(vgg.layers)(params, jnp.asarray(images))
    assert [x.shape[1:] for x in found] == [(16 // 2**i, 16 // 2**i, c) for i, (c, _) in enumerate(vgg.STAGES)]

    x = (images / 2 + 0.5 - np.array(vgg.MEAN)) / np.array(vgg.STD)
    for number in (0, 2):
        weight, padded = arrays[f"features.{number}.weight"], np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        taps = [
            np.einsum("bhwi,oi->bhwo", padded[:, row : row + 16, column : column + 16], weight[:, :, row, column])
            for row in range(3)
            for column in range(3)
        ]
        x = np.maximum(sum(taps) + arrays[f"features.{number}.bias"], 0)
    np.testing.assert_allclose(found[0], x, atol=1e-4)
    with pytest.raises(ValueError, match=r"arrays missing: features.28.bias"):
        vgg.from_arrays({name: array for name, array in arrays.items() if name != "features.28.bias"})
