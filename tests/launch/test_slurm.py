"""If a test here fails, a run that SLURM preempts does not end as one that it lets run.

Needs root and Debian's slurm-wlm and munge; skipped where they are not.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from jobs.conftest import ROOT, TINY

HERE = pathlib.Path(__file__).parent / "slurm_here.sh"
FLAGS = ("--config.log_every=10", "--config.checkpoint_every=1000", "--config.steps=300")

pytestmark = [
    pytest.mark.skipif(not shutil.which("slurmctld") or os.geteuid() != 0, reason="needs SLURM, and to be root"),
    pytest.mark.timeout(600),
]


@pytest.fixture
def sbatch(tmp_path: pathlib.Path) -> Iterator[Callable[..., str]]:
    """Submits launch/slurm.sbatch with two tasks to a SLURM of this machine; gives the job's number."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    environment |= {"SLURM_CONF": str(tmp_path / "slurm" / "slurm.conf"), "PYTHON": sys.executable}
    subprocess.run([HERE, "start", tmp_path / "slurm"], check=True)

    def run(*command: str) -> str:
        return subprocess.run(command, check=True, env=environment, cwd=ROOT, capture_output=True, text=True).stdout

    def submit(workdir: pathlib.Path) -> str:
        sizes = ("--ntasks=2", "--cpus-per-task=1", f"--output={workdir}.out")
        return run("sbatch", "--parsable", *sizes, "launch/slurm.sbatch", *TINY, *FLAGS, f"--workdir={workdir}").strip()

    submit.run = run
    yield submit
    subprocess.run([HERE, "stop", tmp_path / "slurm"], check=True)


def wait_until(condition: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come to pass"
        time.sleep(0.2)


def said(workdir: pathlib.Path) -> str:
    output = pathlib.Path(f"{workdir}.out")
    return output.read_text() if output.exists() else ""


def saved(workdir: pathlib.Path) -> str:
    """The fingerprint of the last state's bits."""
    return (workdir / "checkpoints" / "300" / "integrity" / "metadata").read_text()


def test_a_run_that_is_preempted_ends_as_one_that_is_not(sbatch: Callable[..., str], tmp_path: pathlib.Path) -> None:
    """Two processes, asked to leave in the middle: saved, queued again, resumed, and the same to the last bit."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    sbatch(whole)
    wait_until(lambda: "finished 300 steps" in said(whole))
    job = sbatch(parts)
    wait_until(lambda: re.search(r"step [1-9]\d+/300", said(parts)) is not None)
    sbatch.run("scancel", "--signal=TERM", job)
    wait_until(lambda: "is queued again" in said(parts))
    step = re.search(r"stopped by SIGTERM after saving step (\d+)", said(parts))[1]
    wait_until(lambda: "PENDING" in sbatch.run("squeue", "--noheader", "--format=%T", "--jobs", job))
    time.sleep(10)  # the node is still cleaning up, and refuses a job that it knows as killed
    sbatch.run("scontrol", "update", f"JobId={job}", "StartTime=now")  # else it waits two minutes
    wait_until(lambda: "finished 300 steps" in said(parts))
    assert f"continuing from the checkpoint at step {step}" in said(parts) and int(step) < 300
    assert saved(parts) == saved(whole)
