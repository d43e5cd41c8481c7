"""If these fail, a run shows wrong progress, or measures time wrongly."""

import io
import sys
import time

import jax
import numpy as np
import pytest

from diffcurr.reporting.progress import Countdown, Line, Progress, duration
from diffcurr.training.clock import Clock

VALUES = dict(stage=2, num_stages=5, loss=0.5, steps_per_second=2.0, images_per_second=1234.0, data_wait=0.01)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min 0 s"), (93, "1 min 33 s"), (3600 * 26 + 120, "26 h 2 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_status_in_a_file_is_a_line(capsys: pytest.CaptureFixture) -> None:
    Progress(100).report(20, VALUES)
    assert capsys.readouterr().out == (
        "step 20/100  stage 2/5  loss 0.5000  1,234 images/s  waiting for data 1.0%  40 s left\n"
    )


def test_on_a_terminal_a_report_replaces_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", stream)
    progress = Progress(100)
    progress.report(20, VALUES)
    progress.report(30, VALUES)
    progress.say("done")
    first, second = stream.getvalue().split("\r\x1b[K")[1:]
    assert first.startswith("[██········] step 20/100") and len(first) == 59
    assert second.startswith("[███·······] step 30/100") and second.endswith("\ndone\n")


def test_clock_leaves_out_pauses() -> None:
    clock = Clock()
    began = clock.now()
    time.sleep(0.02)
    with clock.paused():
        time.sleep(1.0)
    assert 0.02 <= clock.now() - began < 0.5


def test_clock_measures_when_an_array_was_computed() -> None:
    def slow(x: np.ndarray) -> np.ndarray:
        time.sleep(0.3)
        return x

    shape = jax.ShapeDtypeStruct((), np.float32)
    compute = jax.jit(lambda x: jax.pure_callback(slow, shape, x))
    compute(np.float32(1)).block_until_ready()
    clock = Clock()
    began = clock.now()
    array = compute(np.float32(1))
    asked = clock.now()
    computed = clock.when_computed(array)
    assert clock.now() - asked < 0.1
    assert 0.3 <= computed.result() - began < 1.0


def test_countdown(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shows the parts done, and the rate and time left since the first call; not more often than asked for."""
    times = iter([100.0, 100.5, 104.0, 108.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    countdown = Countdown(Line(), "curve", "parts", seconds_between=2.0)
    for done in (1, 2, 5, 9):
        countdown(done, 9)
    assert (
        capsys.readouterr().out
        == "curve: 1 of 9 parts\ncurve: 5 of 9 parts, 1 a second, 4 s left\ncurve: 9 of 9 parts\n"
    )
