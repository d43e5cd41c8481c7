"""If these fail, a run goes on with what is not what it was trained with, or refuses what its user allowed."""

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image

from diffcurr import experiment
from diffcurr.errors import UserError
from diffcurr.jobs import sample, train
from diffcurr.reporting.writers import read_rows
from diffcurr.run import load_run
from diffcurr.training.checkpoint import Checkpoints

SETTINGS: dict[str, Any] = dict(log_every=4, checkpoint_every=4, sample_every=0)


def trained(workdir: pathlib.Path, **overrides: Any) -> pathlib.Path:
    assert train.run(tiny.config(**SETTINGS | {"steps": 8} | overrides), workdir) == 0
    return workdir


def test_a_key_that_may_change(tmp_path: pathlib.Path) -> None:
    """It changes what the steps from there on do, is written down, and is the workdir's config from then on."""
    workdir, slower = trained(tmp_path / "run"), {"steps": 12, "optimizer__learning_rate": 1e-4}
    config = tiny.config(**SETTINGS | slower)
    with pytest.raises(UserError, match=r"learning_rate: 0.001 there, 0.0001 here.*--allow_change=optimizer\."):
        train.run(config, workdir)
    assert train.run(config, workdir, ["optimizer.learning_rate"]) == 0
    assert json.loads((workdir / "config.json").read_text())["optimizer"]["learning_rate"] == 1e-4
    (change,) = [json.loads(line) for line in (workdir / "changes.jsonl").read_text().splitlines()]
    assert change == {"step": 8, "key": "optimizer.learning_rate", "before": 1e-3, "after": 1e-4}
    assert [row["learning_rate"] for row in read_rows(workdir)] == pytest.approx([1e-3, 1e-3, 1e-4])
    assert train.run(tiny.config(**SETTINGS | slower | {"steps": 16}), workdir) == 0  # as any run that is continued

    with pytest.raises(UserError, match="network.depth: the state would have another shape"):
        train.run(tiny.config(**SETTINGS | slower | {"steps": 20, "network__depth": 2}), workdir, ["network.depth"])
    with pytest.raises(UserError, match="--allow_change=learning_rate: the config has no such key"):
        train.run(config, workdir, ["learning_rate"])


def test_the_edges_in_force_are_those_of_the_checkpoint(tmp_path: pathlib.Path) -> None:
    """Whatever has become of the curve that they followed from."""
    settings = {"curriculum__clustering": "relative_entropy", "analysis__images": 64, "analysis__samples": 16}
    settings |= {"process__num_timesteps": 50, "sampling__steps": 5}
    whole = trained(tmp_path / "whole", steps=12, **settings)
    for name, damage in {"gone": lambda path: path.unlink(), "cut": lambda path: path.write_bytes(b"PK")}.items():
        workdir = trained(tmp_path / name, **settings)
        damage(workdir / "relative_entropy.npz")
        trained(workdir, steps=12, **settings)
        ends = [load_run(folder) for folder in (whole, workdir)]
        np.testing.assert_array_equal(ends[0].experiment.edges, ends[1].experiment.edges)
        abstract = ends[0].experiment.abstract_state
        states = [Checkpoints(folder / "checkpoints").restore(abstract) for folder in (whole, workdir)]
        assert states[0] and states[1] and states[0].progress == states[1].progress
        np.testing.assert_array_equal(
            ends[0].params["final_linear"]["kernel"], ends[1].params["final_linear"]["kernel"]
        )


