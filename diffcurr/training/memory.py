"""Whether what is computed fits into the memory of the devices."""

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from diffcurr.errors import UserError, first_line


def check(abstract_state: Any, mesh: Mesh) -> None:
    """
    Args:
      abstract_state: shapes, dtypes and shardings of the state.

    Raises:
      UserError: if it alone is larger than a device's memory.
    """
    leaves = jax.tree.leaves(abstract_state)
    needed = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)
    device = mesh.local_devices[0]
    statistics = device.memory_stats() or {}  # a CPU has none
    there = statistics.get("bytes_limit") or _memory_of_the_machine() // len(mesh.local_devices)
    if needed > there:
        raise UserError(
            f"the state takes {needed / 1e9:,.1f} GB on a {device.platform} device, which has {there / 1e9:,.1f} GB: "
            f"choose a smaller network, or spread it over devices with mesh.fsdp; --job=plan says what fits"
        )


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """Turns JAX's error of a device that has no more memory into one line."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"the memory of a device does not suffice ({first_line(error)}): take a smaller batch_size or network, or "
            f"more microbatches; --job=plan says what fits"
        ) from error


def _memory_of_the_machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
