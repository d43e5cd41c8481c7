import pathlib

import numpy as np
import pytest

from diffcurr.config import outline
from diffcurr.data import pipeline, sources
from diffcurr.errors import UserError
from diffcurr.jobs import features as job
from diffcurr.metrics import features, frechet

DIGITS = sources.DATASETS["digits"]


def digits() -> pipeline.Batch:
    source = sources.open_source(DIGITS)
    return pipeline.load(source, DIGITS, len(source), seed=0)


def test_the_job(tmp_path: pathlib.Path) -> None:
    """Writes a classifier that sees digits it was not trained on, says how it was made, and is read back."""
    config = outline()
    config.features.epochs = 8
    assert job.run(config, tmp_path) == 0
    made = features.load(tmp_path / "features.safetensors")
    assert made.facts["trained_on"] == "1437 images, 8 epochs, seed 0"
    assert made.facts["test_accuracy"].endswith(" on 360 images") and float(made.facts["test_accuracy"][:6]) > 0.9
    assert made.name.startswith("digits classifier ")
    images = digits()["image"][:600]
    found = made.extract(images)
    assert found.shape == (600, features.WIDTH)
    np.testing.assert_allclose(found[513:515], made.extract(images[513:515]), rtol=1e-4, atol=1e-4)


def test_shipped_features_separate() -> None:
    """Two halves of the real digits are much closer than blurred, noisy, or class-dropped ones are to either."""
    shipped = features.load(features.SHIPPED / "digits.safetensors")
    data, rng = digits(), np.random.default_rng(0)
    one, other = data["image"][:898], data["image"][898:]
    reference = frechet.statistics(shipped.extract(one))

    def distance(images: np.ndarray) -> float:
        return frechet.distance(reference, frechet.statistics(shipped.extract(images)))

    real = distance(other)
    blurred = (other + np.roll(other, 1, axis=1) + np.roll(other, 1, axis=2) + np.roll(other, (1, 1), axis=(1, 2))) / 4
    noisy = np.clip(other + 0.4 * rng.normal(size=other.shape), -1, 1)
    dropped = other[data["label"][898:] < 5]
    for worse in (blurred, noisy.astype(np.float32), dropped):
        assert distance(worse) > 3 * real


def test_rejects(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"none.safetensors: there are no such features \(shipped: .*digits"):
        features.load(tmp_path / "none.safetensors")
    shipped = features.load(features.SHIPPED / "digits.safetensors")
    with pytest.raises(ValueError, match=r"is for images of \(side, channels\) \(8, 1\), not \(28, 1\)"):
        shipped.extract(np.zeros((2, 28, 28, 1), np.float32))
    config = outline()
    config.dataset.name = "ffhq64"
    with pytest.raises(UserError, match="dataset.name = 'ffhq64': a classifier needs pictures with classes"):
        job.run(config, tmp_path)
