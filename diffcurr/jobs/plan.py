"""Compile for a pod that is not there: `python -m diffcurr.main --config=... --job=plan --topology=v5e:16x16`"""

import contextlib
import functools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from matplotlib.ticker import EngFormatter
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr import experiment as experiment_lib
from diffcurr.curriculum import pacing
from diffcurr.errors import UserError
from diffcurr.experiment import Experiment
from diffcurr.planning import chips, program
from diffcurr.planning.chips import Chip
from diffcurr.planning.program import Compiled
from diffcurr.reporting.progress import Line
from diffcurr.training.step import Draws, microbatch_loss

_bytes, _flops, _seconds = (EngFormatter(unit, places=1) for unit in ("B", "FLOP", "s"))
SEARCH = 3  # compilations that looking for the largest batch may cost


def run(config: ConfigDict, workdir: epath.PathLike, topology: str | None) -> int:
    """Writes plan.json and plan.md into the workdir. Returns 0 if the step fits, else 1.

    Raises:
      UserError: if there is no such topology, no compiler for it, or the config does not fit its number of chips.
    """
    if topology is None:
        raise UserError("--topology is missing: name the chips to plan for, such as --topology=v5e:16x16")
    jax.config.update("jax_platforms", "cpu")  # nothing runs
    try:
        chip, devices = chips.open_topology(topology)
    except (ValueError, ModuleNotFoundError) as error:
        raise UserError(f"--{error}" if isinstance(error, ValueError) else str(error)) from error
    line = Line()
    experiment = _experiment(config, devices)
    line.say(f"compiling the train step for {len(devices)} chips of {topology} ...")
    compiled = compile_for(experiment)
    plan = facts(experiment, topology, chip, compiled)
    if compiled.needed:
        line.say(f"does not fit: {compiled.needed}; looking for what does ...")
        plan["would_fit"] = _remedies(config, devices, chip, line)
    else:
        line.say(f"compiled in {compiled.seconds:.1f} s; looking for the largest batch ...")
        plan["largest_batch_size"] = largest_batch(config, devices, chip, compiled, line)

    text = report(plan)
    for name, content in (("plan.json", json.dumps(plan, indent=2) + "\n"), ("plan.md", text)):
        with atomic_file.replacing(epath.Path(workdir) / name) as path:
            path.write_text(content)
    line.say(text)
    line.say(f"wrote {epath.Path(workdir) / 'plan.md'} and plan.json")
    return 0 if plan["fits"] else 1


def _experiment(config: ConfigDict, devices: Sequence[jax.Device]) -> Experiment:
    """The experiment on these devices; clusters that follow from a measured curve are planned as uniform ones."""
    config = config.copy_and_resolve_references()
    if config.curriculum.clustering == "relative_entropy":
        config.curriculum.clustering = "uniform"  # the program is the same: the edges are constants of one shape
    return experiment_lib.from_config(config, devices)


def compile_for(experiment: Experiment) -> Compiled:
    """Compiles the train step for the experiment's mesh, which need not be there."""
    step = experiment.compiled
    with _least_effort():
        return program.measure(step.step, step.abstract_state, _abstract_batch(experiment), _abstract_mask(experiment))


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


def _abstract_batch(experiment: Experiment) -> dict[str, jax.ShapeDtypeStruct]:
    number, info = experiment.config.batch_size, experiment.dataset
    make = functools.partial(jax.ShapeDtypeStruct, sharding=experiment.compiled.batch_sharding)
    image = make((number, info.image_size, info.image_size, info.channels), jnp.float32)
    return {"image": image, "label": make((number,), jnp.int32)}


def _abstract_mask(experiment: Experiment, stage: int = 1) -> jax.ShapeDtypeStruct:
    state = pacing.init(experiment.pacing)._replace(stage=jnp.int32(stage))
    return jax.eval_shape(lambda: pacing.active_clusters(state, experiment.pacing))


