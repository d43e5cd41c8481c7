"""If a test here fails, several processes are not one run: other losses or files, or one waits for ever for another."""

import concurrent.futures
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jobs.conftest import ROOT, TINY
from tiny import free_port, saved_state

from diffcurr.config import flatten
from diffcurr.errors import UserError
from diffcurr.reporting.writers import EVALUATIONS, read_rows
from diffcurr.training import distributed

COMMON = ("--config.log_every=5", "--config.checkpoint_every=10", "--config.sample_every=20")
HELD_OUT = (
    "--config.dataset.held_out=0.2",
    "--config.evaluation.denoising.images=50",
    "--config.evaluation.denoising.levels=3",
)


def launch(workdir: pathlib.Path, devices: int, *flags: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "diffcurr.main", *TINY, *COMMON, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def pair() -> Callable[..., list["subprocess.Popen[str]"]]:
    """Starts a run of two processes with two devices each."""
    running: list[subprocess.Popen[str]] = []

    def start(workdir: pathlib.Path, *flags: str) -> list["subprocess.Popen[str]"]:
        by_hand = (f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2")
        running.extend(launch(workdir, 2, *by_hand, f"--process_id={index}", *flags) for index in range(2))
        return running[-2:]

    yield start
    for process in running:
        process.kill()
        process.wait()


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    """To float32 rounding: sums over processes run in another order.

    The biases of attention's keys have a gradient of 0, of whose rounding Adam makes up to some 1e-6 in 40 steps.
    """

    def same(path: tuple[Any, ...], x: Any, y: Any) -> None:
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=5e-6 if "'qkv']['bias']" in name else 1e-6, err_msg=name)

    jax.tree_util.tree_map_with_path(same, a, b)


def wait_for_step(workdir: pathlib.Path, step: int) -> None:
    end = time.monotonic() + 120
    while not (workdir / "metrics.jsonl").exists() or not any(row["step"] >= step for row in read_rows(workdir)):
        assert time.monotonic() < end, "the run does not come on"
        time.sleep(0.05)


def test_two_processes_are_one(pair: Callable, tmp_path: pathlib.Path) -> None:
    """The run of one process with as many devices: every loss and distance, and the state; files by the first alone.

    Asked to leave (the second process is), both save at the same step; one process goes on where the two left.
    """
    evaluated = ("--config.evaluate_every=20", "--config.evaluation.training_samples=140", "--config.sampling.steps=2")
    evaluated += HELD_OUT
    one = launch(tmp_path / "one", 4, "--config.steps=40", *evaluated)
    assert one.communicate(timeout=180)[0] and one.returncode == 0

    first, second = pair(tmp_path / "two", "--config.steps=40", *evaluated)
    (said, _), (silent, _) = first.communicate(timeout=180), second.communicate(timeout=180)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "finished 40 steps" in said and "step" not in silent
    losses = [[row["loss"] for row in read_rows(tmp_path / name)] for name in ("one", "two")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
    rows = [read_rows(tmp_path / name, EVALUATIONS) for name in ("one", "two")]
    distances = [[row["frechet_distance"] for row in of_run] for of_run in rows]
    assert len(distances[0]) == 2
    np.testing.assert_allclose(distances[1], distances[0], rtol=1e-3)
    for name in ("denoising_bound", "denoising_bound_noise_error"):
        np.testing.assert_allclose([row[name] for row in rows[1]], [row[name] for row in rows[0]], rtol=1e-4)
    assert all(row["denoising_bound_examples"] == 50 for of_run in rows for row in of_run)
    assert_same(
        saved_state(tmp_path / "two" / "checkpoints" / str(40)), saved_state(tmp_path / "one" / "checkpoints" / str(40))
    )

    # The other jobs, too, on the same checkpoint.
    measured, drawn = [], []
    for name in ("pair", "alone"):
        for job, flags in (
            ("evaluate", ("--config.evaluation.samples=141", "--config.sampling.steps=2")),
            ("sample", (f"--out={tmp_path / name}", "--config.sampling.samples=9")),
        ):
            command = (tmp_path / "two", f"--job={job}", "--config.steps=40", *HELD_OUT, *flags)
            running = pair(*command) if name == "pair" else [launch(command[0], 4, *command[1:])]
            (said, err), *silent = [process.communicate(timeout=180) for process in running]
            assert [process.returncode for process in running] == [0] * len(running), err
            assert "wrote" in said and not any("wrote" in out or "samples" in out for out, _ in silent)
        measured.append(flatten(json.loads((tmp_path / "two" / "evaluation.json").read_text())))
        drawn.append(np.load(tmp_path / name / "samples.npz")["images"])
    assert measured[0].keys() == measured[1].keys()
    assert len(measured[0]["denoising_bound.noise_error"]) == 3
    for key, value in measured[0].items():
        exact = not isinstance(value, float | list)
        assert value == (measured[1][key] if exact else pytest.approx(measured[1][key], rel=1e-6)), key
    np.testing.assert_array_equal(drawn[0], drawn[1])

    first, second = pair(tmp_path / "parts", "--config.steps=100000")
    wait_for_step(tmp_path / "parts", 5)
    second.send_signal(signal.SIGINT)  # passed on as SIGTERM, as schedulers send it
    said = first.communicate(timeout=60)[0] + second.communicate(timeout=60)[0]
    assert (first.returncode, second.returncode) == (128 + signal.SIGTERM,) * 2
    assert "stopped by SIGTERM after saving step" in said
    step = max(int(path.name) for path in (tmp_path / "parts" / "checkpoints").glob("[0-9]*"))
    end = step + 10 - step % 5
    for name, devices in (("parts", 4), ("whole", 4)):
        process = launch(tmp_path / name, devices, f"--config.steps={end}")
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
        assert (f"continuing from the checkpoint at step {step}" in out) == (name == "parts")
    assert_same(
        saved_state(tmp_path / "parts" / "checkpoints" / str(end)),
        saved_state(tmp_path / "whole" / "checkpoints" / str(end)),
    )
    rows = [[row["loss"] for row in read_rows(tmp_path / name)] for name in ("parts", "whole")]
    np.testing.assert_allclose(rows[0][-1], rows[1][-1], rtol=1e-5)  # the same examples, in the same order


def test_processes_that_hold_the_same_rows_read_the_same(pair: Callable, tmp_path: pathlib.Path) -> None:
    """Where they differ along "tensor" alone."""
    flags = ("--config.steps=10", "--config.mesh.data=1", "--config.mesh.tensor=4", "--config.sample_every=0")
    flags += ("--config.network.num_heads=4",)
    running = [launch(tmp_path / "one", 4, *flags), *pair(tmp_path / "two", *flags)]
    for process in running:
        _, words = process.communicate(timeout=180)
        assert process.returncode == 0, words
    losses = [[row["loss"] for row in read_rows(tmp_path / name)] for name in ("one", "two")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)


def test_a_process_that_dies_ends_the_other(pair: Callable, tmp_path: pathlib.Path) -> None:
    first, second = pair(tmp_path / "run", "--config.steps=100000")
    wait_for_step(tmp_path / "run", 10)
    second.kill()
    began = time.monotonic()
    _, words = first.communicate(timeout=60)
    assert time.monotonic() - began < 60 and first.returncode != 0
    assert "another task died" in words or "Connection closed by peer" in words


def test_a_coordinator_that_is_not_there(tmp_path: pathlib.Path) -> None:
    """Said within the time given, with host and port."""
    port = free_port()
    flags = (f"--coordinator=127.0.0.1:{port}", "--num_processes=2", "--process_id=1", "--connect_timeout=2")
    process = launch(tmp_path / "run", 1, *flags)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 2 and words.count("\n") == 1
    assert f"error: --coordinator=127.0.0.1:{port}: could not be reached in 2 s" in words
    assert not (tmp_path / "run").exists()


def test_processes_meet_before_jax_sees_them() -> None:
    """All or none: JAX would end those that wait for one that does not come, with a stack dump."""
    address = f"127.0.0.1:{free_port()}"
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        with socket.socket() as stranger:  # says nothing, or nothing that is known
            meeting = [threads.submit(distributed._meet, address, 3, index, 20) for index in (0, 1)]
            time.sleep(0.3)
            stranger.connect(("127.0.0.1", int(address.rpartition(":")[2])))
            stranger.sendall(b"GET / HTTP/1.1\n")
        with socket.socket() as probe:  # closes with a reset, as probes of a port do
            probe.connect(("127.0.0.1", int(address.rpartition(":")[2])))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert not meeting[1].done()
        meeting.append(threads.submit(distributed._meet, address, 3, 2, 20))
        assert [one.result(timeout=20) for one in meeting] == [None] * 3

    address = f"127.0.0.1:{free_port()}"
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        meeting = [threads.submit(distributed._meet, address, *who, 2) for who in ((3, 0), (2, 1))]
        with pytest.raises(UserError, match="process 0 expects 3 processes, not '1 of 2'"):
            meeting[1].result(timeout=20)
        with pytest.raises(UserError, match=f"--coordinator={address}: process 1, 2 did not come within 2 s"):
            meeting[0].result(timeout=20)


def test_a_platform_that_is_not_there() -> None:
    command = [sys.executable, "-m", "diffcurr.main", "--config=digits", "--job=sample", "--workdir=nowhere"]
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: JAX finds no device to run on") and "JAX_PLATFORMS='cuda'" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("host:1", None, 0), "--num_processes missing: --coordinator, --num_processes and --process_id go together"),
        (("host", 2, 0), "--coordinator=host: give host:port"),
        (("host:abc", 2, 0), "--coordinator=host:abc: give host:port, with a port from 1 to 65535"),
        (("host:65536", 2, 1), "--coordinator=host:65536: give host:port"),
        ((":1", 2, 1), "--coordinator=:1: give host:port"),
        (("auto", 2, None), "--coordinator=auto finds the number of processes by itself: leave out the other flags"),
        (("host:1", 2, 2), r"--process_id=2: must lie in 0..1 \(--num_processes\)"),
    ],
)
def test_bad_flags(flags: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        distributed.initialize(*flags)


def test_no_cluster_to_find(tmp_path: pathlib.Path) -> None:
    process = launch(tmp_path / "run", 1, "--coordinator=auto")
    _, words = process.communicate(timeout=60)
    assert process.returncode == 2 and "error: JAX finds no cluster here that it knows" in words


def test_jobs_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed.require_one_process("--job=compare")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="--job=compare runs in one process, which may have many devices"):
        distributed.require_one_process("--job=compare")


def test_what_the_environment_announces() -> None:
    assert not distributed.announced({})
    assert not distributed.announced({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"})
    assert distributed.announced({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"})
    assert not distributed.announced({"TPU_WORKER_HOSTNAMES": "localhost"})
    assert distributed.announced({"TPU_WORKER_HOSTNAMES": "10.0.0.2,10.0.0.3"})
