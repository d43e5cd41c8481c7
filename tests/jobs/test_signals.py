"""If these fail, a run that is asked to end, or whose folder goes, loses steps without a word or ends in a trace."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from jobs.conftest import ROOT, TINY
from jobs.test_resume import logged_step, wait_for

from diffcurr.training import termination

FLAGS = ("--config.steps=100000", "--config.log_every=10", "--config.checkpoint_every=0")


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def only_line(text: str) -> str:
    assert len(lines(text)) == 1, text
    return lines(text)[0]


@pytest.mark.parametrize(
    "signals", [("SIGHUP",), ("SIGTERM", "SIGINT"), ("SIGINT", "SIGINT"), ("SIGHUP", "SIGTERM", "SIGINT")], ids="+".join
)
def test_signals_of_one_request_save(start: Callable, tmp_path: pathlib.Path, signals: tuple[str, ...]) -> None:
    process = start(tmp_path / "run", *FLAGS)
    wait_for(process, lambda: logged_step(tmp_path / "run") >= 20)
    for name in signals:
        process.send_signal(signal.Signals[name])
        time.sleep(0.05)  # two that are pending together arrive in the order of their numbers
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.Signals[signals[0]], err
    assert f"{signals[0]}: saving after this step" in err and len(lines(err)) == len(signals)
    (saved,) = (int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert f"stopped by {signals[0]} after saving step {saved}; the same command continues" in out


def test_a_later_signal_leaves_at_once_and_says_what_is_lost() -> None:
    code = (
        "import signal, time\nfrom diffcurr.training import termination\ntermination.SAME_REQUEST = 0.2\n"
        "with termination.Termination() as asked:\n"
        "    signal.raise_signal(signal.SIGTERM)\n    signal.raise_signal(signal.SIGINT)\n"
        "    asked.saved = SAVED\n    time.sleep(0.3)\n"
        "    signal.raise_signal(signal.SIGINT)\n    print('still here')\n"
    )
    for saved, lost in (
        ("None", "all steps are lost"),
        ("40", "the steps after step 40 are lost, and those before it if it is still being written"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("SAVED", saved)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 128 + signal.SIGINT and done.stdout == ""
        assert lines(done.stderr)[-1] == f"SIGINT again: leaving at once; {lost}" and len(lines(done.stderr)) == 3


def test_a_run_under_nohup_outlives_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with termination.Termination() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert asked.requested == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("after", [0.3, 1.0, 2.0])
def test_an_interrupt_while_it_starts_is_one_line(after: float, start: Callable, tmp_path: pathlib.Path) -> None:
    process = start(tmp_path / "run", *FLAGS)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (128 + signal.SIGINT, -signal.SIGINT), err  # the interpreter itself may be starting
    assert len(lines(err)) <= 1 or process.returncode < 0, err


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_workdir_that_goes_during_the_run(how: str, start: Callable, tmp_path: pathlib.Path) -> None:
    workdir = tmp_path / "run"
    process = start(workdir, *FLAGS)
    wait_for(process, lambda: logged_step(workdir) >= 20)
    workdir.rename(tmp_path / "moved")
    if how == "removed":
        shutil.rmtree(tmp_path / "moved")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    line = only_line(err)
    assert line.startswith(f"error: workdir {workdir} was moved, removed or replaced during the run: ")
    assert not workdir.exists(), "a workdir that holds next to nothing would mislead"


def test_no_room_for_a_checkpoint(tmp_path: pathlib.Path) -> None:
    """A limit on the size of files stands for a full disk; with room again the same command goes on."""
    command = [sys.executable, "-m", "diffcurr.main", *TINY, f"--workdir={tmp_path / 'run'}", "--config.steps=20"]
    command += ["--config.checkpoint_every=10", "--config.network.hidden_size=64", "--config.log_every=5"]
    environment = {
        key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    }

    limited = ["bash", "-c", 'ulimit -f 195; exec "$@"', "-", *command]  # KiB
    done = subprocess.run(limited, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    line = only_line(done.stderr)
    assert line.startswith(f"error: workdir {tmp_path / 'run'}: cannot be written (File too large); once it can, ")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "finished 20 steps" in done.stdout, done.stderr
