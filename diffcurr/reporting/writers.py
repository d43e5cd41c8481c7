"""Where numbers go: `metrics.jsonl`, `evaluations.jsonl` and TensorBoard events."""

import concurrent.futures
import json
import math
import os
from typing import Any, TextIO

import numpy as np
from etils import epath

from diffcurr import atomic_file
from diffcurr.tensorflow_cpu import import_tensorflow

METRICS = "metrics.jsonl"  # a row each logged interval
EVALUATIONS = "evaluations.jsonl"  # a row each time that samples were compared with the data


def read_rows(workdir: epath.PathLike, file: str = METRICS) -> list[dict[str, Any]]:
    """The rows of a workdir's `file`, oldest first; a last line cut off by a crash is left out."""
    path = epath.Path(workdir) / file
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            rows.append(json.loads(line))
    return rows


class MetricWriter:
    """Writes rows of numbers; JSON lines at once, TensorBoard events from a thread of their own.

    TensorFlow, which clu writes events with, is imported in that thread and at the first row: it delays no step.
    """

    def __init__(self, workdir: epath.PathLike, last_step: int):
        """Opens the workdir's files; rows after `last_step`, written by a run that then crashed, are dropped."""
        self._workdir = epath.Path(workdir)
        self._files: dict[str, TextIO] = {}
        for file in (METRICS, EVALUATIONS):
            rows = [row for row in read_rows(workdir, file) if row["step"] <= last_step]
            if rows or file == METRICS:
                with atomic_file.replacing(self._workdir / file) as path:
                    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            else:
                (self._workdir / file).unlink(missing_ok=True)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="events")
        self._writer: Any = None
        self._waiting: list[concurrent.futures.Future[None]] = []

    def write(self, step: int, values: dict[str, Any], file: str = METRICS) -> None:
        """Appends one row to a file; a NaN (a cluster of which no example was drawn) is null. Raises earlier errors."""
        row = {"step": step} | {name: _plain(value) for name, value in values.items()}
        if file not in self._files:
            self._files[file] = open(os.fspath(self._workdir / file), "a")
        self._files[file].write(json.dumps(row) + "\n")
        self._files[file].flush()
        self._raise_errors()
        self._waiting.append(self._thread.submit(self._write_event, step, values))

    def submit(self, function: Any, *args: Any) -> None:
        """Runs `function(*args)`, such as drawing a figure, in the same thread."""
        self._raise_errors()
        self._waiting.append(self._thread.submit(function, *args))

    def close(self) -> None:
        """Waits for everything to be written."""
        self._thread.shutdown(wait=True)
        if self._writer is not None:
            self._writer.close()
        for file in self._files.values():
            file.close()
        self._raise_errors()

    def _raise_errors(self) -> None:
        while self._waiting and self._waiting[0].done():
            self._waiting.pop(0).result()

    def _write_event(self, step: int, values: dict[str, Any]) -> None:
        if self._writer is None:
            import_tensorflow()
            from clu import metric_writers

            self._writer = metric_writers.SummaryWriter(os.fspath(self._workdir))
        scalars: dict[str, float] = {}
        for name, value in values.items():
            if np.ndim(value) == 0:
                scalars[name] = float(value)
            else:
                scalars |= {f"{name}/{k + 1:03d}": float(v) for k, v in enumerate(value) if not math.isnan(v)}
        self._writer.write_scalars(step, scalars)
        self._writer.flush()


class Discard:
    """The writer of a process that writes nothing."""

    def write(self, step: int, values: dict[str, Any], file: str = METRICS) -> None:
        """Nothing."""

    def submit(self, function: Any, *args: Any) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _plain(value: Any) -> Any:
    if np.ndim(value):
        return [_plain(v) for v in value]
    number = value.item() if hasattr(value, "item") else value
    return None if isinstance(number, float) and not math.isfinite(number) else number
