"""How a run is laid out over devices: the mesh, and where every array of the state lies."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int, Shaped

from diffcurr import layout
from diffcurr.layout import BATCH_AXES, MESH_AXES

BATCH = PartitionSpec(BATCH_AXES)


def make_mesh(data: int, fsdp: int, tensor: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with axes ("data", "fsdp", "tensor"); a size of -1 takes what the others leave.

    Several slices of a TPU lie along the data axis, outermost: only sums of gradients cross the slower network.

    Raises:
      ValueError: if the sizes do not multiply to the number of devices, or data not to that of slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [data, fsdp, tensor]
    given = int(np.prod([size for size in sizes if size != -1]))
    if sizes.count(-1) > 1 or any(size != -1 and size < 1 for size in sizes):
        raise ValueError(f"{_show(sizes)}: give sizes of at least 1, and -1 (whatever is left) to one at most")
    if -1 in sizes and len(devices) % given == 0:
        sizes[sizes.index(-1)] = len(devices) // given
    if int(np.prod(sizes)) != len(devices):
        raise ValueError(f"{_show(sizes)}: their product must be the number of devices, {len(devices)}")
    auto = (AxisType.Auto,) * len(MESH_AXES)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=auto, devices=devices)
    if sizes[0] % slices:
        raise ValueError(f"{_show(sizes)}: data must be a multiple of the number of slices, {slices}")
    inner = (sizes[0] // slices, *sizes[1:])
    return Mesh(mesh_utils.create_hybrid_device_mesh(inner, (slices, 1, 1), devices), MESH_AXES, axis_types=auto)


def _show(sizes: Sequence[int]) -> str:
    return ", ".join(f"{axis} = {size}" for axis, size in zip(MESH_AXES, sizes, strict=True))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis over data x fsdp."""
    return NamedSharding(mesh, BATCH)


def owners(mesh: Mesh) -> Int[np.ndarray, "data fsdp tensor"]:
    """The process that each device belongs to."""
    return np.vectorize(lambda device: device.process_index, otypes=[int])(mesh.devices)


def batch_share(owners: Int[np.ndarray, "data fsdp tensor"], process: int) -> tuple[int, int]:
    """(which share of each batch a process reads, the number of shares).

    Processes whose devices differ along "tensor" alone hold the same rows, so they read the same share.

    Args:
      owners: `owners(mesh)`.

    Raises:
      ValueError: if processes have some rows in common and others not.
    """
    tensor = owners.shape[-1]
    rows: dict[int, list[int]] = {}
    for row, of_row in enumerate(owners.reshape(-1, tensor)):
        for owner in set(of_row.tolist()):
            rows.setdefault(owner, []).append(row)
    shares = sorted({tuple(held) for held in rows.values()})
    if sum(map(len, shares)) * tensor != owners.size or len({len(held) for held in shares}) > 1:
        raise ValueError(
            f"tensor = {tensor}: groups of so many devices begin and end inside processes: choose a size that divides "
            f"the devices of a process, or is a multiple of their number"
        )
    return shares.index(tuple(rows[process])), len(shares)


def place(values: Any, sharding: NamedSharding) -> Any:
    """A pytree of NumPy arrays, the same in every process, as arrays of that sharding."""

    def put(value: Any) -> jax.Array:
        whole = np.asarray(value)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(put, values)


def on_host(values: Any) -> Any:
    """A pytree of arrays, whole, as NumPy arrays in every process. One array at a time lies whole on the devices."""
    return multihost_utils.process_allgather(values, tiled=True)


def rows_here(x: jax.Array) -> tuple[Int[np.ndarray, " row"], Shaped[np.ndarray, "row *rest"]]:
    """(their numbers, the rows) of an array, spread by its first axis, that this process holds.

    Of rows that several devices hold, one device counts, so that each row is in one process.
    """
    shards = [shard for shard in x.addressable_shards if shard.replica_id == 0]
    shards.sort(key=lambda shard: shard.index[0].start or 0)
    rows = [np.arange(x.shape[0])[shard.index[0]] for shard in shards]
    if not rows:
        return np.zeros(0, int), np.zeros((0, *x.shape[1:]), x.dtype)
    return np.concatenate(rows), np.concatenate([np.asarray(shard.data) for shard in shards])


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts the batch is cut."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def state_shardings(mesh: Mesh, abstract_state: Any) -> Any:
    """A NamedSharding for every leaf of a pytree of shapes, by the rules of `diffcurr.layout`."""

    def sharding(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        return NamedSharding(mesh, layout.partition(layout.path_name(path), leaf.shape, mesh.shape))

    return jax.tree_util.tree_map_with_path(sharding, abstract_state)
