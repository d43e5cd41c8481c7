"""If these fail, images are compared by features that were trained, stored or named wrongly."""

import os
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
    with pytest.raises(
        UserError, match="features of the kind clip: needs a folder of CLIP's weights, which this is not"
    ):
        features.load("digits", {"pool", "clip"})
    config = outline()
    config.dataset.name = "ffhq64"
    with pytest.raises(UserError, match="dataset.name = 'ffhq64': a classifier needs pictures with classes"):
        job.run(config, tmp_path)


def test_pixels_and_features_that_are_not_finite() -> None:
    shipped, images = features.load("digits"), digits().x[:5]
    images[1, 2, 3, 0], images[3, 0, 0, 0] = np.nan, np.inf
    with pytest.raises(UserError, match="^2 of 5 images hold pixels that are NaN or infinite: .* earlier checkpoint"):
        shipped.extract(images)
    with pytest.raises(UserError, match="^digits classifier 8bf21403: the features of 5 of 5 images are NaN or inf"):
        shipped.extract(np.full((5, 8, 8, 1), 3e38, np.float32))
    with pytest.raises(ValueError, match=r"give \[n, height, width, channel\], at least one"):
        shipped.extract(images[:0])


def test_features_of_real_images_are_kept(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Used again where they are whole; what is not is said, computed again and replaced."""
    shipped, images = features.load("digits"), digits().x[:20]
    expected = shipped.extract(images)

    def found(cache: pathlib.Path, computed: bool) -> str:
        calls = []
        watched = shipped._replace(forward=lambda x: calls.append(len(x)) or shipped.forward(x))
        again = features.of_reference(watched, lambda: iter((images[:15], images[15:])), 20, cache=cache)
        np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-4, strict=True)
        assert bool(calls) == computed
        said = capsys.readouterr()
        assert said.out == ""
        return said.err

    assert found(tmp_path, computed=True) == ""
    (kept,) = tmp_path.iterdir()
    assert found(tmp_path, computed=False) == ""
    whole = kept.read_bytes()
    damage = f"WARNING: {kept}: is not what was written there; the features are computed again\n"
    for spoilt in (whole[:-2] + b"?" + whole[-1:], whole[:500] + b"?" + whole[501:], whole + b"?"):
        kept.write_bytes(spoilt)
        assert found(tmp_path, computed=True) == damage
        assert found(tmp_path, computed=False) == "", "it was replaced"
    np.save(kept, expected[:-1])
    assert found(tmp_path, computed=True) == damage
    for spoilt in (b"", whole[:1000], b"\x93NUMPY"):
        kept.write_bytes(spoilt)
        assert found(tmp_path, computed=True).startswith(f"WARNING: {kept}: cannot be read (")
    kept.unlink()
    os.mkfifo(kept)
    assert found(tmp_path, computed=True).startswith(f"WARNING: {kept}: is not a file")
    kept.unlink()
    kept.mkdir()
    said = found(tmp_path, computed=True)
    assert f"{kept}: is not a file" in said and "real images are not kept: " in said and said.count("\n") == 2
    assert os.listdir(tmp_path) == [kept.name], "nothing is left of what could not be written"


def test_what_is_not_finite_is_not_kept(tmp_path: pathlib.Path) -> None:
    shipped, images = features.load("digits"), digits().x[:20]
    spoilt = np.where(np.arange(20)[:, None, None, None] == 17, np.float32(np.nan), images)
    for _ in range(2):
        with pytest.raises(UserError, match="1 of 20 images hold pixels that are NaN or infinite"):
            features.of_reference(shipped, lambda: iter((spoilt[:15], spoilt[15:])), 20, cache=tmp_path)
        assert not list(tmp_path.iterdir())


def test_a_cache_is_not_needed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped, images = features.load("digits"), digits().x[:20]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    features.of_reference(shipped, lambda: iter((images,)), 20)
    assert len(list((tmp_path / "diffcurr").iterdir())) == 1 and capsys.readouterr().err == ""
    monkeypatch.setenv("XDG_CACHE_HOME", "not/from/the/root")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert str(features.cache_folder()) == str(tmp_path / "home" / ".cache" / "diffcurr")
    (tmp_path / "home").write_text("a file where a folder should be")
    for home in (str(tmp_path / "home"), "~", "/proc/none"):
        monkeypatch.setenv("HOME", home)
        features.of_reference(shipped, lambda: iter((images,)), 20)
        said = capsys.readouterr().err
        assert said.startswith("WARNING: features of the real images are not kept: ") and said.count("\n") == 1


def test_facts_of_a_file_are_checked(tmp_path: pathlib.Path) -> None:
    path = features.SHIPPED / "digits.safetensors"
    arrays, facts = load_file(path), features.load(path).facts
    for fact, value in (("dataset", ""), ("dataset", "a\nb"), ("shape", "[8, 1, 11]"), ("shape", "{")):
        save_file(arrays, tmp_path / "a.safetensors", facts | {fact: value})
        with pytest.raises(UserError, match=r"a.safetensors: (its fact|head.bias)") as error:
            features.load(tmp_path / "a.safetensors")
        assert "\n" not in str(error.value)
