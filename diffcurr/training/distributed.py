"""Several processes as one run: on a TPU pod, on GKE, under SLURM, or by hand."""

import contextlib
import glob
import importlib.util
import os
import socket
import time
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int, Shaped

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
      coordinator: host:port of process 0, the same for all; or "auto", on a cluster that JAX finds where no variable of
        the environment is set, such as the workers of a Cloud TPU.
      timeout: seconds to wait for all processes to be there.

    Raises:
      UserError: for flags that are incomplete or do not fit, or if the coordinator cannot be reached in time.
    """
    _leave_out_absent_tpu()
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if coordinator == "auto":
        if len(missing) < 2:
            raise UserError("--coordinator=auto finds the number of processes by itself: leave out the other flags")
        coordinator = None
    elif not missing:
        assert coordinator is not None and num_processes is not None and process_id is not None
        _address(coordinator)
        if not 0 <= process_id < num_processes:
            raise UserError(f"--process_id={process_id}: must lie in 0..{num_processes - 1} (--num_processes)")
    elif len(missing) < len(given):
        raise UserError(f"{', '.join(missing)} missing: --coordinator, --num_processes and --process_id go together")
    elif not announced(os.environ):
        return
    if coordinator is not None:
        assert num_processes is not None and process_id is not None
        _meet(coordinator, num_processes, process_id, timeout)
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


def _leave_out_absent_tpu() -> None:
    """Where the compiler for TPUs is installed and no TPU is, JAX would print what looks like faults, for seconds."""
    devices = [*glob.glob("/dev/accel*"), *glob.glob("/dev/vfio/*")]
    other_plugins = importlib.util.find_spec("jax_plugins")  # such as that for NVIDIA's GPUs
    if importlib.util.find_spec("libtpu") and not devices and not other_plugins:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])


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
    """function() on process 0, then on the others, for whom what it prepared is there already.

    Raises:
      UserError: on the others, if it failed on process 0, which raises its own error.
    """
    if jax.process_count() == 1:
        return function()
    result, problem = None, None
    if is_primary():
        try:
            result = function()
        except Exception as error:  # raised below, once the others know
            problem = error
    failed = from_primary(float(problem is not None))
    if problem is not None:
        raise problem
    if failed:
        raise UserError("process 0 could not go on: its message says why")
    return typing.cast(T, result) if is_primary() else function()


def on_primary(function: Callable[[], T]) -> T | None:
    """function() on process 0; None on the others, which wait for it, and fail where it does (see `primary_first`)."""
    return primary_first(lambda: function() if is_primary() else None)


def total(values: Any) -> Any:
    """The sums over all processes of float64 values, or of a number, in every process."""
    if jax.process_count() == 1:
        return values
    # JAX would round float64 to float32, so the values travel as their bits.
    bits = np.atleast_1d(np.asarray(values, np.float64)).view(np.uint32)
    gathered = np.ascontiguousarray(multihost_utils.process_allgather(bits)).view(np.float64)
    return np.sum(gathered, axis=0).reshape(np.shape(values))


def from_primary(values: Any) -> Any:
    """Float64 values, or a number, as process 0 has them, in every process; what the others give is not looked at.

    What is decided by files is decided so: processes may see a shared folder as it was at different moments.
    """
    return total(values if is_primary() else np.zeros(np.shape(values)))


def gather(
    indices: Int[np.ndarray, " here"], values: Shaped[np.ndarray, "here *rest"]
) -> Shaped[np.ndarray, "all *rest"]:
    """The rows of all processes in the order of their indices, in every process; a row that two hold is there once.

    Args:
      indices: indices of this process's rows, each at least 0.
      values: the rows; of the same shape and dtype in all processes.
    """
    if jax.process_count() > 1:
        most = int(np.max(multihost_utils.process_allgather(np.int64(len(indices)))))
        padding = most - len(indices)
        padded = np.concatenate([values, np.zeros((padding, *values.shape[1:]), values.dtype)])
        marked = np.concatenate([indices, np.full(padding, -1)])
        values = np.asarray(multihost_utils.process_allgather(padded, tiled=True))
        indices = np.asarray(multihost_utils.process_allgather(marked, tiled=True))
    elif np.all(np.diff(indices) > 0):
        return values  # as they are, and not copied, which may be all that fits into memory
    _, first = np.unique(indices, return_index=True)
    return values[first[indices[first] >= 0]]


def _address(coordinator: str) -> tuple[str, int]:
    """
    Raises:
      UserError: unless it is host:port. JAX would end the process without a word to the user.
    """
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={coordinator}: give host:port, with a port from 1 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _meet(coordinator: str, num_processes: int, process_id: int, timeout: int) -> None:
    """Waits until all processes are there, for JAX would end this one, with a stack trace, if one does not come.

    Process 0 listens until each of the others has said its number; then all go on to JAX, which takes the same port.

    Raises:
      UserError: saying who did not come.
    """
    host, port = _address(coordinator)
    end = time.monotonic() + timeout
    if process_id == 0:
        _gather(coordinator, port, num_processes, end, timeout)
        return
    while True:
        try:
            with socket.create_connection((host, port), timeout=max(0.1, end - time.monotonic())) as connection:
                connection.sendall(f"{process_id} of {num_processes}\n".encode())
                connection.settimeout(max(0.1, end - time.monotonic()))
                answer = connection.makefile().readline().strip()
            if answer == "go":
                return
            if answer:
                raise UserError(f"--coordinator={coordinator}: {answer}")
            raise ConnectionError("process 0 gave no answer")
        except OSError as error:
            if time.monotonic() >= end:
                raise UserError(
                    f"--coordinator={coordinator}: could not be reached in {timeout} s ({error}); is process 0 running "
                    f"there, and the port open?"
                ) from error
            time.sleep(min(0.5, timeout / 10))


def _gather(coordinator: str, port: int, num_processes: int, end: float, timeout: int) -> None:
    """Listens until processes 1 to num_processes - 1 have said their numbers, and lets them go on."""
    here: dict[int, socket.socket] = {}
    try:
        listening = socket.create_server(("", port))
    except OSError as error:
        raise UserError(f"--coordinator={coordinator}: cannot listen there ({error}): choose another port") from error
    try:
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(listening)
            while len(here) < num_processes - 1:
                server.settimeout(max(0.01, end - time.monotonic()))
                try:
                    connection = stack.enter_context(server.accept()[0])
                except ConnectionError:  # whoever it was is gone
                    continue
                said = _line(connection)
                number, _, of = said.partition(" of ")
                if not number.isdigit() or of != str(num_processes) or not 0 < int(number) < num_processes:
                    with contextlib.suppress(OSError):  # whoever it is may be gone
                        connection.sendall(f"process 0 expects {num_processes} processes, not {said!r}\n".encode())
                    continue
                here[int(number)] = connection  # a process that was started again takes the place of the one before
            for process, connection in here.items():
                try:
                    connection.sendall(b"go\n")
                except OSError as error:
                    what = f"process {process} came, and left again ({error})"
                    raise UserError(f"--coordinator={coordinator}: {what}") from error
    except TimeoutError as error:
        missing = sorted(set(range(1, num_processes)) - set(here))
        raise UserError(
            f"--coordinator={coordinator}: process {', '.join(map(str, missing))} did not come within {timeout} s"
        ) from error


def _line(connection: socket.socket) -> str:
    """The line that a process sends; "" from whoever sends none in a few seconds."""
    connection.settimeout(5.0)
    try:
        with connection.makefile() as lines:
            return lines.readline(100).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def require_devices() -> None:
    """
    Raises:
      UserError: if JAX has nothing to run on.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # of a platform that it does not know it asserts that there is one
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"JAX finds no device to run on ({first_line(error)}; JAX_PLATFORMS={platforms!r}): install the version of "
            f"JAX for it, or unset JAX_PLATFORMS"
        ) from error
