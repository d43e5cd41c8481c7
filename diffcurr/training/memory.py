"""Whether a state fits, before anything is allocated."""

import math
import os
from typing import Any

import jax
from jax.sharding import Mesh

from diffcurr.errors import UserError


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


def _memory_of_the_machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
