"""Accelerators that need not be there: what is published of them, and their topologies to compile for."""

import dataclasses
import importlib.util
import os
import re
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
      bandwidth: bandwidth of HBM, bytes per second.
      interconnect: bandwidth of all links of a chip to its neighbours together, bytes per second.
      shapes: topologies to name when another was asked for; there are larger ones.
      target: what XLA has to know of a GPU (its `GpuTargetConfigProto`, as text); empty for a TPU.
      float32_flops: peak of float32 products as JAX multiplies them unless it is told otherwise: a GPU in TF32. A TPU
        rounds the factors to bfloat16, so that it is 0: that of bfloat16.
      clock: cycles of the matrix units, per second; 0 where it does not follow from published figures.
    """

    memory: float
    flops: float
    bandwidth: float
    interconnect: float
    shapes: tuple[str, ...]
    target: str = ""
    float32_flops: float = 0.0
    clock: float = 0.0

    def peak(self, dtype: str) -> float:
        """Peak rate of dense products of this dtype, in operations a second."""
        return (self.float32_flops if dtype == "float32" else 0.0) or self.flops


def _gpu(
    memory: float, flops: float, bandwidth: float, interconnect: float, *, capability: int, shared: int, **device: int
) -> Chip:
    """A data-centre GPU.

    Args:
      capability: compute capability, 90 for 9.0.
      shared: bytes of shared memory of a multiprocessor, of which 1,024 are the system's.
      device: further fields of XLA's description.
    """
    major, minor = divmod(capability, 10)
    fields = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "threads_per_core_limit": 2048,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": shared,
        "shared_memory_per_block_optin": shared - 1024,
        "memory_bandwidth": int(bandwidth),
        "device_memory_size": int(memory),
        **device,
    }
    info = " ".join(f"{name}: {value}" for name, value in fields.items())
    target = (
        f"gpu_device_info {{ cuda_compute_capability {{ major: {major} minor: {minor} }} {info} }} "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 patch: 0 }'
    )
    return Chip(memory, flops, bandwidth, interconnect, ("1", "8", "16", "64"), target, float32_flops=flops / 2)


_PLANES = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
TPUS = {  # cloud.google.com/tpu/docs, the page of each generation; clock: peak / operations of all units in a cycle
    "v4": Chip(32e9, 275e12, 1228e9, 300e9, _CUBES, clock=1.05e9),
    "v5e": Chip(16e9, 197e12, 819e9, 200e9, _PLANES, clock=1.5e9),
    "v5p": Chip(95e9, 459e12, 2765e9, 600e9, _CUBES, clock=1.75e9),
    "v6e": Chip(32e9, 918e12, 1640e9, 448e9, _PLANES),
}
_HOPPER = {"capability": 90, "shared": 233472, "core_count": 132, "fpus_per_core": 128, "l2_cache_size": 50 * 2**20}
_AMPERE = {"capability": 80, "shared": 167936, "core_count": 108, "fpus_per_core": 64, "l2_cache_size": 40 * 2**20}
GPUS = {  # NVIDIA's data sheets (SXM) and tuning guides; the interconnect is NVLink's, in one direction
    "a100": _gpu(80e9, 312e12, 2039e9, 300e9, **_AMPERE),
    "h100": _gpu(80e9, 989e12, 3350e9, 450e9, **_HOPPER),
    "h200": _gpu(141e9, 989e12, 4800e9, 450e9, **_HOPPER),
}
GPUS_A_HOST = 8
KINDS: dict[str, Chip] = {  # what JAX calls the devices whose peak is known, as patterns
    r"TPU v4": TPUS["v4"],
    r"TPU v5 ?(lite|e)": TPUS["v5e"],
    r"TPU v5p?": TPUS["v5p"],
    r"TPU v6 ?(lite|e)": TPUS["v6e"],
    r"NVIDIA A100.*": GPUS["a100"],
    r"NVIDIA H100 80GB HBM3": GPUS["h100"],  # SXM; others are slower
    r"NVIDIA H200": GPUS["h200"],
}


def known(device_kind: str) -> Chip | None:
    """The chip of a device, by `jax.Device.device_kind`; None for one whose figures are not known, such as a CPU."""
    return next((chip for pattern, chip in KINDS.items() if re.fullmatch(pattern, device_kind)), None)


def open_topology(name: str) -> tuple[Chip, Sequence[jax.Device]]:
    """The chip, and the devices to make a mesh of: programs can be compiled for them, and not run.

    Args:
      name: `generation:shape` of a TPU, such as `v5e:16x16`, of several slices with `,slices=2` behind; or
        `cuda:modelxnumber`, such as `cuda:h100x8`, of which hosts hold 8 each.

    Raises:
      ValueError: if there is no such topology, naming those there are.
      ModuleNotFoundError: if the compiler is not installed, saying how it is.
    """
    family, _, shape = name.partition(":")
    if family == "cuda":
        return _open_gpus(name, shape)
    if family in TPUS:
        return _open_tpus(name, family, shape)
    examples = [f"{known}:{chip.shapes[-1]}" for known, chip in TPUS.items()] + ["cuda:h100x8"]
    raise ValueError(f"topology {name!r}: there is none of that name; examples are {', '.join(examples)}")


def _open_tpus(name: str, generation: str, shape: str) -> tuple[Chip, Sequence[jax.Device]]:
    chip = TPUS[generation]
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
    shape, _, slices = shape.partition(",slices=")
    try:
        number = int(slices or 1)
        if number < 1:
            raise ValueError(f"slices={number}")
        topology = topologies.get_topology_desc(f"{generation}:{shape}", "tpu", num_slices=number)
        return chip, topology.devices
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        known = ", ".join(f"{generation}:{known}" for known in chip.shapes)
        raise ValueError(
            f"topology {name!r}: {generation} comes as {known}, or more with ,slices=2 behind ({first_line(error)})"
        ) from error


def _open_gpus(name: str, shape: str) -> tuple[Chip, Sequence[jax.Device]]:
    model, _, digits = shape.rpartition("x")
    number = int(digits) if digits.isdecimal() else 0
    if model not in GPUS or number < 1 or (number > GPUS_A_HOST and number % GPUS_A_HOST):
        raise ValueError(
            f"topology {name!r}: GPUs are {', '.join(GPUS)}, up to {GPUS_A_HOST} on one host or multiples of "
            f"{GPUS_A_HOST} on several, such as cuda:{next(iter(GPUS))}x{2 * GPUS_A_HOST}"
        )
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        raise ModuleNotFoundError(
            f"compiling for a GPU needs JAX's CUDA plugin: pip install 'jax-cuda12-plugin=={jax.__version__}'"
        )
    hosts = max(1, number // GPUS_A_HOST)
    topology = topologies.get_topology_desc(
        model, "cuda", topology=f"1x{hosts}x{number // hosts}", target_config=GPUS[model].target
    )
    return GPUS[model], topology.devices
