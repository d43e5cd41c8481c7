"""If a test here fails, clusters by information follow from something else than the error of a network on the data."""

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import tiny
from etils import epath

from diffcurr.curriculum import Levels, clusters, gating
from diffcurr.difficulty import earlier, information
from diffcurr.difficulty.earlier import Measured
from diffcurr.errors import UserError
from diffcurr.jobs import train
from diffcurr.reporting.progress import Line
from diffcurr.run import load_run
from diffcurr.training.rows import by_cluster, read_rows

SETTINGS: dict[str, Any] = {"process__num_timesteps": 50, "sampling__steps": 5, "sample_every": 0}
PROBE = SETTINGS | {"curriculum__clustering__name": "information", "curriculum__clustering__probe_steps": 6}
# A run without a curriculum whose clusters and rows are those of the probe.
PLAIN = SETTINGS | {"curriculum__order": "none", "curriculum__clusters": 50, "steps": 6, "log_every": 3}


def curve_of(workdir: pathlib.Path) -> np.ndarray:
    with np.load(workdir / "information.npz") as arrays:
        return arrays["value"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("plain")
    assert train.run(tiny.config(**PLAIN), workdir) == 0
    return workdir


def test_the_probe_is_the_start_of_a_run_without_a_curriculum(plain: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The mean over its second half; the clusters are those of this curve, and it is measured once."""
    experiment = tiny.experiment(**PROBE, devices=8)
    assert experiment.edges is None
    found = experiment.with_clusters(epath.Path(tmp_path), Line(silent=True))
    error = by_cluster(read_rows(plain), "noise_error_by_cluster", 50)[1]
    assert 5 < np.isfinite(error).sum() <= 50
    log_snr = experiment.log_snr
    measured = Measured(Levels(clusters.uniform(50), log_snr, np.ones(50)).centres, error)
    np.testing.assert_array_equal(curve_of(tmp_path), information.at_levels(log_snr, measured))
    expected = clusters.by_information(gating.gated_information(curve_of(tmp_path), log_snr), 3)
    np.testing.assert_array_equal(found.edges, expected)
    assert np.max(np.abs(expected - clusters.uniform(3))) > 0.01

    kept = (tmp_path / "information.npz").read_bytes()
    again = tiny.experiment(**PROBE, devices=8).with_clusters(epath.Path(tmp_path), Line(silent=True))
    np.testing.assert_array_equal(again.edges, found.edges)
    assert (tmp_path / "information.npz").read_bytes() == kept
    for other in ({"optimizer__learning_rate": 2e-3}, {"curriculum__clustering__probe_steps": 7}, {"seed": 1}):
        assert information.KEPT.load(epath.Path(tmp_path), tiny.experiment(**PROBE | other)) is None
    for same in ({"curriculum__clusters": 4}, {"curriculum__patience": 9}, {"log_every": 7}, {"analysis__samples": 9}):
        assert information.KEPT.load(epath.Path(tmp_path), tiny.experiment(**PROBE | same)) is not None


def test_a_run_keeps_its_edges(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    """Whatever has become of the curve; another analysis is no other run."""
    settings = PROBE | {"steps": 4, "log_every": 2, "checkpoint_every": 2}
    assert train.run(tiny.config(**settings), tmp_path) == 0
    assert "measuring the error of the noise" in capsys.readouterr().out
    edges = load_run(tmp_path).experiment.edges
    assert np.any(edges != clusters.uniform(3))
    (tmp_path / "information.npz").unlink()
    assert train.run(tiny.config(**settings | {"steps": 8, "analysis__samples": 10}), tmp_path) == 0
    printed = capsys.readouterr().out
    assert "continuing from the checkpoint at step 4" in printed and "measuring" not in printed
    np.testing.assert_array_equal(load_run(tmp_path).experiment.edges, edges)


def test_an_earlier_run_takes_the_place_of_the_probe(plain: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Of another process: its error holds at the same log-SNR."""
    rows = [json.loads(line) for line in (plain / "metrics.jsonl").read_text().splitlines()]
    before = tmp_path / "before"
    shutil.copytree(plain, before)
    for row in rows:  # every cluster is seen
        row["noise_error_by_cluster"] = np.geomspace(0.9, 0.1, 50).tolist() if row["step"] == 6 else [9.0] * 50
    (before / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"process": "flow", "curriculum__clustering": {"name": "information", "run": str(before)}}
    experiment = tiny.experiment(**settings, sampling__steps=2)
    (tmp_path / "run").mkdir()
    experiment.with_clusters(epath.Path(tmp_path / "run"), Line(silent=True))
    centres = earlier.levels_of(epath.Path(before), tiny.config(**PLAIN)).centres
    at = (experiment.log_snr < centres[0]) & (experiment.log_snr > centres[-1])
    expected = np.interp(-experiment.log_snr[at], -centres, np.geomspace(0.9, 0.1, 50))
    np.testing.assert_allclose(curve_of(tmp_path / "run")[at], expected, rtol=1e-12)
    assert np.mean(at) > 0.3


def test_an_earlier_run_that_cannot_be_used(plain: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def use(run: pathlib.Path, **other: Any) -> None:
        settings = SETTINGS | {"curriculum__clustering": {"name": "information", "run": str(run)}} | other
        tiny.experiment(**settings).with_clusters(epath.Path(tmp_path), Line(silent=True))

    with pytest.raises(UserError, match=r"run = .*nowhere: there is no run \(config.json\): name the workdir of one"):
        use(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"of other data \(conditioning.dropout: 0.1 there, 0.2 here"):
        use(plain, conditioning__dropout=0.2)
    with pytest.raises(UserError, match=r"clusters .* were not trained in the last rows of metrics.jsonl"):
        use(plain)
    before = tmp_path / "before"
    shutil.copytree(plain, before)
    (before / "metrics.jsonl").write_text('{"step": 6, "loss_by_cluster": [1.0]}\n')
    with pytest.raises(UserError, match="have no noise_error_by_cluster of its 50 clusters"):
        use(before)
    shutil.rmtree(before / "checkpoints")
    config = json.loads((before / "config.json").read_text())
    config["curriculum"]["clustering"] = {"name": "relative_entropy", "power": 1.0}
    (before / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="edges of its clusters are not known without a checkpoint"):
        use(before)


def test_what_is_checked_before_anything_is_measured() -> None:
    wide = PROBE | {"curriculum__clustering__min_width": 0.5}
    with pytest.raises(UserError, match="curriculum: clustering.min_width = 0.5: 3 clusters can be 0.333 wide at most"):
        tiny.experiment(**wide)


def test_with_more_noise_than_any_cluster_the_error_falls_with_the_snr() -> None:
    measured = Measured(np.array([2.0, 0.0, -2.0]), np.array([0.8, np.nan, 0.2]))
    found = information.at_levels(np.array([9.0, 2.0, 0.0, -1.0, -2.0, -3.0]), measured)
    np.testing.assert_allclose(found, [0.8, 0.8, 0.5, 0.35, 0.2, 0.2 / np.e])
