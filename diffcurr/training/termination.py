"""A run that is asked to end saves its state first."""

import signal
import sys
import threading
from typing import Any

import jax


class Termination:
    """Notes SIGTERM and SIGINT, so that the loop saves and leaves; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.requested = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Termination":
        # Of several processes, JAX's own handler of SIGTERM tells the others: see Checkpoints.preempted.
        alone = jax.process_count() == 1
        handlers = {signal.SIGTERM: self._note, signal.SIGINT: self._note} if alone else {signal.SIGINT: self._pass_on}
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                self._previous[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: Any) -> None:
        del number, frame
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
        signal.raise_signal(signal.SIGTERM)

    def _note(self, number: int, frame: Any) -> None:
        del frame
        print(f"{signal.Signals(number).name}: saving after this step", file=sys.stderr, flush=True)
        self.requested = number
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
