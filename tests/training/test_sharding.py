"""If these fail, arrays lie wrongly over the devices: too much memory, too much traffic, or no program at all."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from diffcurr import layout
from diffcurr.planning import chips
from diffcurr.training import sharding


def test_mesh_takes_what_is_left() -> None:
    assert dict(sharding.make_mesh(-1, 4, 1).shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert sharding.batch_shards(sharding.make_mesh(2, 2, 2)) == 4


@pytest.mark.parametrize("sizes", [(3, 1, 1), (-1, 3, 1), (-1, -1, 1), (0, 1, 8), (16, 1, 1)])
def test_mesh_rejects(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"data = {sizes[0]}"):
        sharding.make_mesh(*sizes)


def test_slices_lie_along_the_data_axis() -> None:
    """Whatever shares parameters stays within a slice. The compiler for TPUs knows slices that are not there."""
    pytest.importorskip("libtpu")
    _, devices = chips.open_topology("v5e:2x2,slices=2")
    mesh = sharding.make_mesh(-1, 4, 1, devices)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert [{device.slice_index for device in row.flat} for row in mesh.devices] == [{0}, {1}]
    assert sharding.make_mesh(4, 2, 1, devices).devices[1, 0, 0].slice_index == 0
    with pytest.raises(ValueError, match="data must be a multiple of the number of slices, 2"):
        sharding.make_mesh(1, 8, 1, devices)


def test_the_share_of_a_batch_that_a_process_reads() -> None:
    """Processes that hold the same rows read the same share: else they would take other examples for the same ones."""

    def shares(data: int, tensor: int, per_process: int) -> list[tuple[int, int]]:
        owners = np.arange(data * tensor).reshape(data, 1, tensor) // per_process
        return [sharding.batch_share(owners, process) for process in range(data * tensor // per_process)]

    assert shares(8, 1, per_process=2) == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert shares(4, 2, per_process=4) == [(0, 2), (1, 2)]
    assert shares(4, 2, per_process=1) == [(0, 4), (0, 4), (1, 4), (1, 4), (2, 4), (2, 4), (3, 4), (3, 4)]
    assert shares(2, 4, per_process=2) == [(0, 2), (0, 2), (1, 2), (1, 2)]
    assert sharding.batch_share(sharding.owners(sharding.make_mesh(2, 2, 2)), 0) == (0, 1)
    with pytest.raises(ValueError, match="tensor = 3: groups of so many devices begin and end inside processes"):
        shares(4, 3, per_process=4)


def test_rules() -> None:
    mesh = sharding.make_mesh(2, 2, 2)
    assert layout.partition("params/blocks/qkv/kernel", (3, 8, 24), mesh.shape) == P(None, "fsdp", "tensor")
    assert layout.partition("opt_state/1/0/mu/blocks/fc2/kernel", (3, 32, 8), mesh.shape) == P(None, "tensor", "fsdp")
    assert layout.partition("ema/final_linear/kernel", (8, 4), mesh.shape) == P("fsdp", None)
    assert layout.partition("ema/final_linear/kernel", (7, 4), mesh.shape) == P(None, None)  # 2 does not divide 7
    assert layout.partition("curriculum/stage", (), mesh.shape) == P()


def test_everything_that_mirrors_a_parameter_lies_where_it_does() -> None:
    mesh = sharding.make_mesh(1, 8, 1)
    shape = jax.ShapeDtypeStruct((16, 48), "float32")
    found = sharding.state_shardings(mesh, {k: {"qkv": {"kernel": shape}} for k in ("params", "ema", "opt_state")})
    assert len({leaf.spec for leaf in jax.tree.leaves(found)}) == 1
