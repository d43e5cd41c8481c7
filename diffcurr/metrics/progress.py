"""The line that says how a run is going."""

import concurrent.futures
import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax


class Clock:
    """Time spent training, in seconds: pauses are left out."""

    def __init__(self) -> None:
        self._left_out = 0.0
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="clock")

    def now(self) -> float:
        return time.perf_counter() - self._left_out

    def when_computed(self, array: jax.Array) -> "concurrent.futures.Future[float]":
        """The time at which a device will have computed `array`. A thread waits for it, the caller does not.

        Steps are dispatched ahead of the device, so the time of dispatch says nothing about speed.
        """

        def wait() -> float:
            jax.block_until_ready(array)
            return self.now()

        return self._thread.submit(wait)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out the time of the block."""
        began = time.perf_counter()
        yield
        self._left_out += time.perf_counter() - began


class Progress:
    """Prints one line a report; on a terminal each replaces the one before."""

    def __init__(self, total_steps: int):
        self._total = total_steps
        self._stream = sys.stdout
        self._terminal = self._stream.isatty()
        self._open_line = False

    def report(self, step: int, values: dict[str, Any]) -> None:
        """Shows the values of one logged interval, whose last step is `step`."""
        left = (self._total - step) / values["steps_per_second"]
        line = (
            f"step {step}/{self._total}  stage {values['stage']}/{values['num_stages']}  loss {values['loss']:.4f}  "
            f"{values['images_per_second']:,.0f} images/s  waiting for data {values['data_wait']:.1%}  "
            f"{duration(left)} left"
        )
        if self._terminal:
            filled = round(10 * step / self._total)
            line = f"[{'█' * filled}{'·' * (10 - filled)}] {line}"
            line = "\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1]  # a wrapped line cannot be replaced
        self._stream.write(line + ("" if self._terminal else "\n"))
        self._stream.flush()
        self._open_line = self._terminal

    def say(self, text: str) -> None:
        """Prints a line of its own."""
        self._stream.write(("\n" if self._open_line else "") + text + "\n")
        self._stream.flush()
        self._open_line = False


def duration(seconds: float | int) -> str:
    """93 -> "1 min 33 s"."""
    total = round(seconds)
    hours, minutes, rest = total // 3600, total % 3600 // 60, total % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
