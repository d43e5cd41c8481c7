"""If a test here fails, a run that was killed and started again does not end with the bits of one that was not."""

import json
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable

import numpy as np
import pytest

from diffcurr.reporting.writers import read_rows

STEPS = 1500
FLAGS = [f"--config.steps={STEPS}", "--config.log_every=10", "--config.checkpoint_every=100"]
TIMING = ("steps_per_second", "images_per_second", "data_wait")


def integrity(workdir: pathlib.Path, step: int) -> tuple:
    """The fingerprint of every array of a checkpoint (verified whenever it is restored), its data and its config."""
    folder = workdir / "checkpoints" / str(step)
    return tuple(json.loads((folder / item / "metadata").read_text()) for item in ("integrity", "data", "config"))


def finish(process: "subprocess.Popen[str]") -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def wait_for(process: "subprocess.Popen[str]", condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
        time.sleep(0.0005)


def logged_step(workdir: pathlib.Path) -> int:
    """The last step in metrics.jsonl, read cheaply: the loop polls it."""
    try:
        lines = (workdir / "metrics.jsonl").read_bytes().rsplit(b"\n", 2)
    except FileNotFoundError:
        return 0
    return json.loads(lines[-2])["step"] if len(lines) > 1 and lines[-2] else 0


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("uninterrupted")


def run_once(uninterrupted: pathlib.Path, start: Callable) -> None:
    """The run to compare with, unless an earlier test has made it."""
    if not (uninterrupted / "checkpoints" / str(STEPS)).exists():
        finish(start(uninterrupted, *FLAGS))


def check_same_end(workdir: pathlib.Path, uninterrupted: pathlib.Path, start: Callable) -> None:
    run_once(uninterrupted, start)
    assert integrity(workdir, STEPS) == integrity(uninterrupted, STEPS)
    rows = [
        [{k: v for k, v in row.items() if k not in TIMING} for row in read_rows(w)] for w in (workdir, uninterrupted)
    ]
    assert rows[0] == rows[1] and len(rows[0]) == STEPS // 10


def test_sigkill_anywhere(start: Callable, uninterrupted: pathlib.Path, tmp_path: pathlib.Path) -> None:
    workdir = tmp_path / "run"
    checkpoints = workdir / "checkpoints"

    def saving(after: int) -> Callable[[], bool]:
        return lambda: any(int(path.name.split(".")[0]) > after for path in checkpoints.glob("*.orbax-checkpoint-tmp"))

    rng = np.random.default_rng()
    steps = np.sort(rng.integers(20, STEPS - 300, 3))
    print("killed at steps", steps)  # shown when the test fails
    places = [
        lambda: logged_step(workdir) > 0,  # before the first checkpoint
        saving(after=0),  # during an asynchronous save
        *(lambda step=step: logged_step(workdir) >= step for step in steps),
        saving(after=STEPS - 400),
    ]
    during_a_save = 0
    for place in places:
        process = start(workdir, *FLAGS)
        wait_for(process, place)
        process.send_signal(signal.SIGKILL)
        process.wait()
        during_a_save += bool(list(checkpoints.glob("*.orbax-checkpoint-tmp")))
        assert not (checkpoints / str(STEPS)).exists(), "the run was over before it was killed"
    assert during_a_save >= 1
    out = finish(start(workdir, *FLAGS))
    assert "continuing from the checkpoint at step" in out
    check_same_end(workdir, uninterrupted, start)


def test_sigterm_saves_and_the_same_command_continues(
    start: Callable, uninterrupted: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    workdir = tmp_path / "run"
    # Checkpoints come from the signal alone.
    flags = [*FLAGS[:2], "--config.checkpoint_every=0"]
    process = start(workdir, *flags)
    wait_for(process, lambda: logged_step(workdir) >= 200)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "SIGTERM: saving after this step" in err
    (saved,) = (int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert f"stopped by SIGTERM after saving step {saved}" in out and 200 <= saved < STEPS

    assert f"continuing from the checkpoint at step {saved}" in finish(start(workdir, *flags))
    run_once(uninterrupted, start)
    final, whole = integrity(workdir, STEPS), integrity(uninterrupted, STEPS)
    assert final[0]["state"] == whole[0]["state"] and final[1] == whole[1]

    assert "this run is finished, at step 1500" in finish(start(workdir, *flags))
