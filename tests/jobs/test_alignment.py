"""If a test here fails, features are not those of the pictures trained on, or a run aligned with them is not whole."""

import json
import os
import pathlib
import shutil
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from data.lopsided import Lopsided, Strokes
from flax import nnx
from safetensors.numpy import save_file

from diffcurr import experiment as experiment_lib
from diffcurr.config import changed
from diffcurr.errors import UserError
from diffcurr.jobs import encode, train
from diffcurr.networks.convert import export_torch
from diffcurr.pretrained.dinov2 import DINOv2
from diffcurr.pretrained.picture_features import PatchesOfDINOv2
from diffcurr.reporting.writers import read_rows
from diffcurr.run import load_run

SETTINGS = {"codec": "lopsided", "sampling__clip": 0.0, "sampling__steps": 2, "network__patch_size": 2}
NUMBER = 20


pytestmark = pytest.mark.usefixtures("lopsided_parts")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of random weights in the published layout."""
    path = tmp_path_factory.mktemp("dinov2") / "model.safetensors"
    save_file(export_torch(DINOv2(28, 14, 64, 1, 1, rngs=nnx.Rngs(0))), path)
    return os.fspath(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, weights: str, lopsided_parts: None) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("encoded")
    assert encode.run(tiny.config(**encoding(weights)), "nowhere", out=folder) == 0
    return folder


def encoding(weights: str, **overrides: Any) -> dict[str, Any]:
    features = {"name": "dinov2", "file": weights, "patches": 2}
    dataset = {"name": "strokes", "number": NUMBER}
    return SETTINGS | {"dataset": dataset, "encode__shard": 8, "encode__features": features} | overrides


def training(folder: pathlib.Path, **overrides: Any) -> dict[str, Any]:
    own = {
        "dataset": {"name": "encoded", "data_dir": os.fspath(folder), "flip": True},
        "alignment": {"name": "repa", "block": 1, "hidden": 8, "until": 4},
        "log_every": 2,
        "checkpoint_every": 3,
        "sample_every": 0,
    }
    return SETTINGS | own | overrides


def test_features_are_those_of_the_picture_that_is_drawn(folder: pathlib.Path, weights: str) -> None:
    """Also where it is mirrored: the latent tells which of the two was drawn."""
    network, pictures, codec = PatchesOfDINOv2(file=weights, patches=2), Strokes(number=NUMBER), Lopsided()
    images = pictures.scaled(np.stack([pictures.open()[index]["image"] for index in range(NUMBER)]))
    known = []
    for views in (images, images[:, :, ::-1]):
        means, features = (one.encode_with(one.load(), jnp.asarray(views))[0] for one in (codec, network))
        known.append((np.asarray(means), np.asarray(features).reshape(NUMBER, 4, 64)))
    experiment = experiment_lib.from_config(tiny.config(**training(folder)))
    assert experiment.config.alignment.features == 64
    batches, turned = experiment.batches(experiment.dataset.opened()), []
    for number in range(3):
        batch = batches[number]
        assert batch.features.dtype == np.float16 and set(batch.condition) == {"label"}
        for x, features in zip(batch.x, batch.features, strict=True):
            distance = [np.abs(means - x).max(axis=(1, 2, 3)) for means, _ in known]
            mirrored = int(np.min(distance[1]) < np.min(distance[0]))
            nearest = int(np.argmin(distance[mirrored]))
            np.testing.assert_allclose(features, known[mirrored][1][nearest], rtol=2e-3, atol=2e-3)
            turned.append(mirrored)
    assert 0.2 < np.mean(turned) < 0.8


def test_a_killed_job_and_other_features(folder: pathlib.Path, weights: str, capsys: pytest.CaptureFixture) -> None:
    shard = folder / "features" / "shard-00001.array_record"
    before = shard.read_bytes()
    shard.unlink()
    encode.run(tiny.config(**encoding(weights)), "nowhere", out=folder)
    printed = capsys.readouterr().out
    assert "0 of them to be encoded by lopsided" in printed and "8 of them to be encoded by dinov2" in printed
    assert shard.read_bytes() == before and "--config.alignment=repa" in printed
    with pytest.raises(UserError, match=r"holds latents of something else: codec\.patches is 2 there and 3 now"):
        encode.run(tiny.config(**encoding(weights, encode__features__patches=3)), "nowhere", out=folder)


def test_a_run_resumes_bit_for_bit_and_draws(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    config = tiny.config(**training(folder, steps=6))
    assert train.run(config, tmp_path / "whole") == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "6")
    assert train.run(config, tmp_path / "killed") == 0
    ends = []
    for workdir in (tmp_path / "whole", tmp_path / "killed"):
        integrity = json.loads((workdir / "checkpoints" / "6" / "integrity" / "metadata").read_text())
        ends.append((integrity["state"], [(row["step"], row["loss"], row["alignment"]) for row in read_rows(workdir)]))
    assert ends[0] == ends[1] and [row[0] for row in ends[0][1]] == [2, 4, 6]
    assert all(-1 <= row[2] <= 1 for row in ends[0][1])
    (folder / "features").rename(folder / "away")  # drawing needs none, and training says so at once
    try:
        assert load_run(tmp_path / "whole").sample(2).shape == (2, 8, 8, 1)
        longer = training(folder, steps=8) | {"alignment__features": 64}
        with pytest.raises(UserError, match="has no features of the pictures: store them there by --job=encode"):
            train.run(tiny.config(**longer), tmp_path / "whole")
    finally:
        (folder / "away").rename(folder / "features")


def test_features_that_do_not_fit(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def refusal(**overrides: Any) -> str:
        with pytest.raises(UserError) as caught:
            experiment_lib.from_config(tiny.config(**training(folder, **overrides)))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    message = refusal(network__patch_size=1)
    assert "of 4 patches of a picture, and the network has 16 tokens" in message and "patches = 4" in message
    wide = training(folder)["alignment"] | {"features": 32}
    assert "features = 32: those stored are 64 wide" in refusal(alignment=wide)
    latents = tmp_path / "latents"
    latents.mkdir()
    for path in folder.glob("*.*"):
        (latents / path.name).write_bytes(path.read_bytes())
    assert "has no features of the pictures: store them there by --job=encode" in refusal(
        dataset__data_dir=str(latents)
    )
    assert "encode.features.file is missing" in missing_file(tmp_path)


def missing_file(out: pathlib.Path) -> str:
    with pytest.raises(UserError) as caught:
        encode.run(tiny.config(**encoding("")), "nowhere", out=out / "new")
    return str(caught.value)


def test_pixels_can_be_stored_beside_their_features(weights: str, tmp_path: pathlib.Path) -> None:
    """By the codec `identity`: they are then trained on as latents are."""
    encode.run(tiny.config(**encoding(weights, codec="identity")), "nowhere", out=tmp_path)
    config = tiny.config(**training(tmp_path, codec="identity", network__patch_size=4))
    experiment = experiment_lib.from_config(changed(config, {"dataset": {"flip": False}}))
    batch = experiment.batches(experiment.dataset.opened())[0]
    assert batch.x.shape == (16, 8, 8, 1) and batch.features.shape == (16, 4, 64)
    stored = np.stack([Strokes().open()[index]["image"] for index in range(NUMBER)])
    assert jnp.min(jnp.abs(Strokes().scaled(stored) - batch.x[0]).max(axis=(1, 2, 3))) < 1e-6
