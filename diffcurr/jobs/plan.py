"""Compile for a pod that is not there: `python -m diffcurr.main --config=... --job=plan --topology=v5e:16x16`"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr import config as config_lib
from diffcurr import experiment as experiment_lib
from diffcurr.batch import Batch
from diffcurr.errors import UserError
from diffcurr.planning import chips, costs
from diffcurr.planning.costs import PlannedStep
from diffcurr.planning.search import Search
from diffcurr.reporting import plan as plan_report
from diffcurr.reporting.progress import Line
from diffcurr.training.workdir import make_writable


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
    workdir, line, with_settings = epath.Path(workdir), Line(), functools.partial(planned_step, config, devices)
    planned = with_settings({})
    make_writable(workdir)
    line.say(f"compiling the train step for {len(devices)} chips of {topology} ...")
    quick = compiled = costs.compile_step(planned)
    if not quick.needed:
        line.say(f"compiled in {quick.seconds:.1f} s with least effort; once more, as training compiles it ...")
        compiled = costs.compile_step(with_settings({}), least_effort=False)  # JAX compiles one step once
    plan = {"topology": topology, **costs.facts(planned, chip, compiled, with_settings)}
    plan["compile_seconds_least_effort"] = quick.seconds

    search = Search(
        config=planned.config,
        chips=len(devices),
        memory=chip.memory,
        compile_with=lambda changes: costs.compile_step(with_settings(changes)),
        say=line.say,
        remat_key=planned.remat_key,
    )
    if compiled.needed:
        line.say(f"does not fit: {compiled.needed}; looking for what does ...")
        plan["would_fit"] = search.gentler_settings()
    else:
        line.say(f"compiled in {compiled.seconds:.1f} s; looking for the largest batch ...")
        plan["largest_batch_size"] = search.largest_batch(quick)

    text = plan_report.markdown(plan)
    for name, content in (("plan.json", json.dumps(plan, indent=2) + "\n"), ("plan.md", text)):
        with atomic_file.replacing(workdir / name) as path:
            path.write_text(content)
    line.say(text)
    line.say(f"wrote {workdir / 'plan.md'} and plan.json")
    return 0 if plan["fits"] else 1


def planned_step(config: ConfigDict, devices: Sequence[jax.Device], changes: Mapping[str, Any]) -> PlannedStep:
    """The train step of a config with some settings changed: all that a plan needs to know of the experiment."""
    config = config_lib.changed(config_lib.complete(config), config_lib.unflatten(changes))
    if config_lib.needs_curve(config):  # the program is the same: the edges are constants of one shape
        config = config_lib.changed(config, {"curriculum": {"clustering": "uniform"}})
    experiment = experiment_lib.from_config(config, devices)
    experiment = dataclasses.replace(experiment, conditioning=experiment.conditioning.outlined())
    example_loss = experiment.task.example_loss(experiment)
    if example_loss is None:
        raise UserError(f"task.name = {config.task.name!r}: its operations are not counted, so that there is no plan")
    step, state, condition = experiment.compiled, experiment.compiled.abstract_state, experiment.conditioning.spec()

    make = functools.partial(jax.ShapeDtypeStruct, sharding=step.batch_sharding)
    fields = {name: make((config.batch_size, *field.shape), field.dtype) for name, field in condition.items()}
    aligned = experiment.features_spec
    features = make((config.batch_size, *aligned.shape), aligned.dtype) if aligned else None
    x = make((config.batch_size, *experiment.dataset.shape), jnp.float32)  # as read; not yet encoded
    batch = Batch(x, fields, features)
    first = jax.eval_shape(step.initial_carry, state)
    weights = [first, step.step.eval_shape(state, batch, first)[1]]
    with jax.sharding.use_abstract_mesh(experiment.mesh.abstract_mesh):
        choices: Mapping[str, str] = getattr(nnx.merge(*experiment.task.network(experiment)), "choices", dict)()
    remat_key = experiment.task.remat_key
    return PlannedStep(config, experiment.mesh, step.step, state, batch, weights, example_loss, remat_key, choices)
