"""If these fail, Weights & Biases shows something else of a run than its workdir.

A recorder stands in for its package.
"""

import pathlib
import sys
import types
from typing import Any

import numpy as np
import pytest
import tiny
from etils import epath

from diffcurr.errors import UserError
from diffcurr.jobs import train
from diffcurr.reporting.wandb_run import WandbRun, require
from diffcurr.reporting.writers import EVALUATIONS, METRICS, MetricWriter


class Recorder(types.ModuleType):
    """Remembers each run that is opened, and what it is told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[Recorder] = []
        self.Settings = dict
        self.Image = lambda path: f"picture {pathlib.Path(path).name}"

    def init(self, **arguments: Any) -> "Recorder":
        run = Recorder()
        run.arguments, run.logged, run.steps, run.finished = arguments, [], [], None
        self.runs.append(run)
        return run

    def define_metric(self, name: str, step_metric: str = "") -> None:
        self.steps.append((name, step_metric))

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self, exit_code: int) -> None:
        self.finished = exit_code


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    return recorder


def write(workdir: pathlib.Path, steps: tuple[int, ...], last_step: int) -> None:
    writer = MetricWriter(workdir, last_step, sinks=[WandbRun(workdir, "project", {"seed": 0})])
    for step in steps:
        writer.write(step, {"loss": 0.5, "loss_by_cluster": np.array([np.nan, 0.25])})
    writer.picture(steps[-1], epath.Path(workdir / "samples" / "00000030.png"))
    writer.close()


def test_rows_pictures_and_the_config(tmp_path: pathlib.Path, wandb: Recorder) -> None:
    """Steps are an axis of the rows, which come in another order than W&B's own steps allow."""
    write(tmp_path, (10, 20), last_step=0)
    (run,) = wandb.runs
    row = {"loss": 0.5, "loss_by_cluster/002": 0.25}
    assert run.logged == [row | {"step": 10}, row | {"step": 20}, {"samples": "picture 00000030.png", "step": 20}]
    assert run.steps == [("step", ""), ("*", "step")] and run.finished == 0
    assert (run.arguments["project"], run.arguments["config"]) == ("project", {"seed": 0})


def test_a_run_that_is_continued_is_one_run(tmp_path: pathlib.Path, wandb: Recorder) -> None:
    """Of the rows that it writes again, those that W&B has are not logged twice."""
    write(tmp_path, (10, 20, 30), last_step=0)
    write(tmp_path, (20, 30, 40), last_step=10)
    first, second = wandb.runs
    assert first.arguments["id"] == second.arguments["id"] and second.arguments["resume"] == "allow"
    assert [row["step"] for row in second.logged if "loss" in row] == [40]
    with pytest.raises(UserError, match="--wandb=other: the run of this workdir is in the project project"):
        WandbRun(tmp_path, "other", {})


def test_rows_from_before_are_logged_too(tmp_path: pathlib.Path, wandb: Recorder) -> None:
    (tmp_path / METRICS).write_text('{"step": 10, "loss": 1, "loss_by_cluster": [null, 2]}\n{"step": 20, "loss": 3}\n')
    (tmp_path / EVALUATIONS).write_text('{"step": 20, "frechet_distance": 4, "kernel_distance": null}\n')
    write(tmp_path, (20, 30), last_step=10)
    rows = wandb.runs[0].logged
    assert rows[:3] == [
        {"step": 10, "loss": 1.0, "loss_by_cluster/002": 2.0},
        {"step": 20, "loss": 3.0},
        {"step": 20, "frechet_distance": 4.0},
    ]
    assert [row["step"] for row in rows[3:] if "loss" in row] == [30]


def test_what_goes_wrong_is_one_line(tmp_path: pathlib.Path, wandb: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**arguments: Any) -> None:
        raise RuntimeError("api_key not configured (no-tty)")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UserError, match=r"--wandb=p: api_key not configured .*: log in with `wandb login`"):
        WandbRun(tmp_path, "p", {})
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"--wandb=p: needs the package wandb .*: pip install 'diffcurr\[wandb\]'"):
        require("p")
    with pytest.raises(UserError, match="needs the package wandb"):  # before anything is made
        train.run(tiny.config(), tmp_path / "run", wandb="p")
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_is_shown_so(tmp_path: pathlib.Path, wandb: Recorder) -> None:
    settings = {"steps": 20, "checkpoint_every": 0, "log_every": 5, "sample_every": 0, "evaluate_every": 0}
    with pytest.raises(UserError, match="(loss|norm) is (nan|inf) at step"):
        train.run(tiny.config(**settings, optimizer__learning_rate=1e30), tmp_path, wandb="project")
    assert wandb.runs[0].finished == 1
