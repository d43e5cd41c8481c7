"""The time that training takes, without what is done between its steps."""

import concurrent.futures
import contextlib
import time
from collections.abc import Iterator

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
