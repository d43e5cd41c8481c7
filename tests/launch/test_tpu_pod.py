"""If a test here fails, launch/tpu_pod.sh loses a run or pays for a slice that nobody uses.

It runs against stand-ins for gcloud and uv that record what they are told.
"""

import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable

import pytest
from jobs.conftest import ROOT

STAND_IN = pathlib.Path(__file__).parent / "stand_in"
FLAGS = ("--config=configs/digits.py", "--workdir=gs://bucket/run", "--config.dataset.data_dir=a 'b' $HOME")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pod(tmp_path: pathlib.Path) -> Run:
    """Runs the script: with the states that the resource takes, the ways that runs end, and further variables."""

    def run(
        *arguments: str, states: str = "ACTIVE", exits: str = "0", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "states").write_text(states.replace(" ", "\n") + "\n")
        (tmp_path / "exits").write_text(exits.replace(" ", "\n") + "\n")
        settings = {"ZONE": "here", "TYPE": "v6e-16", "RUNTIME": "some-image", "POLL": "0.1", "STAND_IN": str(tmp_path)}
        environment = os.environ | settings | variables | {"PATH": f"{STAND_IN}:{os.environ['PATH']}"}
        script = ROOT / "launch" / "tpu_pod.sh"
        return subprocess.run([script, *arguments], env=environment, capture_output=True, text=True, timeout=60)

    return run


def calls(folder: pathlib.Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def told(folder: pathlib.Path, words: str) -> list[str]:
    """The calls of gcloud's that begin so."""
    return [call for call in calls(folder) if call.startswith(f"compute tpus {words}")]


def test_a_run(pod: Run, tmp_path: pathlib.Path) -> None:
    """Creates, waits, installs once, goes on after it was asked to leave, and passes flags on as they are."""
    done = pod("run", *FLAGS, states="ABSENT WAITING_FOR_RESOURCES ACTIVE", exits="143 0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "this run ends by 0" in done.stdout and "it saved: going on" in done.stdout
    (create,) = told(tmp_path, "queued-resources create")
    flags = "--node-id=diffcurr --accelerator-type=v6e-16 --runtime-version=some-image --quiet --zone=here"
    assert create.endswith(f"create diffcurr {flags}")
    (copied,) = told(tmp_path, "tpu-vm scp")
    assert copied.endswith("diffcurr: --worker=all --zone=here")
    assert [call for call in calls(tmp_path) if call.startswith("uv ")][-1] == "uv pip install --quiet libtpu==0.0.42.*"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    assert (tmp_path / "worker/diffcurr/installed-commit").read_text() == commit
    cache = "--compilation_cache=gs://bucket/run/compiled"
    words = ("-m", "diffcurr.main", "--coordinator=auto", cache, *FLAGS)
    assert (tmp_path / "runs").read_text() == 2 * ("".join(f"<{word}>" for word in words) + "\n")
    assert "this run ends by 143" in pod("tail").stdout

    assert pod("delete", PROJECT="ours").returncode == 0
    (deleted,) = told(tmp_path, "queued-resources delete")
    assert deleted.endswith("delete diffcurr --force --quiet --zone=here --project=ours")


def test_a_preempted_resource_is_made_anew(pod: Run, tmp_path: pathlib.Path) -> None:
    done = pod("run", *FLAGS, states="ACTIVE SUSPENDED ABSENT ACTIVE", exits="preemption 0", SPOT="1")
    assert done.returncode == 0, done.stdout + done.stderr
    words = [call.split()[3] for call in told(tmp_path, "queued-resources")]
    assert words == ["describe", "describe", "delete", "describe", "create", "describe"]
    assert "--spot" in told(tmp_path, "queued-resources create")[0]
    assert len(told(tmp_path, "tpu-vm scp")) == 2
    assert len((tmp_path / "runs").read_text().splitlines()) == 2


def test_a_run_that_fails_is_not_started_again(pod: Run, tmp_path: pathlib.Path) -> None:
    done = pod("run", *FLAGS, exits="1")
    assert done.returncode == 2 and "error: the run ended with exit code 1" in done.stderr
    assert len((tmp_path / "runs").read_text().splitlines()) == 1


def test_bad_input(pod: Run, tmp_path: pathlib.Path) -> None:
    for arguments, message in {
        (): "say run, tail, state or delete",
        ("fly",): "say run, tail, state or delete",
        ("run", "--config=a.py"): "give --workdir=gs://BUCKET",
        ("run", "--workdir=gs://b"): "give --config=",
    }.items():
        done = pod(*arguments)
        assert done.returncode == 2 and message in done.stderr, arguments
    assert "set TYPE" in pod("run", *FLAGS, TYPE="").stderr
    assert "set ZONE" in pod("run", *FLAGS, ZONE="").stderr
    denied = pod("run", *FLAGS, states="DENIED")
    assert denied.returncode != 0 and "PERMISSION_DENIED: not yours" in denied.stderr
    assert {call.split()[3] for call in calls(tmp_path)} == {"describe"}


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_scripts_pass_shellcheck() -> None:
    scripts = [*ROOT.glob("launch/*.sh"), ROOT / "launch/slurm.sbatch", *ROOT.glob("tests/launch/*.sh")]
    scripts += [ROOT / ".ci/run", *STAND_IN.iterdir()]
    subprocess.run(["shellcheck", *scripts], check=True)
