"""Something done with each of many files before training, on threads, with a line that says how long it takes."""

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import joblib

Item = TypeVar("Item")
Result = TypeVar("Result")

_AT_ONCE = 1024  # results that wait to be taken


def each(function: Callable[[Item], Result], items: Sequence[Item], what: str) -> Iterator[Result]:
    """The results, in the order of the items. What takes longer than some seconds is shown on standard error.

    Args:
      what: is done, for the line: "checking files".
    """
    said = began = time.monotonic()
    seconds_between = 2 if sys.stderr.isatty() else 30
    with ThreadPoolExecutor(min(8, joblib.cpu_count())) as pool:
        for start in range(0, len(items), _AT_ONCE):
            yield from pool.map(function, itertools.islice(items, start, start + _AT_ONCE))
            now, done = time.monotonic(), min(start + _AT_ONCE, len(items))
            if now - said >= seconds_between:
                rate = done / (now - began)
                left = (len(items) - done) / rate
                print(
                    f"{what}: {done:,} of {len(items):,}, {rate:,.0f} a second, {left:,.0f} s left",
                    file=sys.stderr,
                    flush=True,
                )
                said = now
