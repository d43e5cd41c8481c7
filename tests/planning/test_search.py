"""If a test here fails, the plan looks for settings that fit in another way. The compiler here is a formula."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from ml_collections import ConfigDict

from diffcurr.errors import UserError
from diffcurr.planning.program import Compiled
from diffcurr.planning.search import Search


def compiled(batch_size: int, curvature: float = 0.0, most: float = float("inf")) -> Compiled:
    """100 bytes that do not depend on the batch, 3 for each example; above `most` the compiler gives up."""
    temporary = int(3 * batch_size + curvature * batch_size**2)
    if 100 + temporary > most:
        return Compiled(seconds=1.0, needed="too much")
    return Compiled(seconds=1.0, argument_bytes=60, program_bytes=40, temporary_bytes=temporary)


def search(
    compile_with: Callable[[Mapping[str, Any]], Compiled],
    said: list[str],
    batch_size: int = 16,
    tensor: int = 1,
    **network: Any,
) -> Search:
    mesh = {"data": -1, "fsdp": 1, "tensor": tensor}
    config = ConfigDict({"batch_size": batch_size, "microbatches": 2, "network": network, "mesh": mesh})
    return Search(config=config, chips=4, memory=1000.0, compile_with=compile_with, say=said.append)


def test_the_largest_batch_where_memory_is_a_line() -> None:
    """The first trial is limited to 16 times what fits, the second is 98 % of the memory; nothing larger is left."""
    said: list[str] = []
    found = search(lambda changes: compiled(changes["batch_size"]), said).largest_batch(compiled(16))
    assert found == 288  # the largest multiple of 4 chips x 2 microbatches below (0.98 x 1000 - 100) / 3
    assert said == ["batch 256: fits (1 s)", "batch 288: fits (1 s)"]


@pytest.mark.parametrize("most", [1000.0, float("inf")])
def test_the_largest_batch_where_memory_bends(most: float) -> None:
    """A trial that does not fit, whether the compiler gives up or not, bounds the next; three trials are the limit."""
    said: list[str] = []

    def compile_with(changes: Mapping[str, Any]) -> Compiled:
        return compiled(changes["batch_size"], 0.02, most)

    found = search(compile_with, said).largest_batch(compiled(16, 0.02))
    assert said[0] == "batch 256: does not fit (1 s)"
    assert len(said) == 3
    fitting = [int(line.split()[1][:-1]) for line in said if line.endswith(": fits (1 s)")]
    assert found == max(fitting, default=16)
    assert compiled(found).fits(1000.0)


def test_the_largest_batch_where_the_own_one_is_too_large() -> None:
    """A smaller one is looked for; None if none is found."""
    said: list[str] = []
    one = search(lambda changes: compiled(changes["batch_size"]), said, batch_size=400)
    assert one.largest_batch(compiled(400)) == 288
    never = search(lambda changes: Compiled(seconds=1.0, needed="too much"), said, batch_size=400)
    assert never.largest_batch(compiled(400)) is None


def test_gentler_settings() -> None:
    """In their order; those that do not work are said and passed over, and the first that fits is the answer."""
    said, tried = [], []

    def compile_with(changes: Mapping[str, Any]) -> Compiled:
        tried.append(dict(changes))
        if changes.get("mesh.fsdp") and "network.remat" not in changes:
            raise UserError("not on this number of chips")
        return compiled(changes.get("batch_size", 1024))

    flags = "--config.mesh.data=1 --config.mesh.fsdp=4 --config.network.remat=full"
    assert search(compile_with, said, 1024, remat="none").gentler_settings() == f"{flags} --config.batch_size=256"
    sharded = {"mesh.data": 1, "mesh.fsdp": 4}
    both = sharded | {"network.remat": "full"}
    assert tried == [sharded, {"network.remat": "full"}, both, both | {"batch_size": 512}, both | {"batch_size": 256}]
    assert said == [
        "--config.mesh.data=1 --config.mesh.fsdp=4: not on this number of chips",
        "--config.network.remat=full: does not fit (1 s)",
        f"{flags}: does not fit (1 s)",
        f"{flags} --config.batch_size=512: does not fit (1 s)",
        f"{flags} --config.batch_size=256: fits (1 s)",
    ]


def test_layers_that_are_split_leave_fewer_chips_to_shard_over() -> None:
    tried: list[Mapping[str, Any]] = []
    search(lambda changes: tried.append(changes) or compiled(16), [], tensor=2).gentler_settings()
    assert tried == [{"mesh.data": 1, "mesh.fsdp": 2}]


def test_no_gentler_setting() -> None:
    """A network without the setting is not asked to recompute."""
    said: list[str] = []
    assert search(lambda changes: Compiled(seconds=1.0, needed="too much"), said, 1024).gentler_settings() == ""
    assert said and not any("remat" in line for line in said)
