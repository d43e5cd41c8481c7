import os
import pathlib
import subprocess
import sys
import time
from typing import IO, Any

import numpy as np
import pytest
from etils.epath import backend
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffcurr.reporting.writers import MetricWriter, read_rows

ROOT = pathlib.Path(__file__).parents[2]


def test_rows_and_events(tmp_path: pathlib.Path) -> None:
    writer = MetricWriter(tmp_path, last_step=0)
    writer.write(10, {"loss": 0.5, "stage": 2, "loss_by_cluster": np.array([np.nan, 0.25])})
    writer.write(20, {"loss": 0.4, "stage": 3, "loss_by_cluster": np.array([0.75, 0.5])})
    writer.close()
    assert read_rows(tmp_path) == [
        {"step": 10, "loss": 0.5, "stage": 2, "loss_by_cluster": [None, 0.25]},
        {"step": 20, "loss": 0.4, "stage": 3, "loss_by_cluster": [0.75, 0.5]},
    ]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"loss", "stage", "loss_by_cluster/001", "loss_by_cluster/002"} <= set(events.Tags()["tensors"])
    assert [event.step for event in events.Tensors("loss_by_cluster/001")] == [20]
    assert [event.step for event in events.Tensors("loss_by_cluster/002")] == [10, 20]


def test_events_are_written_without_tensorflow(tmp_path: pathlib.Path) -> None:
    """Nor is it imported where it is installed: that would take seconds and some hundred megabytes."""
    code = (
        "import sys; from diffcurr.reporting.writers import MetricWriter\n"
        "writer = MetricWriter(sys.argv[1], last_step=0); writer.write(10, {'loss': 0.5}); writer.close()\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"] == ["loss"]


class Bucket(backend._OsPathBackend):
    """An object store in a folder, in the place of etils' access to gs:// through TensorFlow."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def _here(self, path: Any) -> str:
        return os.fspath(path).replace("gs:/", str(self.folder))

    def open(self, path: Any, mode: str) -> IO[Any]:
        return super().open(self._here(path), mode)

    def exists(self, path: Any) -> bool:
        return super().exists(self._here(path))

    def makedirs(self, path: Any, **arguments: Any) -> None:
        super().makedirs(self._here(path), **arguments)

    def mkdir(self, path: Any, **arguments: Any) -> None:
        super().mkdir(self._here(path), **arguments)

    def remove(self, path: Any) -> None:
        super().remove(self._here(path))

    def replace(self, path: Any, dst: Any) -> None:
        super().replace(self._here(path), self._here(dst))


def test_a_workdir_on_an_object_store(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "tf_backend", Bucket(tmp_path))
    (tmp_path / "bucket" / "run").mkdir(parents=True)  # where a bucket needs no folder
    writer = MetricWriter("gs://bucket/run", last_step=0)
    writer.write(10, {"loss": 0.5})
    writer.write(20, {"loss": 0.25})
    assert [row["step"] for row in read_rows("gs://bucket/run")] == [10, 20]  # while the run goes on
    writer.close()
    events = EventAccumulator(str(tmp_path / "bucket" / "run")).Reload()
    assert [event.step for event in events.Tensors("loss")] == [10, 20]


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path: pathlib.Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 10}\n{"step": 20}\n{"step": 30}\n{"step": 4'
    )  # cut off by a crash
    assert [row["step"] for row in read_rows(tmp_path)] == [10, 20, 30]
    MetricWriter(tmp_path, last_step=20).close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 10}\n{"step": 20}\n'


def test_lines_that_are_no_rows_are_left_out(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a warning, wherever they stand; a last line cut off by a crash without one."""
    rows = [
        b'{"step": 10}',
        b'{"step": 2',
        b"\0\0\0",
        b"[1]",
        b'{"loss": 1}',
        b'{"step": true}',
        b"[" * 9999,
        b'{"step": 20}',
    ]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(rows) + b'\n{"step": 3')
    assert [row["step"] for row in read_rows(tmp_path)] == [10, 20]
    warning = capsys.readouterr().err
    assert warning.endswith("left out what is no row of numbers: line 2, 3, 4, 5, 6 and 1 more\n")
    assert warning.count("\n") == 1


def test_events_that_will_be_written_again_are_dropped(tmp_path: pathlib.Path) -> None:
    """TensorBoard would show the steps between the checkpoint and the crash twice."""
    writer = MetricWriter(tmp_path, last_step=0)
    for step in (10, 20, 30):
        writer.write(step, {"loss": 1.0})
    writer.close()
    (events,) = tmp_path.glob("events.*")
    events.write_bytes(events.read_bytes()[:-3])  # the last record is cut off
    writer = MetricWriter(tmp_path, last_step=10)
    writer.write(20, {"loss": 2.0})
    writer.close()
    found = EventAccumulator(str(tmp_path)).Reload().Tensors("loss")
    assert [event.step for event in found] == [10, 20]
    MetricWriter(tmp_path, last_step=20).close()
    assert len(EventAccumulator(str(tmp_path)).Reload().Tensors("loss")) == 2


def test_an_error_in_the_background_is_raised(tmp_path: pathlib.Path) -> None:
    def fail() -> None:
        raise OSError("disk full")

    writer = MetricWriter(tmp_path, last_step=0)
    writer.submit(fail)
    time.sleep(0.2)
    with pytest.raises(OSError, match="disk full"):
        writer.submit(print)
    writer.submit(fail)
    with pytest.raises(OSError, match="disk full"):
        writer.close()
