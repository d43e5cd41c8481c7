"""What a train step costs: memory, operations, traffic, and the bounds on its time that follow."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from diffcurr import layout
from diffcurr.planning import program
from diffcurr.planning.chips import Chip
from diffcurr.planning.program import Compiled


@dataclasses.dataclass(frozen=True)
class PlannedStep:
    """A train step of which only shapes exist, so that the chips it is for need not be there.

    Attributes:
      config: the whole config that the step belongs to.
      mesh: the devices to compile for.
      step: the jitted function (state, batch, weights) -> anything.
      state: shapes and shardings of the train state; `state.params` are the parameters.
      batch: shapes and shardings of the global batch.
      weights: shapes of what a step hands to the next beside the state, the clusters' weights: those of the first step,
        and those that a step returns.
      example_loss: parameters -> loss of one example; traced to count operations, never run.
      remat_key: the setting that says what is recomputed.
      choices: what the network decides by the mesh, in words by name.
    """

    config: ConfigDict
    mesh: Mesh
    step: Any
    state: Any
    batch: Any
    weights: Sequence[Any]
    example_loss: Callable[[Any], jax.Array]
    remat_key: str = "network.remat"
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def remat(self) -> str:
        """What is recomputed in the backward pass; "none" for a network that has no such setting."""
        section, key = self.remat_key.split(".")
        return self.config[section].get(key, "none")


WithSettings = Callable[[Mapping[str, Any]], PlannedStep]
"""Makes the same step with some settings changed, such as {"mesh.fsdp": 4}. Raises UserError if they do not work."""


def compile_step(planned: PlannedStep, *, least_effort: bool = True) -> Compiled:
    """Compiles the step for its mesh, which need not be there; a second time JAX returns what it compiled the first.

    Args:
      least_effort: without the search for the fastest tiles that training pays for. It is most of the work, and changes
        memory and traffic little; the compiler's estimate of the time means something only with it.
    """
    with _effort(-1.0 if least_effort else 0.0):
        return program.measure(planned.step, planned.state, planned.batch, planned.weights[0])


@contextlib.contextmanager
def _effort(effort: float) -> Iterator[None]:
    before = jax.config.jax_exec_time_optimization_effort  # type: ignore[attr-defined]
    jax.config.update("jax_exec_time_optimization_effort", effort)
    try:
        yield
    finally:
        jax.config.update("jax_exec_time_optimization_effort", before)


def step_flops(planned: PlannedStep, with_settings: WithSettings) -> tuple[float, float]:
    """Floating-point operations of one step over the global batch.

    They are counted in the gradient's jaxpr for one example, with the network's recomputation and without.

    Returns:
      (those of the forward and backward pass, those of what is recomputed between the two).
    """
    whole = needed = _example_flops(planned)
    if planned.remat != "none":
        needed = _example_flops(with_settings({planned.remat_key: "none"}))
    return needed * planned.config.batch_size, (whole - needed) * planned.config.batch_size


def _example_flops(planned: PlannedStep) -> float:
    return sum(_example_products(planned).values())


def _example_products(planned: PlannedStep) -> dict[str, float]:
    return _gradient_products(planned.example_loss, planned.state.params)


def gradient_flops(loss: Callable[[Any], jax.Array], params: Any) -> float:
    """Floating-point operations of a loss and its gradient, with those of what is recomputed between the two.

    Args:
      params: shapes of the parameters.
    """
    return sum(_gradient_products(loss, params).values())


def _gradient_products(loss: Callable[[Any], jax.Array], params: Any) -> dict[str, float]:
    # Without shardings: they belong to the compiled program, and this one is only read.
    plain = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    return program.flops_by_dtype(jax.make_jaxpr(jax.grad(loss))(plain).jaxpr)


def least_traffic(planned: PlannedStep) -> float:
    """Bytes that each chip must send in a step with the parameters as they lie: a minimum, whatever else is done.

    A sharded kernel is gathered in the compute dtype at least once (a backward pass that keeps it needs no second time)
    and its float32 gradient is scattered as it is summed. One that is multiplied by columns stays where it is, and
    results and their gradients move instead. What several chips hold alike has its gradient summed. What the tensor
    axis moves is not counted.
    """
    width = jnp.dtype(planned.config.dtype).itemsize
    shards, copies = planned.mesh.shape["fsdp"], planned.mesh.shape["data"]
    rows = planned.config.batch_size / (shards * copies)
    total = 0.0
    for path, leaf in jax.tree_util.tree_leaves_with_path(planned.state.params):
        held = math.prod(leaf.sharding.shard_shape(leaf.shape))
        if "fsdp" not in jax.tree.leaves(tuple(leaf.sharding.spec)):
            total += 2 * 4 * held * (shards * copies - 1) / (shards * copies)
            continue
        rule = layout.rule_of(layout.path_name(path), leaf.shape)
        if rule is None or not rule.by_columns:
            total += held * (shards - 1) * (width + 4)
        elif leaf.ndim > 1 and len(rule.axes) > 1:  # a kernel; its columns, of all stacked blocks
            total += 2 * rows * (held / leaf.shape[-2]) * (shards - 1) * width
        total += 2 * 4 * held * (copies - 1) / copies
    return total


def facts(planned: PlannedStep, chip: Chip, compiled: Compiled, with_settings: WithSettings) -> dict[str, Any]:
    """Everything that is known of a step once it is compiled, ready for JSON.

    A step takes at least the longest of three times: computing at the chip's peak for each product's dtype, reading
    and writing the state and what is kept in between once, and sending all traffic over all links at once.

    Args:
      compiled: what `compile_step` found for `planned`, as training compiles it; where it says that the step does not
        fit, sizes that only the compiler knows are 0.
    """
    config, devices = planned.config, planned.mesh.devices.flatten()
    needed, recomputed = step_flops(planned, with_settings)
    state = program.bytes_a_chip(planned.state)
    traffic = sum(kind.bytes for kind in compiled.traffic.values())
    share = config.batch_size / len(devices)
    bounds = {
        "compute": share * sum(flops / chip.peak(dtype) for dtype, flops in _example_products(planned).items()),
        "memory": 2 * (state + compiled.temporary_bytes) / chip.bandwidth,
        "interconnect": traffic / chip.interconnect,
    }
    seconds = max(bounds.values())
    return {
        "chips": len(devices),
        "processes": len({device.process_index for device in devices}),
        "mesh": dict(planned.mesh.shape),
        "parameters": sum(math.prod(x.shape) for x in jax.tree.leaves(planned.state.params)),
        "batch_size": config.batch_size,
        "dtype": config.dtype,
        "remat": planned.remat,
        "choices": dict(planned.choices),
        "fits": compiled.fits(chip.memory),
        "does_not_fit": compiled.needed,
        "chip_bytes": {
            "state": state,
            "batch": program.bytes_a_chip(planned.batch),
            "temporaries": compiled.temporary_bytes,
            "program": compiled.program_bytes,
            "memory": chip.memory,
        },
        "step_flops": {
            "forward_and_backward": needed,
            "recomputed": recomputed,
            "compiler_a_chip_bodies_of_loops_once": compiled.flops,
        },
        "traffic": {name: kind._asdict() for name, kind in compiled.traffic.items()},
        "traffic_bytes": traffic,
        "least_traffic_bytes": least_traffic(planned),
        "estimated_cycles": compiled.cycles,
        "estimated_seconds": compiled.cycles / chip.clock if chip.clock else 0.0,
        "lower_bounds_seconds": bounds,
        "lower_bound_seconds": seconds,
        "images_a_second_at_bound": config.batch_size / seconds,
        "chip_hours_at_bound": config.steps * seconds * len(devices) / 3600,
        "steps": config.steps,
        "compile_seconds": compiled.seconds,
        # The step is compiled again only where the weights that it hands on have another shape or dtype.
        "executables_over_all_stages": len(
            {tuple((x.shape, x.dtype) for x in jax.tree.leaves(weights)) for weights in planned.weights}
        ),
    }