def test_clusters_that_were_allowed_to_change(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the new ones, also where the run is killed before it saves with them."""
    workdir, new = trained(tmp_path / "run"), {"steps": 12, "curriculum__clustering": "log_snr"}
    config = tiny.config(**SETTINGS | new)
    before = load_run(workdir).experiment.edges

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train.run(config, workdir, ["curriculum.clustering"])
    assert train.run(config, workdir, ["curriculum.clustering"]) == 0
    edges = load_run(workdir).experiment.edges
    np.testing.assert_array_equal(edges, experiment.from_config(config).edges)
    assert np.any(edges != before)


def test_other_data(tmp_path: pathlib.Path) -> None:
    data, rng = tmp_path / "data", np.random.default_rng(0)
    for label in ("2", "10", "33"):
        (data / label).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(data / label / f"{number}.png")
    own = {"dataset": {"name": "folder", "data_dir": str(data), "size": 8, "channels": 1}}
    workdir = trained(tmp_path / "run", **own)
    assert json.loads((workdir / "classes.json").read_text()) == {"0": "2", "1": "10", "2": "33"}
    with Image.open(workdir / "data.png") as grid:
        assert grid.mode == "L" and grid.size == (4 * 66 + 2, 4 * 66 + 2)  # 16 examples, enlarged to 64 pixels

    shutil.copytree(data, tmp_path / "moved")  # the same data elsewhere
    own["dataset"]["data_dir"] = str(tmp_path / "moved")
    trained(workdir, steps=12, **own)
    (tmp_path / "moved" / "2" / "7.png").unlink()
    with pytest.raises(UserError, match=r"trained on other data \(examples: 24 there, 23 here.*--allow_change=data$"):
        trained(workdir, steps=16, **own)
    assert train.run(tiny.config(**SETTINGS | {"steps": 16} | own), workdir, ["data"]) == 0
    assert "data.examples" in (workdir / "changes.jsonl").read_text()
    trained(workdir, steps=20, **own)


def test_an_example_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    """Met in training: what was trained is saved, the file is named, and the run goes on once it is mended."""
    data, rng = tmp_path / "data", np.random.default_rng(0)
    data.mkdir()
    for number in range(64):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(data / f"{number:02}.png")
    dataset = {"name": "folder", "data_dir": str(data), "size": 8, "channels": 1, "threads": 0}
    own: dict[str, Any] = {"dataset": dataset, "conditioning": "none", "checkpoint_every": 0}
    whole = trained(tmp_path / "whole", steps=4, **own)
    good = (data / "01.png").read_bytes()
    (data / "01.png").write_bytes(good[: len(good) // 2].ljust(len(good), b"\0"))  # of the same size
    with pytest.raises(UserError, match=r"01\.png.*; step [123] is saved\. The same command goes on once") as caught:
        trained(tmp_path / "run", steps=4, **own)
    assert "--config.dataset.on_bad_file=skip" in str(caught.value)
    (data / "01.png").write_bytes(good)
    trained(tmp_path / "run", steps=4, **own)
    ends = [load_run(folder).params["final_linear"]["kernel"] for folder in (whole, tmp_path / "run")]
    np.testing.assert_array_equal(*ends)


def test_checkpoints_that_are_gone(tmp_path: pathlib.Path) -> None:
    workdir = trained(tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(UserError, match="has no checkpoint any more, though one was saved: bring back its folder"):
        trained(workdir, steps=12)
    (workdir / "checkpoints").write_text("")
    with pytest.raises(UserError, match="checkpoints: is no folder"):
        trained(workdir, steps=12)


def test_a_start_that_fails_leaves_nothing(tmp_path: pathlib.Path) -> None:
    """So that the corrected config is not refused for another one."""
    with pytest.raises(UserError, match="nowhere: there are no such features"):
        trained(tmp_path / "new" / "run", evaluate_every=4, evaluation__features="nowhere")
    assert not (tmp_path / "new").exists()
    trained(tmp_path / "new" / "run")
    before = sorted(path.name for path in (tmp_path / "new" / "run").iterdir())
    with pytest.raises(UserError, match="nowhere: there are no such features"):
        trained(tmp_path / "new" / "run", steps=12, evaluate_every=4, evaluation__features="nowhere")
    assert sorted(path.name for path in (tmp_path / "new" / "run").iterdir()) == before


def test_samples_of_chosen_classes(tmp_path: pathlib.Path) -> None:
    workdir = trained(tmp_path / "run")
    config, out = tiny.config(**SETTINGS, steps=8, sampling__samples=5, sampling__steps=2), tmp_path / "out"
    assert sample.run(config, workdir, classes=[3, 7], seed=5, out=out) == 0
    with np.load(out / "samples.npz") as arrays:
        assert arrays["labels"].tolist() == [3, 7, 3, 7, 3]
        expected = load_run(workdir).sample(5, classes=[3, 7], seed=5, steps=2)
        np.testing.assert_allclose(arrays["images"], expected, atol=1e-5)
    assert (out / "samples.png").exists() and not (workdir / "samples.npz").exists()
    with pytest.raises(UserError, match=r"--class: classes \[10\]: give some of 0\.\.9"):
        sample.run(config, workdir, classes=[10])
    with pytest.raises(UserError, match="--job=sample: seed = -1: must be an integer from 0"):
        sample.run(config, workdir, seed=-1)