def step_flops(experiment: Experiment) -> tuple[float, float]:
    """(of forward and backward pass, of what is recomputed between them): of one step over the global batch.

    Counted in the gradient's jaxpr, of one example, with the network's recomputation and without.
    """

    def count(experiment: Experiment) -> float:
        info, step = experiment.dataset, experiment.step_config
        shape = (1, info.image_size, info.image_size, info.channels)
        draws = Draws(jnp.full(1, 0.5), jnp.zeros(shape), jnp.zeros(1, bool))
        batch = {"image": jnp.zeros(shape), "label": jnp.zeros(1, jnp.int32)}
        gradient = jax.grad(lambda params: microbatch_loss(params, step, batch, draws)[0])
        return program.matmul_flops(jax.make_jaxpr(gradient)(experiment.abstract_network[1]).jaxpr)

    whole = count(experiment)
    plain = experiment.config.copy_and_resolve_references()
    if plain.network.get("remat", "none") != "none":
        plain.network.remat = "none"
    needed = count(experiment_lib.from_config(plain, list(experiment.mesh.devices.flat)))
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


def facts(experiment: Experiment, topology: str, chip: Chip, compiled: Compiled) -> dict[str, Any]:
    """Everything that plan.json holds but what is searched for."""
    config, devices = experiment.config, experiment.mesh.devices.flatten()
    needed, recomputed = step_flops(experiment)
    batch = program.bytes_a_chip(_abstract_batch(experiment))
    state = program.bytes_a_chip(experiment.compiled.abstract_state)
    traffic = sum(kind.bytes for kind in compiled.traffic.values())
    bounds = {
        "compute": (needed + recomputed) / len(devices) / chip.flops,
        "memory": 2 * state / chip.bandwidth,
        "interconnect": traffic / chip.interconnect,
    }
    seconds = max(bounds.values())
    stages = range(1, experiment.pacing.num_stages + 1)
    executables = {(mask.shape, mask.dtype) for mask in (_abstract_mask(experiment, stage) for stage in stages)}
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
        "executables_over_all_stages": len(executables),
    }


def _with_batch(config: ConfigDict, batch_size: int) -> ConfigDict:
    config = config.copy_and_resolve_references()
    config.batch_size = batch_size
    return config


