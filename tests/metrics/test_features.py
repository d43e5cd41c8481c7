"""If these fail, images are compared by features that were trained, stored or named wrongly."""

import pathlib

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffcurr.batch import Batch
from diffcurr.conditioning import Class
from diffcurr.config import outline
from diffcurr.data import datasets, pipeline
from diffcurr.errors import UserError
from diffcurr.jobs import features as job
from diffcurr.metrics import features, separation
from diffcurr.pretrained import classifier


def digits() -> Batch:
    dataset = datasets.Digits()
    source = dataset.open()
    return pipeline.load(source, dataset, Class(num_classes=10).of, len(source), seed=0)


def test_the_job(tmp_path: pathlib.Path) -> None:
    """Writes a classifier that sees digits it was not trained on, says how it was made, and is read back."""
    config = outline()
    config.features.epochs = 8
    assert job.run(config, tmp_path) == 0
    made = features.load(tmp_path / "features.safetensors")
    assert made.facts["trained_on"] == "1437 images, 8 epochs, seed 0"
    assert made.facts["test_accuracy"].endswith(" on 360 images") and float(made.facts["test_accuracy"][:6]) > 0.9
    assert made.name.startswith("digits classifier ")
    report = (tmp_path / "features.md").read_text()
    assert report.startswith(f"**{made.name}**: accuracy 0.9") and report.count("\n| ") == 5
    images = digits().x[:600]
    found = made.extract(images)
    assert found.shape == (600, classifier.WIDTH)
    np.testing.assert_allclose(found[513:515], made.extract(images[513:515]), rtol=1e-4, atol=1e-4)


def test_shipped_features_separate() -> None:
    """Two halves of the real digits are much closer than spoilt ones are to either."""
    shipped, data = features.load(features.SHIPPED / "digits.safetensors"), digits()
    found = separation.separation(shipped, data.x[:898], data.x[898:], data.condition["label"][898:])
    real = found.pop("real")
    assert len(found) == 3
    for worse in found.values():
        assert worse.frechet > 3 * real.frechet and worse.kernel > 3 * abs(real.kernel)


def test_name_is_of_the_weights(tmp_path: pathlib.Path) -> None:
    """Not of the file: the order of the facts in it is chance."""
    path = features.SHIPPED / "digits.safetensors"
    arrays, facts = load_file(path), features.load(path).facts
    save_file(arrays, tmp_path / "same.safetensors", facts | {"more": "facts"})
    assert features.load(tmp_path / "same.safetensors").name == features.load(path).name
    arrays["dense.bias"] = arrays["dense.bias"] + 1
    save_file(arrays, tmp_path / "other.safetensors", facts)
    assert features.load(tmp_path / "other.safetensors").name != features.load(path).name


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
