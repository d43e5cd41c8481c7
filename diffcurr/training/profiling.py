"""A trace of some steps, for xprof: `--profile=STEP:STEPS`."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
from etils import epath

from diffcurr.errors import UserError
from diffcurr.training.clock import Clock

FOLDER = "profile"  # of a workdir


class Profile:
    """Traces the steps STEP to STEP + STEPS - 1 on the devices and the host, each under its number.

    The first step that a process takes is never among them, since it is the one that compiles. Tracing reads no array
    and changes none.
    """

    def __init__(self, wanted: str, total: int):
        """
        Args:
          wanted: STEP:STEPS, such as 100:5; "" for no trace.
          total: steps at which the run ends.

        Raises:
          UserError: if it names no steps of the run.
        """
        first, _, number = wanted.partition(":")
        self._wanted, self._first, self._last, self._active = wanted, 0, 0, False
        if not wanted:
            return
        if not (first.isdecimal() and number.isdecimal() and int(number)):
            raise UserError(f"--profile={wanted}: give STEP:STEPS, such as 100:5 for the five steps from step 100 on")
        self._first, self._last = int(first), int(first) + int(number) - 1
        if self._last > total:
            raise UserError(f"--profile={wanted}: the run ends at step {total}: name steps before that")

    def check(self, taken: int) -> None:
        """
        Args:
          taken: steps that the run has taken when this process begins.

        Raises:
          UserError: if the steps begin before the second one of this process.
        """
        if self._wanted and self._first < taken + 2:
            raise UserError(
                f"--profile={self._wanted}: step {taken + 1} is the first one here, which compiles: begin at step "
                f"{taken + 2} or later"
            )

    @contextlib.contextmanager
    def step(self, number: int, folder: epath.Path, wait: Callable[[], Any], clock: Clock) -> Iterator[None]:
        """A context in which a step is dispatched.

        Args:
          number: number of the step, from 1.
          folder: where the trace goes.
          wait: waits until the steps that were dispatched are computed.
          clock: leaves out the time for starting and writing the trace.
        """
        if not self._first <= number <= self._last:
            yield
            return
        if number == self._first:
            wait()
            with clock.paused():
                options = jax.profiler.ProfileOptions()
                options.python_tracer_level = 0  # it slows the host down, and what the devices do is asked for
                jax.profiler.start_trace(os.fspath(folder), profiler_options=options)
                self._active = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        if number == self._last:
            wait()
            with clock.paused():
                self.close()

    def close(self) -> None:
        """Writes the trace, if one is under way, also where the run ends within it."""
        if self._active:
            self._active = False
            jax.profiler.stop_trace()
