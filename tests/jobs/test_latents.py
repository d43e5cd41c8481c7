"""If this fails, latent diffusion is broken somewhere: an autoencoder, its latents, a run on them, samples."""

import json
import pathlib

import numpy as np
import pytest
import tiny
from PIL import Image
from safetensors.numpy import load_file, save_file

from diffcurr import experiment as experiment_lib
from diffcurr.errors import UserError
from diffcurr.jobs import encode, evaluate, sample, train

SETTINGS = {
    "steps": 4,
    "log_every": 2,
    "checkpoint_every": 0,
    "sample_every": 4,
    "sampling__samples": 6,
    "sampling__steps": 2,
    "sampling__clip": 0.0,
    "evaluation__samples": 140,
    "evaluation__metrics__frechet_distance__resamples": 5,
}


NO_CLASSES = {"conditioning": "none", "task": "autoencoder"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A workdir of an autoencoder, and the latents of the digits by it."""
    folder = tmp_path_factory.mktemp("latents")
    settings = {"codec": tiny.AUTOENCODER, "evaluate_every": 4, "evaluation__training_samples": 140}
    config = tiny.config(**SETTINGS | settings | NO_CLASSES)
    assert train.run(config, folder / "autoencoder") == 0
    codec = codec_of(folder)
    assert encode.run(tiny.config(**SETTINGS | {"codec": codec}), folder / "encoding", folder / "encoded") == 0
    return folder


def codec_of(folder: pathlib.Path) -> dict:
    return tiny.AUTOENCODER | {"weights": str(folder / "autoencoder" / "autoencoder.safetensors")}


def settings_of(folder: pathlib.Path) -> dict:
    return SETTINGS | {
        "codec": codec_of(folder),
        "dataset": {"name": "encoded", "data_dir": str(folder / "encoded"), "size": 0, "channels": 0},
    }


def test_an_autoencoder_is_looked_at_and_measured(folder: pathlib.Path) -> None:
    row = json.loads((folder / "autoencoder" / "evaluations.jsonl").read_text().splitlines()[-1])
    assert row["step"] == 4 and row["frechet_distance_examples"] == 140
    assert row["reconstruction_psnr"] == pytest.approx(10 * np.log10(4 / row["reconstruction_error"]))
    assert 0 < row["reconstruction_psnr"] < 20, "it has hardly been trained"
    experiment = experiment_lib.from_config(tiny.config(**SETTINGS | {"codec": tiny.AUTOENCODER} | NO_CLASSES))
    measured = experiment.task.evaluator(experiment, 5000)(experiment.init_state())
    assert measured["reconstruction_error"]["examples"] == 1797, "there are no more"
    assert 0.1 < measured["reconstruction_error"]["value"] < 2, "of pixels in [-1, 1]"
    logged = json.loads((folder / "autoencoder" / "metrics.jsonl").read_text().splitlines()[-1])
    assert logged["loss"] == pytest.approx(logged["reconstruction"] + 1e-6 * logged["divergence"], rel=1e-5)
    with Image.open(folder / "autoencoder" / "samples" / "00000004.png") as grid:
        assert grid.size == (8 * 66 + 2, 8 * 66 + 2)  # 32 pictures, each beside its reconstruction


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation__reference": "a.npz"}, "evaluation.reference = 'a.npz': reconstructions are compared with"),
        (
            {"evaluation__metrics": {"held_out_frechet_distance": {}}, "dataset__held_out": 0.2},
            "evaluation.metrics.held_out_frechet_distance: is for samples, not for reconstructions",
        ),
    ],
)
def test_what_is_not_measured_of_reconstructions(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        experiment_lib.from_config(tiny.config(**SETTINGS | {"codec": tiny.AUTOENCODER} | NO_CLASSES | changes))


def test_a_run_on_latents_is_seen_in_pixels(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Trained on stored latents; grids, samples and distances are decoded, and the evaluation says by what."""
    config = tiny.config(**settings_of(folder))
    assert train.run(config, tmp_path / "run") == 0
    with Image.open(tmp_path / "run" / "samples" / "00000004.png") as grid:
        assert grid.size == (10 * 66 + 2, 66 + 2)  # six digits of 8x8, enlarged, a column for each class
    assert sample.run(config, tmp_path / "run") == 0
    images = np.load(tmp_path / "run" / "samples.npz")["images"]
    assert images.shape == (6, 8, 8, 1)
    assert evaluate.run(config, tmp_path / "run") == 0
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["reference"]["decoded_by"]["name"] == "kl" and found["reference"]["examples"] == 1797
    assert found["frechet_distance"]["reference_examples"] == 1797

    pixels = tiny.config(**SETTINGS | {"codec": codec_of(folder), "sample_every": 0})
    assert train.run(pixels, tmp_path / "pixels") == 0  # encoded inside the step
    weights = tmp_path / "autoencoder.safetensors"
    weights.write_bytes(pathlib.Path(codec_of(folder)["weights"]).read_bytes())
    pixels = tiny.config(**SETTINGS | {"codec": codec_of(folder) | {"weights": str(weights)}, "sample_every": 0})
    assert train.run(pixels, tmp_path / "mine") == 0
    arrays = load_file(weights)
    save_file({name: array * np.float32(1.5) for name, array in arrays.items()}, weights)  # as a run that goes on does
    pixels.steps = 8
    with pytest.raises(UserError, match=r"trained on other data \(codec_weights: .*--allow_change=data"):
        train.run(pixels, tmp_path / "mine")
    with pytest.raises(UserError, match="trained with another codec_weights .* give the weights that it was"):
        sample.run(pixels, tmp_path / "mine")
    other = tiny.config(**SETTINGS | {"codec": codec_of(folder) | {"norm_num_groups": 2}, "sample_every": 0})
    with pytest.raises(UserError, match="they were trained with other settings .*'norm_num_groups': 4} there"):
        train.run(other, tmp_path / "other")  # no shape shows it
    weights.unlink()
    with pytest.raises(UserError, match="autoencoder.safetensors: cannot be read"):  # before anything is computed
        train.run(pixels, tmp_path / "another")
    with pytest.raises(UserError, match=r"codec: the latents in .* scale is 1.0 there and 2.0 here"):
        experiment_lib.from_config(tiny.config(**settings_of(folder) | {"codec": codec_of(folder) | {"scale": 2.0}}))
    with pytest.raises(UserError, match="clip = 1.0: latents have no limits; give 0"):
        experiment_lib.from_config(tiny.config(**settings_of(folder) | {"sampling__clip": 1.0}))
