"""What one step of training costs on chips that need not be there."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from diffcurr.batch import Batch
from diffcurr.conditioning import Conditioning
from diffcurr.curriculum.rules import Rule
from diffcurr.data.datasets import Dataset
from diffcurr.planning import program
from diffcurr.planning.chips import Chip
from diffcurr.planning.program import Compiled
from diffcurr.training.step import CompiledStep, Draws, StepConfig, microbatch_loss


@runtime_checkable
class Experiment(Protocol):
    """The part of an experiment that a plan depends on."""

    @property
    def config(self) -> ConfigDict: ...

    @property
    def dataset(self) -> Dataset: ...

    @property
    def conditioning(self) -> Conditioning: ...

    @property
    def rule(self) -> Rule: ...

    @property
    def mesh(self) -> Mesh: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def abstract_network(self) -> tuple[Any, Any]: ...

    @property
    def step_config(self) -> StepConfig: ...

    @property
    def compiled(self) -> CompiledStep: ...


MakeExperiment: TypeAlias = Callable[[Mapping[str, Any]], Experiment]
"""Changed settings, {"batch_size": 512} -> the experiment with them, on the chips that are planned for."""


def compile_for(experiment: Experiment) -> Compiled:
    """Compiles the train step for the experiment's mesh, which need not be there."""
    step = experiment.compiled
    with _least_effort():
        return program.measure(step.step, step.abstract_state, abstract_batch(experiment), abstract_weights(experiment))


@contextlib.contextmanager
def _least_effort() -> Iterator[None]:
    """Compiles without searching for the fastest tiles.

    That search is most of the work, and changes neither memory nor traffic: DiT-XL/2 on v5e:4x4 has temporaries within
    0.2 % and the same traffic after 7 instead of 33 s, EDM's U-Net compiles in 1 instead of more than 5 minutes.
    """
    before = jax.config.jax_exec_time_optimization_effort  # type: ignore[attr-defined]
    jax.config.update("jax_exec_time_optimization_effort", -1.0)
    try:
        yield
    finally:
        jax.config.update("jax_exec_time_optimization_effort", before)


def abstract_batch(experiment: Experiment) -> Batch:
    """Shapes and shardings of a global batch, as it is read."""
    number, sharding = experiment.config.batch_size, experiment.compiled.batch_sharding

    def make(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((number, *shape), dtype, sharding=sharding)

    fields = experiment.conditioning.spec()
    condition = {name: make(field.shape, field.dtype) for name, field in fields.items()}
    return Batch(make(experiment.dataset.shape, jnp.float32), condition)


def abstract_weights(experiment: Experiment) -> jax.ShapeDtypeStruct:
    """Shape of the weights of the clusters."""
    return jax.eval_shape(lambda: experiment.rule.weights(experiment.rule.init()))


def step_flops(experiment: Experiment, make: MakeExperiment) -> tuple[float, float]:
    """(of forward and backward pass, of what is recomputed between them): of one step over the global batch.

    Counted in the gradient's jaxpr, of one example, with the network's recomputation and without.
    """

    def count(experiment: Experiment) -> float:
        step, x = experiment.step_config, jnp.zeros((1, *experiment.shape))
        draws = Draws(jnp.full(1, 0.5), x, jnp.zeros(1, bool))
        batch = Batch(x, {name: field.zeros(1) for name, field in experiment.conditioning.spec().items()})
        gradient = jax.grad(lambda params: microbatch_loss(params, step, batch, draws)[0])
        return program.matmul_flops(jax.make_jaxpr(gradient)(experiment.abstract_network[1]).jaxpr)

    whole = count(experiment)
    recomputes = experiment.config.network.get("remat", "none") != "none"
    needed = count(make({"network": {"remat": "none"}})) if recomputes else whole
    return needed * experiment.config.batch_size, (whole - needed) * experiment.config.batch_size


def least_traffic(experiment: Experiment) -> float:
    """Bytes that each chip must send in a step of fully sharded data parallelism, by rings.

    A parameter that is sharded is gathered in the compute dtype for the forward and again for the backward pass, and
    its float32 gradient is scattered as it is summed; one that is whole on each chip has its gradient summed.
    """
    mesh, width = experiment.mesh, jnp.dtype(experiment.config.dtype).itemsize
    shards, copies = mesh.shape["fsdp"], mesh.shape["data"]
    total = 0.0
    for leaf in jax.tree.leaves(experiment.compiled.abstract_state.params):
        held = math.prod(leaf.sharding.shard_shape(leaf.shape))
        if "fsdp" in jax.tree.leaves(tuple(leaf.sharding.spec)):
            total += held * (shards - 1) * (2 * width + 4) + 2 * 4 * held * (copies - 1) / copies
        else:
            total += 2 * 4 * held * (shards * copies - 1) / (shards * copies)
    return total


def facts(
    experiment: Experiment, make: MakeExperiment, topology: str, chip: Chip, compiled: Compiled
) -> dict[str, Any]:
    """Everything that plan.json holds but what is searched for."""
    config, devices = experiment.config, experiment.mesh.devices.flatten()
    needed, recomputed = step_flops(experiment, make)
    batch = program.bytes_a_chip(abstract_batch(experiment))
    state = program.bytes_a_chip(experiment.compiled.abstract_state)
    traffic = sum(kind.bytes for kind in compiled.traffic.values())
    bounds = {
        "compute": (needed + recomputed) / len(devices) / chip.flops,
        "memory": 2 * state / chip.bandwidth,
        "interconnect": traffic / chip.interconnect,
    }
    seconds = max(bounds.values())
    step, given = experiment.compiled, abstract_weights(experiment)
    fed_back = jax.eval_shape(step.step, step.abstract_state, abstract_batch(experiment), given)[1]
    weights = {(one.shape, one.dtype) for one in (given, fed_back)}
    return {
        "topology": topology,
        "chips": len(devices),
        "processes": len({device.process_index for device in devices}),
        "mesh": dict(experiment.mesh.shape),
        "parameters": sum(math.prod(x.shape) for x in jax.tree.leaves(experiment.abstract_network[1])),
        "batch_size": config.batch_size,
        "dtype": config.dtype,
        "remat": config.network.get("remat", "none"),
        "fits": not compiled.needed and compiled.total_bytes <= chip.memory,
        "does_not_fit": compiled.needed,
        "chip_bytes": {
            "state": state,
            "batch": batch,
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
        "least_traffic_bytes": least_traffic(experiment),
        "lower_bounds_seconds": bounds,
        "lower_bound_seconds": seconds,
        "images_a_second_at_bound": config.batch_size / seconds,
        "chip_hours_at_bound": config.steps * seconds * len(devices) / 3600,
        "steps": config.steps,
        "compile_seconds": compiled.seconds,
        "executables_over_all_stages": len(weights),
    }
