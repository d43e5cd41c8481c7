"""A run that is asked to end saves its state first."""

import os
import signal
import threading
import time
from typing import Any

import jax

SAME_REQUEST = 2.0  # seconds: supervisors send two signals at once, and a key is pressed twice


class Termination:
    """Notes SIGTERM, SIGHUP and SIGINT, so that the loop saves and leaves.

    A second signal soon after the first belongs to the same request. A later one ends the process at once, and one line
    says which steps are lost.

    Attributes:
      requested: the first signal's number; 0 if none came, or if there are several processes.
      saved: the last step of which a checkpoint was begun, which is written in the background; None if there is none.
    """

    def __init__(self) -> None:
        self.requested = 0
        self.saved: int | None = None
        self._since: float | None = None  # when the first signal came
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Termination":
        # Of several processes, JAX's own handler of SIGTERM tells the others: see Checkpoints.preempted.
        numbers = {signal.SIGINT, signal.SIGHUP} | ({signal.SIGTERM} if jax.process_count() == 1 else set())
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup: the run is to survive its terminal
            numbers.discard(signal.SIGHUP)
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        del frame
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            _leave_the_terminal()
        if self._since is None:
            self._since = time.monotonic()
            _say(f"{name}: saving after this step")
            if jax.process_count() > 1:
                signal.raise_signal(signal.SIGTERM)  # at which step, all decide together
            else:
                self.requested = number
        elif time.monotonic() - self._since < SAME_REQUEST:
            _say(f"{name}: saving already; a signal after {SAME_REQUEST:.0f} s ends the run without")
        else:
            lost = "all steps are lost"
            if self.saved is not None:
                lost = f"the steps after step {self.saved} are lost, and those before it if it is still being written"
            _say(f"{name} again: leaving at once; {lost}")
            os._exit(128 + number)


def _say(text: str) -> None:
    """Writes a line to standard error; `print` may be at work already when a signal comes."""
    os.write(2, f"{text}\n".encode())


def _leave_the_terminal() -> None:
    """What is printed from now on goes nowhere: to print to a terminal that is gone would end the run."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if os.isatty(stream):
            os.dup2(nowhere, stream)
    os.close(nowhere)
