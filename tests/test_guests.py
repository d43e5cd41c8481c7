"""The examples of CONTRIBUTING.md: if they fail, no one can add a part without editing our files."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A config file outside the package with every example of the page."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.S | re.M)
    assert len(blocks) == 11
    for block in blocks[1:-1]:
        lines = [line for line in block.splitlines() if line and not line.startswith(("from ", "import "))]
        assert len(lines) <= 15, block
    file = tmp_path_factory.mktemp("guest") / "my_config.py"
    file.write_text("\n".join(blocks))
    return file


def run(guest: pathlib.Path, workdir: str, *flags: str) -> str:
    command = [sys.executable, "-m", "diffcurr.main", f"--config={guest}", f"--workdir={guest.parent / workdir}"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(guest.parent)}
    environment |= {key: value for key, value in os.environ.items() if key.startswith("JAX_")}
    done = subprocess.run([*command, *flags], cwd=guest.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(workdir: pathlib.Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_guests_train_resume_sample_and_evaluate(guest: pathlib.Path) -> None:
    folder = guest.parent
    run(guest, "features", "--job=features", "--config.features.epochs=1")
    features = f"--config.evaluation.features={folder / 'features' / 'features.safetensors'}"
    run(guest, "whole")
    run(guest, "parts", "--config.steps=20")
    assert "continuing from the checkpoint at step 20" in run(guest, "parts")
    assert losses(folder / "parts") == losses(folder / "whole") != []

    weights = json.loads((folder / "whole" / "metrics.jsonl").read_text().splitlines()[-1])["weight_by_cluster"]
    assert len(weights) == 4
    assert max(weights) == 1.0
    assert len(set(weights)) == 4  # the rule weighs them

    for workdir in ("whole", "parts"):
        run(guest, workdir, "--job=sample")
    whole, parts = (np.load(folder / workdir / "samples.npz") for workdir in ("whole", "parts"))
    np.testing.assert_array_equal(whole["images"], parts["images"])
    assert whole["images"].shape == (16, 8, 8, 1)
    np.testing.assert_array_equal(whole["brightness"], np.resize([2, 4, 8], 16))

    assert "mean distance" in run(guest, "whole", "--job=evaluate", features)
    measured = json.loads((folder / "whole" / "evaluation.json").read_text())
    assert measured["mean_distance"]["value"] > 0
    assert "kernel_distance" not in measured


def test_a_guests_setting_is_a_flag_and_is_checked(guest: pathlib.Path) -> None:
    run(guest, "flags", "--config.network.width=16", "--config.steps=1", "--config.sample_every=0")
    assert json.loads((guest.parent / "flags" / "config.json").read_text())["network"] == {"name": "mixer", "width": 16}
