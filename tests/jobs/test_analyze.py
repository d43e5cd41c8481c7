"""If a test here fails, the analyze job reports what it did not measure, or clusters do not follow from its curve."""

import json
import pathlib
import re
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import tiny
from etils import epath

from diffcurr.curriculum import clusters
from diffcurr.difficulty import curve
from diffcurr.errors import UserError
from diffcurr.jobs import analyze, sample, train
from diffcurr.reporting.progress import Line

SETTINGS: dict[str, Any] = dict(
    process__num_timesteps=60,
    steps=8,
    log_every=4,
    checkpoint_every=4,
    sample_every=0,
    sampling__steps=2,
    sampling__samples=10,
    curriculum__clustering={"name": "relative_entropy", "power": 0.5},
    analysis__images=300,
    analysis__samples=64,
    analysis__convergence__intervals=2,
    analysis__convergence__seeds=2,
    analysis__convergence__steps=4,
    analysis__convergence__evaluate_every=2,
    analysis__convergence__batch_size=8,
)


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("analyzed")
    assert analyze.run(tiny.config(**SETTINGS), workdir) == 0
    return workdir


def test_files(analyzed: pathlib.Path) -> None:
    arrays = np.load(analyzed / "relative_entropy.npz")
    assert arrays["u"].shape == (60,)
    for name in ("value", "standard_error", "upper_bound", "gaussian", "leave_one_out_value"):
        assert arrays[name].shape == (59,) and np.all(np.isfinite(arrays[name]))
    assert np.all(arrays["value"] <= arrays["upper_bound"] * (1 + 1e-5) + 4 * arrays["standard_error"])
    assert arrays["edges_log_SNR"].shape == (4,)
    losses = np.load(analyzed / "convergence.npz")
    assert losses["loss"].shape == (2, 2, 3) and losses["edges"].shape == (3,)
    for name in ("relative_entropy.png", "convergence.png"):
        assert matplotlib.image.imread(analyzed / name).std() > 0
    assert {path.name for path in analyzed.iterdir()} == {
        "relative_entropy.npz",
        "relative_entropy.png",
        "convergence.npz",
        "convergence.png",
        "report.md",
    }


def test_report(analyzed: pathlib.Path) -> None:
    """Every figure in it is one of those in the files."""
    text = (analyzed / "report.md").read_text()
    arrays = np.load(analyzed / "relative_entropy.npz")
    assert "Data: 300 images of 8x8x1" in text
    assert "pairs x levels a second (8 cpu device(s) in 1 process(es))" in text
    assert f"from {arrays['value'][0]:.3g} nats at t = 1 to {arrays['value'][-1]:.2g} at t = 59" in text
    assert f"at worst {arrays['leave_one_out_value'].min():.3g} nats" in text
    assert re.search(r"95 % interval [\d.e+-]+ to [\d.e+-]+\)", text) and "2 seeds, 4 steps each" in text
    assert "| its square root | 0 " in text and "the run in this folder" not in text


def test_a_curve_is_measured_once(analyzed: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    assert analyze.run(tiny.config(**SETTINGS), analyzed) == 0
    assert "holds the relative entropy of these data already" in capsys.readouterr().out


def test_training_on_measured_clusters(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    """Measured at the start, kept for what comes after, and the same as those of the analyze job."""
    config = tiny.config(**SETTINGS)
    assert train.run(config, tmp_path) == 0
    assert "measuring the relative entropy" in capsys.readouterr().out
    kept = np.load(tmp_path / "relative_entropy.npz")["value"]
    assert train.run(tiny.config(**SETTINGS | {"steps": 12}), tmp_path) == 0
    assert sample.run(config, tmp_path) == 0
    (tmp_path / "curriculum.png").unlink()
    assert analyze.run(config, tmp_path) == 0
    assert matplotlib.image.imread(tmp_path / "curriculum.png").std() > 0
    text = (tmp_path / "report.md").read_text()
    assert "What the run in this folder has learned\n\nAfter 12 steps half of the information" in text
    printed = capsys.readouterr().out
    assert "continuing from the checkpoint at step 8" in printed and "measuring" not in printed
    np.testing.assert_array_equal(np.load(tmp_path / "relative_entropy.npz")["value"], kept)


def test_the_edges_are_those_of_the_curve(analyzed: pathlib.Path) -> None:
    experiment = tiny.experiment(**SETTINGS)
    assert experiment.edges is None
    with pytest.raises(ValueError, match="has not been measured"):
        _ = experiment.step_config
    found = experiment.with_clusters(epath.Path(analyzed), Line())
    expected = clusters.by_relative_entropy(np.load(analyzed / "relative_entropy.npz")["value"], 3, power=0.5)
    np.testing.assert_array_equal(found.edges, expected)
    other = ({"process__schedule": "cosine"}, {"codec": tiny.AUTOENCODER, "sampling__clip": 0.0}, {"seed": 1})
    for changes in (*other, {"dataset__held_out": 0.1, "evaluation__denoising__images": 0}):
        assert curve.KEPT.load(epath.Path(analyzed), tiny.experiment(**SETTINGS | changes)) is None


def test_a_curve_of_other_examples(analyzed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Such as those of another folder; a file of an older version does not say of which it is, and is taken."""
    experiment = tiny.experiment(**SETTINGS)
    arrays = dict(np.load(analyzed / "relative_entropy.npz"))
    known = json.loads(str(arrays["measured_on"]))
    assert known["data"]["examples"] == 1797
    for data, taken in (({"examples": 1796}, False), (None, True)):
        told = {key: value for key, value in (known | {"data": data}).items() if value is not None}
        np.savez(tmp_path / "relative_entropy.npz", **arrays | {"measured_on": json.dumps(told)})
        assert (curve.KEPT.load(epath.Path(tmp_path), experiment) is not None) == taken


def test_another_analysis_is_another_run(tmp_path: pathlib.Path) -> None:
    """The clusters follow from it; without such clusters it may be repeated at will."""
    train.run(tiny.config(**SETTINGS), tmp_path / "measured")
    with pytest.raises(UserError, match=r"another config \(analysis.samples: 64 there, 32 here\)"):
        train.run(tiny.config(**SETTINGS | {"analysis__samples": 32}), tmp_path / "measured")
    uniform = SETTINGS | {"curriculum__clustering": "uniform"}
    train.run(tiny.config(**uniform), tmp_path / "uniform")
    assert train.run(tiny.config(**uniform | {"analysis__samples": 32}), tmp_path / "uniform") == 0


def test_a_folder_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--workdir=.*file/run: cannot be written .*: name another folder$"):
        analyze.run(tiny.config(**SETTINGS), tmp_path / "file" / "run")


def test_more_samples_than_images(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="analysis: samples = 301: there are only 300 images"):
        analyze.run(tiny.config(**SETTINGS | {"analysis__samples": 301}), tmp_path)
