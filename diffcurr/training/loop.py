"""The loop around a compiled step, whatever it trains: data in, state and carry through, metrics one window late."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import jax
from jax.sharding import Sharding

from diffcurr.training.clock import Clock
from diffcurr.training.window import Window

State = TypeVar("State")
Carry = TypeVar("Carry")


class Loop(Generic[State, Carry]):
    """Takes steps, and keeps the host from waiting for the device.

    Attributes:
      state: state of what is trained; donated to each step.
      carry: what each step gives to the next beside the state, such as the weights of the clusters.
      number: steps taken so far.
    """

    def __init__(
        self,
        step: Callable[[State, Any, Carry], tuple[State, Carry, Any]],
        state: State,
        carry: Carry,
        batches: Iterator[Any],
        batch_sharding: Sharding,
        new_window: Callable[[int, Sequence[Any]], Window],
        number: int = 0,
        earlier: Sequence[Any] = (),
    ):
        """
        Args:
          step: (state, batch, carry) -> (state, carry, metrics); metrics have `loss` and `grad_norm`.
          batches: this process's part of each global batch, as NumPy arrays.
          batch_sharding: sharding of every array of the global batch.
          new_window: (number of steps taken, metrics of the window's steps until then) -> a window.
          number: steps taken before.
          earlier: `pending()` of the loop that took them.
        """
        self.state, self.carry, self.number = state, carry, number
        self.clock = Clock()
        self._step, self._batches, self._sharding, self._new_window = step, batches, batch_sharding, new_window
        self._window = new_window(number - len(earlier), earlier)
        self._in_flight: Window | None = None
        self._last_finished = self.clock.now()

    def advance(self) -> None:
        """One step, dispatched to the device."""
        asked = time.perf_counter()
        local = next(self._batches)
        self._window.waited += time.perf_counter() - asked
        with jax.transfer_guard_host_to_device("allow"):  # with several processes JAX does not call it explicit
            batch = jax.tree.map(lambda x: jax.make_array_from_process_local_data(self._sharding, x), local)
        self.state, self.carry, metrics = self._step(self.state, batch, self.carry)
        self._window.add(metrics)
        self.number += 1

    def leave_out(self) -> None:
        """Does not count the time until now, such as that of compiling, as time of steps."""
        self._last_finished = self.clock.now()

    def close_window(self) -> dict[str, Any] | None:
        """Ends the window at this step, and gives the summary of the one before, whose steps are finished by now.

        Raises:
          FloatingPointError: if a loss or gradient of that one is not finite.
        """
        self._window.close(self.clock)
        before = self.finish()
        self._window, self._in_flight = self._new_window(self.number, ()), self._window
        return before

    def finish(self) -> dict[str, Any] | None:
        """Waits for the last window that was closed, and gives its summary, unless that was given before.

        Raises:
          FloatingPointError: if a loss or gradient of it is not finite.
        """
        done, self._in_flight = self._in_flight, None
        if done is None:
            return None
        finished = done.finished.result()
        summary = {"step": done.last_step} | done.summary(finished - self._last_finished)
        self._last_finished = finished
        return summary

    def close_rest(self) -> dict[str, Any] | None:
        """Ends the window at the last step of all, and gives its summary; None if it has no step.

        Raises:
          FloatingPointError: if a loss or gradient of it is not finite.
        """
        if self._window.empty:
            return None
        self.finish()
        self._window.close(self.clock)
        self._window, self._in_flight = self._new_window(self.number, ()), self._window
        return self.finish()

    def pending(self) -> list[Any]:
        """The metrics of the steps since the last window was closed, on the host. Waits for the device.

        Raises:
          FloatingPointError: if a loss or gradient of them is not finite.
        """
        return self._window.check_finite()
