"""If a test here fails, the plan counts the operations, bytes or seconds of a train step wrongly."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from diffcurr.planning import costs
from diffcurr.planning.chips import Chip
from diffcurr.planning.costs import PlannedStep
from diffcurr.planning.program import Compiled, Traffic

BATCH, WIDTH = 16, 24


class State(NamedTuple):
    params: dict[str, Any]


def planned(changes: Mapping[str, Any] | None = None, *, remat: str = "none", dtype: str = "bfloat16") -> PlannedStep:
    """A step of a linear layer, sharded, and a bias, whole, on 2 x 4 devices."""
    config = ConfigDict({"batch_size": BATCH, "steps": 3600, "dtype": dtype, "network": {"remat": remat}})
    config.update_from_flattened_dict(changes or {})
    axes = ("data", "fsdp", "tensor")
    mesh: Mesh = jax.make_mesh((2, 4, 1), axes, axis_types=(AxisType.Auto,) * 3)

    def shape(sizes: tuple[int, ...], *spec: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    def layer(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.tanh(jnp.tanh(x @ params["w"]) @ params["w"]) + params["b"])

    def step(state: State, batch: jax.Array, weights: jax.Array) -> tuple[Any, jax.Array]:
        return jax.tree.map(jnp.subtract, state.params, jax.grad(layer)(state.params, batch)), weights

    def example_loss(params: dict[str, jax.Array]) -> jax.Array:
        loss = jax.checkpoint(layer) if config.network.remat == "full" else layer
        return loss(params, jnp.zeros((1, WIDTH)))

    return PlannedStep(
        config=config,
        mesh=mesh,
        step=jax.jit(step),
        state=State({"w": shape((WIDTH, WIDTH), "fsdp"), "b": shape((WIDTH,))}),
        batch=shape((BATCH, WIDTH), ("data", "fsdp")),
        weights=[jax.ShapeDtypeStruct((5,), jnp.float32)] * 2,
        example_loss=example_loss,
    )


def test_flops_and_what_is_recomputed() -> None:
    """Two products forward, three backward, as the input needs no gradient; recomputing makes one or both again."""
    product = 2 * WIDTH * WIDTH
    assert costs.step_flops(planned(), planned) == (5 * product * BATCH, 0)
    needed, recomputed = costs.step_flops(planned(remat="full"), planned)
    assert needed == 5 * product * BATCH
    assert recomputed in (product * BATCH, 2 * product * BATCH)


@pytest.mark.parametrize(("dtype", "width"), [("bfloat16", 2), ("float32", 4)])
def test_least_traffic(dtype: str, width: int) -> None:
    """The sharded matrix is gathered once and its gradient scattered among 4, and summed over 2; the bias over 8."""
    held = WIDTH * WIDTH / 4
    sharded = held * 3 * (width + 4) + 2 * 4 * held / 2
    step = planned(dtype=dtype)
    assert costs.least_traffic(step) == sharded + 2 * 4 * WIDTH * 7 / 8

    # A modulation stays where it is: for each of 2 rows a chip, 3 others get its 6 columns, and give their gradients.
    spread = NamedSharding(step.mesh, PartitionSpec(None, "fsdp"))
    kernel = jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32, sharding=spread)
    moved = dataclasses.replace(step, state=State({"modulation": {"kernel": kernel}}))
    assert costs.least_traffic(moved) == 2 * 2 * 6 * 3 * width + 2 * 4 * held / 2


def test_facts() -> None:
    """The bound is the longest of the three, and rates follow from it."""
    chip = Chip(memory=1e6, flops=1e3, bandwidth=1e9, interconnect=1e9, shapes=())
    traffic = {"all-gather": Traffic(3, 500.0), "all-reduce": Traffic(1, 250.0)}
    sizes = {"argument_bytes": 1, "temporary_bytes": 2, "program_bytes": 3}
    compiled = Compiled(seconds=2.0, **sizes, flops=4.0, cycles=50.0, traffic=traffic)
    facts = costs.facts(planned(), chip, compiled, planned)
    assert (facts["chips"], facts["processes"], facts["mesh"]) == (8, 1, {"data": 2, "fsdp": 4, "tensor": 1})
    assert (facts["parameters"], facts["executables_over_all_stages"]) == (WIDTH * WIDTH + WIDTH, 1)
    assert facts["chip_bytes"] == {
        "state": 4 * (WIDTH * WIDTH // 4 + WIDTH),
        "batch": 4 * BATCH * WIDTH // 8,
        "temporaries": 2,
        "program": 3,
        "memory": 1e6,
    }
    assert facts["traffic_bytes"] == 750.0
    seconds = 5 * 2 * WIDTH * WIDTH * BATCH / 8 / 1e3
    assert facts["lower_bounds_seconds"]["compute"] == facts["lower_bound_seconds"] == seconds
    assert facts["images_a_second_at_bound"] == BATCH / seconds
    assert facts["chip_hours_at_bound"] == pytest.approx(8 * seconds)
    assert facts["fits"] and not facts["does_not_fit"]
    assert (facts["estimated_cycles"], facts["estimated_seconds"]) == (50.0, 0.0)  # no clock is published

    # The products are of float32, whose peak is another; what is kept between forward and backward moves twice.
    fast = dataclasses.replace(chip, float32_flops=1e12, clock=100.0, bandwidth=10.0)
    facts = costs.facts(planned(), fast, compiled, planned)
    assert facts["lower_bounds_seconds"]["compute"] == pytest.approx(seconds * 1e3 / 1e12)
    assert facts["lower_bound_seconds"] == 2 * (facts["chip_bytes"]["state"] + 2) / 10.0
    assert facts["estimated_seconds"] == 0.5
    assert not costs.facts(planned(), chip, Compiled(seconds=1.0, needed="too much"), planned)["fits"]


def test_compiling_leaves_the_compilers_effort_as_it_was() -> None:
    before = jax.config.jax_exec_time_optimization_effort
    compiled = costs.compile_step(planned())
    assert jax.config.jax_exec_time_optimization_effort == before
    memory = float(compiled.total_bytes)
    assert compiled.fits(memory) and not compiled.fits(memory - 1)
    assert compiled.traffic
