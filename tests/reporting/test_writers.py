import pathlib
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffcurr.reporting.writers import MetricWriter, read_rows


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


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path: pathlib.Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 10}\n{"step": 20}\n{"step": 30}\n{"step": 4'
    )  # cut off by a crash
    assert [row["step"] for row in read_rows(tmp_path)] == [10, 20, 30]
    MetricWriter(tmp_path, last_step=20).close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 10}\n{"step": 20}\n'


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
