"""Hours of checking files would pass without a word, or results would come in another order."""

import itertools

import pytest

from diffcurr.data import on_threads


def test_results_in_order_and_a_line_of_progress(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = itertools.count(0, 40)  # each look at it is 40 s later
    monkeypatch.setattr(on_threads.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(on_threads, "_AT_ONCE", 100)
    assert list(on_threads.each(lambda item: 2 * item, range(250), "checking files")) == list(range(0, 500, 2))
    assert capfd.readouterr().err.splitlines() == [
        "checking files: 100 of 250, 2 a second, 60 s left",
        "checking files: 200 of 250, 2 a second, 20 s left",
        "checking files: 250 of 250, 2 a second, 0 s left",
    ]
