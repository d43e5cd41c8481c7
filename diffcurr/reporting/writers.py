"""Where numbers go: `metrics.jsonl`, `evaluations.jsonl`, TensorBoard events, and whatever else is told of them."""

import concurrent.futures
import json
import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from etils import epath
from google.protobuf.message import DecodeError

from diffcurr import atomic_file
from diffcurr.training.rows import EVALUATIONS, METRICS, read_rows

Row: TypeAlias = dict[str, Any]


@runtime_checkable
class Sink(Protocol):
    """Where rows and pictures go beside the files."""

    def begin(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Takes note of the rows of each file, with those that will be dropped and written again."""

    def write(self, step: int, values: Mapping[str, Any], file: str) -> None:
        """Takes one row of a file."""

    def picture(self, step: int, path: epath.Path) -> None:
        """Takes a picture of samples."""

    def close(self) -> None:
        """Waits for everything to be there."""


class MetricWriter:
    """Writes rows of numbers; JSON lines at once, TensorBoard events in a background thread.

    Files are opened for each row and closed again: on an object store (gs://) only a closed file can be read.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        last_step: int,
        check: Callable[[], None] = lambda: None,
        sinks: Sequence[Sink] = (),
    ):
        """Rows and events after `last_step`, written by a run that then crashed, are dropped.

        Args:
          check: called before anything is written in the background; raises where the workdir is gone.
          sinks: get everything too, in the background.
        """
        self._workdir, self._check, self._sinks = epath.Path(workdir), check, sinks
        found = {file: read_rows(workdir, file) for file in (METRICS, EVALUATIONS)}
        for sink in sinks:
            sink.begin(found)
        for file, all_rows in found.items():
            if (self._workdir / file).exists():
                rows = [row for row in all_rows if row["step"] <= last_step]
                with atomic_file.replacing(self._workdir / file) as path:
                    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        for path in sorted(self._workdir.glob("events.out.tfevents.*")):
            _drop_events(path, last_step)
        # TensorBoard finds files by "tfevents" in their name, and reads them in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._events = self._workdir / name
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="events")
        self._waiting: list[concurrent.futures.Future[None]] = []

    def write(self, step: int, values: dict[str, Any], file: str = METRICS) -> None:
        """Appends one row to a file; a NaN (a cluster of which no example was drawn) is null. Raises earlier errors."""
        row = {"step": step} | {name: _plain(value) for name, value in values.items()}
        with (self._workdir / file).open("a") as rows:
            rows.write(json.dumps(row) + "\n")
        self.submit(_append_event, self._events, time.time(), step, values)
        for sink in self._sinks:
            self.submit(sink.write, step, values, file)

    def picture(self, step: int, path: epath.Path) -> None:
        """Shows a picture that was submitted wherever pictures are shown beside the workdir."""
        for sink in self._sinks:
            self.submit(sink.picture, step, path)

    def submit(self, function: Any, *args: Any) -> None:
        """Runs `function(*args)`, such as drawing a figure, in the background. Raises earlier errors."""

        def checked() -> None:
            self._check()
            function(*args)

        self._raise_errors()
        self._waiting.append(self._thread.submit(checked))

    def close(self) -> None:
        """Waits for everything to be written."""
        self._thread.shutdown(wait=True)
        for sink in self._sinks:
            sink.close()
        self._raise_errors()

    def _raise_errors(self) -> None:
        while self._waiting and self._waiting[0].done():
            self._waiting.pop(0).result()


class Discard:
    """The writer of a process that writes nothing."""

    def write(self, step: int, values: dict[str, Any], file: str = METRICS) -> None:
        """Nothing."""

    def submit(self, function: Any, *args: Any) -> None:
        """Nothing."""

    def picture(self, step: int, path: epath.Path) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _drop_events(path: epath.Path, last_step: int) -> None:
    """Drops from a file of TensorBoard events those after `last_step`, and a record that a crash cut off."""
    from tensorboard.compat.proto.event_pb2 import Event  # only here: it takes a moment

    content, kept, at = path.read_bytes(), [], 0
    while at + 12 <= len(content):  # a record: its length, 8 bytes, and checksum, 4; the event; its checksum, 4
        end = at + 16 + int.from_bytes(content[at : at + 8], "little")
        if end > len(content):
            break
        try:
            step = Event.FromString(content[at + 12 : end - 4]).step
        except DecodeError:
            break
        if step <= last_step:
            kept.append(content[at:end])
        at = end
    if sum(map(len, kept)) < len(content):
        with atomic_file.replacing(path) as temporary:
            temporary.write_bytes(b"".join(kept))


def _plain(value: Any) -> Any:
    if np.ndim(value):
        return [_plain(v) for v in value]
    number = value.item() if hasattr(value, "item") else value
    return None if isinstance(number, float) and not math.isfinite(number) else number


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row by name; of an array each element that is a number, as name/001, ..."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, list) or np.ndim(value):
            known = ((k, v) for k, v in enumerate(value, 1) if v is not None and not math.isnan(v))
            found |= {f"{name}/{k:03d}": float(v) for k, v in known}
        elif value is not None:
            found[name] = float(value)
    return found


def _append_event(path: epath.Path, seconds: float, step: int, values: dict[str, Any]) -> None:
    """Appends one row to a file of TensorBoard events.

    TensorBoard's own code writes them: clu's writer would import TensorFlow, which training does not need otherwise.
    """
    # Only here: it takes a moment, and delays no step in this thread.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.summary.writer.record_writer import RecordWriter

    summary = Summary(value=[scalar_pb(name, scalar).value[0] for name, scalar in scalars(values).items()])
    is_new = not path.exists()
    with path.open("ab") as file:
        records = RecordWriter(file)
        if is_new:
            records.write(Event(wall_time=seconds, file_version="brain.Event:2").SerializeToString())
        records.write(Event(wall_time=seconds, step=step, summary=summary).SerializeToString())
