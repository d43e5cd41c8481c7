"""The line that says how a run is going."""

import sys
from typing import Any, TextIO


class Progress:
    """Prints one line a report; on a terminal each replaces the one before."""

    def __init__(self, total_steps: int, stream: TextIO | None = None):
        self._total = total_steps
        self._stream = stream or sys.stdout
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
            filled = round(20 * step / self._total)
            line = f"\r\x1b[K[{'█' * filled}{'·' * (20 - filled)}] {line}"
        self._stream.write(line + ("" if self._terminal else "\n"))
        self._stream.flush()
        self._open_line = self._terminal

    def say(self, text: str) -> None:
        """Prints a line of its own."""
        self._stream.write(("\n" if self._open_line else "") + text + "\n")
        self._stream.flush()
        self._open_line = False


def duration(seconds: float) -> str:
    """93 -> "1 min 33 s"."""
    total = round(seconds)
    hours, minutes, rest = total // 3600, total % 3600 // 60, total % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
