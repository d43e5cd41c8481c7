"""Accelerators that need not be there: what is published of them, and their topologies to compile for."""

import dataclasses
import importlib.util
import os
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from diffcurr.errors import first_line


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip.

    Attributes:
      memory: bytes of HBM.
      flops: peak of dense bfloat16 products, per second.
      bandwidth: of HBM, bytes per second.
      interconnect: of all links of a chip to its neighbours together, bytes per second.
      shapes: topologies to name when another was asked for; there are larger ones.
    """

    memory: float
    flops: float
    bandwidth: float
    interconnect: float
    shapes: tuple[str, ...]


_PLANES = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
CHIPS = {  # cloud.google.com/tpu/docs, the page of each generation
    "v4": Chip(32e9, 275e12, 1228e9, 300e9, _CUBES),
    "v5e": Chip(16e9, 197e12, 819e9, 200e9, _PLANES),
    "v5p": Chip(95e9, 459e12, 2765e9, 600e9, _CUBES),
    "v6e": Chip(32e9, 918e12, 1640e9, 448e9, _PLANES),
}


def open_topology(name: str) -> tuple[Chip, Sequence[jax.Device]]:
    """The chip, and the devices to make a mesh of: programs can be compiled for them, and not run.

    Args:
      name: `generation:shape`, such as `v5e:16x16`.

    Raises:
      ValueError: if there is no such topology, naming those there are.
      ModuleNotFoundError: if the compiler for TPUs is not installed, saying how it is.
    """
    generation = name.partition(":")[0]
    if generation not in CHIPS:
        examples = ", ".join(f"{known}:{chip.shapes[-1]}" for known, chip in CHIPS.items())
        raise ValueError(f"topology {name!r}: there is none of that name; examples are {examples}")
    chip = CHIPS[generation]
    if importlib.util.find_spec("libtpu") is None:
        raise ModuleNotFoundError(
            "compiling for a TPU needs its compiler: pip install 'libtpu==0.0.42.*' (Linux on x86-64)"
        )
    # Without these the compiler looks for a TPU on this machine.
    quiet = {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is taken, so others may compile or run beside this
    }
    for key, value in quiet.items():
        os.environ.setdefault(key, value)
    try:
        return chip, topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        known = ", ".join(f"{generation}:{known}" for known in chip.shapes)
        raise ValueError(f"topology {name!r}: {generation} comes as {known} ({first_line(error)})") from error
