"""If this fails, an analysis in two processes is another one, both write its files, or they train on other clusters."""

import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from etils import epath
from jobs.conftest import ROOT

from diffcurr.difficulty.convergence import Convergence
from diffcurr.jobs import analyze
from diffcurr.reporting.progress import Line

SETTINGS: dict[str, Any] = dict(
    process__num_timesteps=60,
    sampling__steps=2,
    curriculum__clustering="relative_entropy",
    analysis__images=301,
    analysis__samples=100,
)
PROBE: dict[str, Any] = {"curriculum__clustering__name": "information", "curriculum__clustering__probe_steps": 4}
NETWORKS = Convergence(np.array([0, 2, 4]), np.stack([[[4.0, 2.0 + k / 9, 1.0] for k in range(10)]] * 2))


def measure(workdir: pathlib.Path, **settings: Any) -> None:
    """Clusters first, as when a run begins; then the job, which takes their curve. No networks are trained."""
    analyze._convergence = lambda *_: NETWORKS  # they take minutes to compile, and each process has its own
    primary = jax.process_index() == 0
    found = tiny.experiment(**SETTINGS | settings).with_clusters(epath.Path(workdir), Line(silent=not primary))
    np.save(workdir / f"edges{jax.process_index()}.npy", found.edges)
    probed = tiny.experiment(**PROBE, devices=4).with_clusters(epath.Path(workdir), Line(silent=not primary))
    np.save(workdir / f"probed{jax.process_index()}.npy", probed.edges)
    assert analyze.run(tiny.config(**SETTINGS | settings), workdir) == 0


def main(workdir: str, port: str, index: str) -> None:
    """One of two processes."""
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(index))
    measure(pathlib.Path(workdir), analysis__block=40)


def test_two_processes_are_one(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks, with shares of unequal length, and probed: the curves, and to the bit the same clusters in both."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    port, start = (
        tiny.free_port(),
        f"import sys; from jobs.{pathlib.Path(__file__).stem} import main; main(*sys.argv[1:])",
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", start, str(two), str(port), str(index)],
            cwd=ROOT,
            env=os.environ
            | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    monkeypatch.setattr(analyze, "_convergence", None)  # `measure` sets it, and it is set back at the end
    monkeypatch.setattr(jax, "device_count", lambda: 1)  # the whole data as one array
    try:
        measure(one)
        said = [process.communicate(timeout=300) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], said
    (first, _), (second, _) = said
    assert "measuring" in first and "holds the relative entropy" in first and "report.md" in first
    assert "relative" not in second

    whole, parts = (dict(np.load(workdir / "relative_entropy.npz")) for workdir in (one, two))
    assert whole.keys() == parts.keys()
    for name in ("value", "upper_bound", "edges_relative_entropy", "edges_its_square_root"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(parts["gaussian"], whole["gaussian"], rtol=1e-9)
    np.testing.assert_allclose(parts["standard_error"][10:], whole["standard_error"][10:], rtol=1e-3)
    slack = 1e-5 * np.abs(whole["leave_one_out_value"]) + 1e-3 * whole["leave_one_out_standard_error"]
    assert np.max(np.abs(parts["leave_one_out_value"] - whole["leave_one_out_value"]) / slack) < 1
    np.testing.assert_array_equal(np.load(two / "edges0.npy"), np.load(two / "edges1.npy"))
    np.testing.assert_array_equal(np.load(two / "edges0.npy"), parts["edges_relative_entropy"])
    np.testing.assert_array_equal(np.load(two / "probed0.npy"), np.load(two / "probed1.npy"))
    np.testing.assert_allclose(np.load(two / "probed0.npy"), np.load(one / "probed0.npy"), atol=1e-4)
    assert "Data: 301 images" in (two / "report.md").read_text()