def largest_batch(
    config: ConfigDict, devices: Sequence[jax.Device], chip: Chip, compiled: Compiled, line: Line
) -> int | None:
    """The largest global batch, in multiples of the number of chips, of those compiled that fits.

    What grows with the batch is almost linear in it, so the next one to try is where a line through the last two
    reaches the memory; the search ends when nothing larger is left to try, or after SEARCH compilations.
    """
    unit = len(devices) * config.microbatches
    known = {0: compiled.total_bytes - compiled.temporary_bytes, config.batch_size: compiled.total_bytes}
    fits = config.batch_size if compiled.total_bytes <= chip.memory else 0
    too_large = math.inf
    for _ in range(SEARCH):
        (x0, y0), (x1, y1) = sorted(known.items())[-2:]
        slope = max((y1 - y0) / (x1 - x0), 1.0)
        guess = x1 + (0.98 * chip.memory - y1) / slope
        guess = min(guess, (fits + too_large) / 2 if too_large < math.inf else 16 * max(fits, unit))
        batch_size = int(guess // unit * unit)
        if batch_size <= fits or batch_size >= too_large or (fits and batch_size < 1.05 * fits):
            break
        trial = compile_for(_experiment(_with_batch(config, batch_size), devices))
        ok = not trial.needed and trial.total_bytes <= chip.memory
        line.say(f"batch {batch_size:,}: {'fits' if ok else 'does not fit'} ({trial.seconds:.0f} s)")
        if not trial.needed:
            known[batch_size] = trial.total_bytes
        fits, too_large = (batch_size, too_large) if ok else (fits, batch_size)
    return fits or None


def _remedies(config: ConfigDict, devices: Sequence[jax.Device], chip: Chip, line: Line) -> str:
    """The first of a few gentler settings that fits, as flags."""
    sharded: dict[str, Any] = {"mesh.data": 1, "mesh.fsdp": len(devices)}
    recomputed: dict[str, Any] = {"network.remat": "full"} if "remat" in config.network else {}
    trials = [sharded, recomputed, sharded | recomputed]
    trials += [sharded | recomputed | {"batch_size": config.batch_size // part} for part in (2, 4, 8)]
    for changes in trials:
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict(changes)
        flags = " ".join(f"--config.{key}={value}" for key, value in changes.items())
        try:
            compiled = compile_for(_experiment(changed, devices))
        except UserError:
            continue  # not a setting of this number of chips
        ok = not compiled.needed and compiled.total_bytes <= chip.memory
        line.say(f"{flags}: {'fits' if ok else 'does not fit'} ({compiled.seconds:.0f} s)")
        if ok:
            return flags
    return ""


def report(plan: dict[str, Any]) -> str:
    """plan.md."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan["mesh"].items())
    memory, flops, bounds = plan["chip_bytes"], plan["step_flops"], plan["lower_bounds_seconds"]
    needed, limit = flops["forward_and_backward"], max(bounds, key=bounds.get)
    used = sum(size for name, size in memory.items() if name != "memory")
    rows = [
        ("chips, processes", f"{plan['chips']}, {plan['processes']}"),
        ("mesh", mesh),
        ("parameters", f"{plan['parameters']:,}"),
        ("global batch, compute dtype, recomputation", f"{plan['batch_size']:,}, {plan['dtype']}, {plan['remat']}"),
    ]
    if plan["does_not_fit"]:
        rows += [
            ("**fits**", f"**no**: {plan['does_not_fit']}"),
            ("state a chip", _bytes(memory["state"])),
            ("the first setting tried that fits", f"`{plan['would_fit']}`" if plan["would_fit"] else "none"),
        ]
        return _table(plan, rows)
    compilers = flops["compiler_a_chip_bodies_of_loops_once"]
    counted = f"counts {_flops(compilers)}, the bodies of loops once" if compilers else "counts no operations for it"
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in memory.items() if name != "memory")
    rows += [
        ("**fits**", f"**{'yes' if plan['fits'] else 'no'}**: {_bytes(used)} of {_bytes(memory['memory'])}"),
        ("memory a chip", parts),
        ("largest global batch found to fit", f"{plan['largest_batch_size']:,}" if plan["largest_batch_size"] else "-"),
        ("flops a step", f"{_flops(needed)} for forward and backward, {_flops(flops['recomputed'])} again"),
        ("flops a chip", f"{_flops((needed + flops['recomputed']) / plan['chips'])} by hand; the compiler {counted}"),
    ]
    rows += [
        (f"{name} a step", f"{kind['operations']:,}, a chip sends {_bytes(kind['bytes'])}")
        for name, kind in plan["traffic"].items()
    ]
    if plan["least_traffic_bytes"]:
        ratio = plan["traffic_bytes"] / plan["least_traffic_bytes"]
        rows.append(("traffic over the least for this mesh", f"{ratio:.2f} x {_bytes(plan['least_traffic_bytes'])}"))
    rows += [
        (
            "lower bound on a step",
            f"{_seconds(plan['lower_bound_seconds'])}, by {limit} ("
            + ", ".join(f"{name} {_seconds(seconds)}" for name, seconds in bounds.items())
            + "); a bound, not a forecast",
        ),
        ("at that bound", f"{plan['images_a_second_at_bound']:,.0f} images/s"),
        (f"the config's {plan['steps']:,} steps at that bound", f"{plan['chip_hours_at_bound']:,.0f} chip-hours"),
        ("compile time, with least effort for speed", f"{plan['compile_seconds']:.0f} s"),
        ("executables over all stages", str(plan["executables_over_all_stages"])),
    ]
    return _table(plan, rows)


def _table(plan: dict[str, Any], rows: list[tuple[str, str]]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows]
    return "\n".join([f"# The train step on {plan['topology']}", "", "| | |", "|---|---|", *lines, ""])
