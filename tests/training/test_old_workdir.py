"""If these fail, a workdir made by version 0.1.0 does not open, continue and draw the samples that it drew then.

reference/workdir_0_1.zip is what `configs/digits.py` (SpeeD on clusters of relative entropy) left after 10 steps with
the flags below, before the rooms of the package were moved. The restored state is checked bit for bit by the
checkpoint's own fingerprint; what is computed after it is compared to rounding, since processors differ in it.
"""

import json
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tiny

ROOT = pathlib.Path(__file__).parents[2]
FLAGS = [
    *tiny.FLAGS,
    "--config.curriculum.patience=2",
    "--config.sample_every=0",
    "--config.log_every=5",
    "--config.analysis.samples=64",
    "--config.analysis.images=500",
    "--config.process.density.about=tau",  # SpeeD as it was then
    "--config.process.weighting.over=below",
]
SAMPLES = [
    0.062500,
    0.026882,
    -0.093750,
    -0.062500,
    -0.062500,
    0.198235,
    -0.146405,
    0.062500,
    -0.034999,
    0.062500,
]  # mean of each image, by version 0.1.0
LOSS, STAGE = 0.499835342168808, 3  # of steps 16 to 20, by version 0.1.0


@pytest.fixture
def workdir(tmp_path: pathlib.Path) -> pathlib.Path:
    with zipfile.ZipFile(ROOT / "tests" / "reference" / "workdir_0_1.zip") as archive:
        archive.extractall(tmp_path / "run")
    return tmp_path / "run"


def run(workdir: pathlib.Path, *flags: str) -> str:
    command = [sys.executable, "-m", "diffcurr.main", "--config=configs/digits.py", f"--workdir={workdir}"]
    done = subprocess.run([*command, *FLAGS, *flags], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return done.stdout


def test_it_continues(workdir: pathlib.Path) -> None:
    curve = (workdir / "relative_entropy.npz").read_bytes()
    out = run(workdir, "--config.steps=20")
    assert "continuing from the checkpoint at step 10" in out
    assert (workdir / "relative_entropy.npz").read_bytes() == curve, "the curve was measured again"
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["stage"]) == (20, STAGE)
    np.testing.assert_allclose(last["loss"], LOSS, rtol=1e-4)


def test_it_draws_the_same_samples(workdir: pathlib.Path) -> None:
    run(workdir, "--config.steps=10", "--job=sample")
    with np.load(workdir / "samples.npz") as drawn:
        np.testing.assert_array_equal(drawn["labels"], np.arange(10))
        np.testing.assert_allclose(drawn["images"].mean(axis=(1, 2, 3)), SAMPLES, rtol=1e-3, atol=1e-4)
