"""If these fail, a figure that names a public evaluation was computed in another way.

Each way is followed on the same random pictures by code of another kind: loops over pixels, Pillow, SciPy.
"""

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import scipy.linalg

from diffcurr.metrics import frechet
from diffcurr.metrics.pipelines import PIPELINES, from_pixels
from diffcurr.pretrained import inception

IMAGES = np.random.default_rng(0).uniform(-1.2, 1.2, (3, 21, 21, 3)).astype(np.float32)


def level(name: str, x: float) -> int:
    """One pixel, in float64."""
    pixel = {"edm": 127.5 * x + 128, "adm": 127.5 * (x + 1)}.get(name, 127.5 * (x + 1) + 0.5)
    return int(min(max(pixel, 0), 255))


@pytest.mark.parametrize("name", PIPELINES)
def test_levels(name: str) -> None:
    found = PIPELINES[name].to_pixels(IMAGES.astype(np.float64))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.vectorize(lambda x: level(name, x))(IMAGES.astype(np.float64)))
    np.testing.assert_array_equal(PIPELINES[name].shown(IMAGES), from_pixels(PIPELINES[name].to_pixels(IMAGES)))
    grey = PIPELINES[name].to_pixels(IMAGES[..., :1])
    np.testing.assert_array_equal(grey, np.repeat(PIPELINES[name].to_pixels(IMAGES)[..., :1], 3, axis=-1))


@pytest.mark.parametrize("name", ["nearest", "edm", "clean"])
def test_pictures_keep_their_levels(name: str) -> None:
    """Those of a data set come back as they are stored."""
    stored = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (1, 256, 1, 3))
    np.testing.assert_array_equal(PIPELINES[name].to_pixels(from_pixels(stored)), stored)


def test_float32_is_rounded_twice() -> None:
    """As by PyTorch, which computes in the precision of the images: 128.9999999 is no number of float32."""
    x = np.nextafter(np.float32(1 / 127.5), np.float32(0)).reshape(1, 1, 1, 1)
    assert PIPELINES["edm"].to_pixels(x).max() == 129 and PIPELINES["edm"].to_pixels(x.astype(np.float64)).max() == 128


def test_rejects() -> None:
    with pytest.raises(ValueError, match="images of 4 channels: Inception looks at grey or coloured ones"):
        PIPELINES["edm"].to_pixels(np.zeros((1, 2, 2, 4), np.float32))
    with pytest.raises(ValueError, match="NaN or infinite"):
        PIPELINES["edm"].to_pixels(np.full((1, 2, 2, 3), np.nan, np.float32))
    with pytest.raises(ValueError, match="resizing = 'lanczos': must be one of tensorflow, pillow"):
        inception.enlarge(jnp.zeros((1, 2, 2, 3)), "lanczos")


def bilinear(picture: np.ndarray) -> np.ndarray:
    """TensorFlow 1's without aligned corners, by its definition: output i lies at i side / 299."""
    side, found = len(picture), np.zeros((299, 299, 3))
    for i in range(299):
        for j in range(299):
            y, x = i * side / 299, j * side / 299
            top, left = int(y), int(x)
            below, right = min(top + 1, side - 1), min(left + 1, side - 1)
            upper = picture[top, left] * (1 - x + left) + picture[top, right] * (x - left)
            lower = picture[below, left] * (1 - x + left) + picture[below, right] * (x - left)
            found[i, j] = upper * (1 - y + top) + lower * (y - top)
    return found


def pillow(picture: np.ndarray) -> np.ndarray:
    """clean-fid's: each channel as floats."""
    channels = [PIL.Image.fromarray(channel).resize((299, 299), PIL.Image.Resampling.BICUBIC) for channel in picture.T]
    return np.clip(np.stack([np.asarray(channel).T for channel in channels], axis=-1), 0, 255)


@pytest.mark.parametrize("name", PIPELINES)
def test_what_inception_is_shown(name: str) -> None:
    pipeline, public = PIPELINES[name], pillow if name == "clean" else bilinear
    found = inception.enlarge(jnp.asarray(pipeline.shown(IMAGES[:1])), pipeline.resizing)
    expected = public(pipeline.to_pixels(IMAGES)[0].astype(np.float32))
    np.testing.assert_allclose(np.asarray(found[0]) * 128 + 128, expected, atol=1e-2)


def test_pillow_makes_smaller_too() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (400, 400, 3)).astype(np.float32)
    found = inception.enlarge(jnp.asarray(picture[None] / np.float32(127.5) - 1), "pillow")
    np.testing.assert_allclose(np.asarray(found[0]) * 128 + 128, pillow(picture), atol=1e-2)


def test_ways_differ() -> None:
    """By a distance that is no rounding error, in the simplest of features: the means of rows, columns and channels."""

    def statistics(name: str) -> tuple[np.ndarray, np.ndarray, frechet.Statistics]:
        images = np.random.default_rng(2).uniform(-1, 1, (40, 8, 8, 3)).astype(np.float32)
        shown = np.asarray(inception.enlarge(jnp.asarray(PIPELINES[name].shown(images)), PIPELINES[name].resizing))
        features = np.concatenate([shown.mean(axis=(1, 2)), shown[:, ::60].mean(axis=(2, 3))], axis=1)
        return features.mean(axis=0), np.cov(features.T), frechet.statistics(features)

    for name in ("adm", "clean"):
        mean_a, cov_a, a = statistics("edm")
        mean_b, cov_b, b = statistics(name)
        root = np.real(scipy.linalg.sqrtm(cov_a @ cov_b))
        expected = np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b - 2 * root)
        assert expected > 1e-6 and frechet.distance(a, b) == pytest.approx(expected, rel=1e-3)
