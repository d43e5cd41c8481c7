"""Progress of a job on the terminal or in its log."""

import io
import shutil
import sys
import time
from typing import Any, TextIO


class Line:
    """A status line at the end of standard output.

    On a terminal, a new status replaces the one before. In a file, each status is a line.

    Args:
      silent: whether to print nothing, as on all processes but process 0.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._stream: TextIO = io.StringIO() if silent else sys.stdout
        self._terminal = self._stream.isatty()
        self._open_line = False

    def show(self, text: str, share: float) -> None:
        """Shows a status.

        Args:
          text: the status.
          share: share of the work that is done, in [0, 1], for the bar that is drawn on a terminal.
        """
        if self._terminal:
            filled = round(10 * share)
            text = f"[{'█' * filled}{'·' * (10 - filled)}] {text}"
            text = "\r\x1b[K" + text[: shutil.get_terminal_size().columns - 1]  # a line that wraps cannot be replaced
        self._stream.write(text + ("" if self._terminal else "\n"))
        self._stream.flush()
        self._open_line = self._terminal

    def say(self, text: str) -> None:
        """Prints a message that stays; a status before it stays too."""
        self._stream.write(("\n" if self._open_line else "") + text + "\n")
        self._stream.flush()
        self._open_line = False


class Countdown:
    """Shows how much of a task is done, its rate and the time left.

    The object is called with (parts done, parts in all) after each part. The rate is measured from the first call on,
    so the time spent on compiling before it does not count.

    Args:
      line: where to show it.
      what: name of the task.
      unit: name of its parts, in the plural.
      seconds_between: calls within this many seconds of the last one shown are not shown, except the last of the task.
    """

    def __init__(self, line: Line, what: str, unit: str, seconds_between: float = 2.0):
        self._line, self._what, self._unit, self._seconds_between = line, what, unit, seconds_between
        self._first: tuple[float, int] | None = None
        self._shown = -float("inf")

    def __call__(self, done: int, total: int) -> None:
        now = time.perf_counter()
        if self._first is None:
            self._first = now, done
        if now - self._shown < self._seconds_between and done < total:
            return
        self._shown = now
        began, already = self._first
        text = f"{self._what}: {done:,} of {total:,} {self._unit}"
        if done > already and done < total:
            rate = (done - already) / (now - began)
            text += f", {rate:.3g} a second, {duration((total - done) / rate)} left"
        self._line.show(text, done / total)


class Progress(Line):
    """The status line of a training run.

    Args:
      total_steps: steps at which the run ends.
      silent: whether to print nothing, as on all processes but process 0.
    """

    def __init__(self, total_steps: int, *, silent: bool = False):
        super().__init__(silent=silent)
        self._total = total_steps

    def report(self, step: int, values: dict[str, Any]) -> None:
        """Shows the progress of the run.

        Args:
          step: the last step that was taken.
          values: what is logged of the steps since the last report: `stage` and `num_stages` of a curriculum, `loss`,
            `steps_per_second`, `images_per_second`, `data_wait`, the share of the time that was spent waiting for
            data, and `mfu`, the model-flops utilisation, where the chip is known.
        """
        left = (self._total - step) / values["steps_per_second"]
        stage = f"stage {values['stage']}/{values['num_stages']}  " if "stage" in values else ""
        utilisation = f"mfu {values['mfu']:.1%}  " if "mfu" in values else ""
        line = (
            f"step {step}/{self._total}  {stage}loss {values['loss']:.4f}  "
            f"{values['images_per_second']:,.0f} images/s  {utilisation}waiting for data {values['data_wait']:.1%}  "
            f"{duration(left)} left"
        )
        self.show(line, step / self._total)


def duration(seconds: float | int) -> str:
    """Formats a duration in words: 93 seconds are "1 min 33 s"."""
    total = round(seconds)
    hours, minutes, rest = total // 3600, total % 3600 // 60, total % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
