"""Several processes as one run: on a TPU pod, on GKE, under SLURM, or by hand."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

from diffcurr.errors import UserError, first_line

T = TypeVar("T")
HEARTBEAT_SECONDS = 30  # after so long without a sign of life a process counts as gone, and the others end too


def announced(environment: Mapping[str, str]) -> bool:
    """Whether the environment says that this is one of several processes: a SLURM step, or a worker of a TPU slice."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    workers = environment.get("TPU_WORKER_HOSTNAMES", "")
    return ("SLURM_PROCID" in environment and int(tasks) > 1) or "," in workers or "MEGASCALE_NUM_SLICES" in environment


def initialize(coordinator: str | None, num_processes: int | None, process_id: int | None, timeout: int = 60) -> None:
    """Joins the processes of a run where flags or the environment announce them; else this process is the run.

    To be called before anything asks JAX for its devices.

    Args:
      coordinator: host:port of the process 0, the same for all; or "auto", on a cluster that JAX knows without a word
        from the environment, such as the workers of a Cloud TPU.
      timeout: seconds to wait for all processes to be there.

    Raises:
      UserError: for flags that are incomplete or do not fit, or if the coordinator cannot be reached in time.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if coordinator == "auto":
        if len(missing) < 2:
            raise UserError("--coordinator=auto finds the number of processes by itself: leave out the other flags")
        coordinator = None
    elif not missing:
        assert coordinator is not None and num_processes is not None and process_id is not None
        if ":" not in coordinator:
            raise UserError(f"--coordinator={coordinator}: give host:port")
        if not 0 <= process_id < num_processes:
            raise UserError(f"--process_id={process_id}: must lie in 0..{num_processes - 1} (--num_processes)")
    elif len(missing) < len(given):
        raise UserError(f"{', '.join(missing)} missing: --coordinator, --num_processes and --process_id go together")
    elif not announced(os.environ):
        return
    if process_id != 0 and coordinator is not None:
        _wait_for(coordinator, timeout)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        raise UserError(f"JAX finds no cluster here that it knows ({first_line(error)}): name --coordinator") from error
    except (RuntimeError, jax.errors.JaxRuntimeError) as error:
        where = coordinator or "the coordinator that the environment announces"
        raise UserError(f"{where}: not every process came within {timeout} s ({first_line(error)})") from error


def is_primary() -> bool:
    """Whether this is process 0, which writes files and logs."""
    return jax.process_index() == 0


def require_one_process(what: str) -> None:
    """Raises UserError if the run has several."""
    if jax.process_count() > 1:
        raise UserError(
            f"{what} runs in one process, which may have many devices, and was started in {jax.process_count()}"
        )


def primary_first(function: Callable[[], T]) -> T:
    """function() on the first process, then on the others, for whom what it prepared is there already."""
    if is_primary():
        result = function()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("diffcurr:primary_first")
    return result if is_primary() else function()


def _wait_for(coordinator: str, timeout: int) -> None:
    """Waits until something listens there. JAX itself would end the process, with a stack trace, if nothing does."""
    host, _, port = coordinator.rpartition(":")
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=max(0.1, end - time.monotonic())).close()
            return
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) or time.monotonic() >= end:
                raise UserError(
                    f"--coordinator={coordinator}: could not be reached in {timeout} s ({error}); is process 0 running "
                    f"there, and the port open?"
                ) from error
            time.sleep(min(0.5, timeout / 10))
