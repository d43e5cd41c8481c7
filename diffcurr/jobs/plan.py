"""Compile for a pod that is not there: `python -m diffcurr.main --config=... --job=plan --topology=v5e:16x16`"""

import json
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr import config as config_lib
from diffcurr import experiment as experiment_lib
from diffcurr.errors import UserError
from diffcurr.experiment import Experiment
from diffcurr.planning import chips, costs, search
from diffcurr.reporting.plan import report
from diffcurr.reporting.progress import Line


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
    line, config = Line(), config_lib.complete(config)
    if experiment_lib.needs_curve(config):
        # The program is the same: the edges are constants of one shape.
        config = config_lib.changed(config, {"curriculum": {"clustering": "uniform"}})

    def make(changes: Mapping[str, Any]) -> Experiment:
        return experiment_lib.from_config(config_lib.changed(config, changes), devices)

    experiment = make({})
    line.say(f"compiling the train step for {len(devices)} chips of {topology} ...")
    compiled = costs.compile_for(experiment)
    plan = costs.facts(experiment, make, topology, chip, compiled)
    if compiled.needed:
        line.say(f"does not fit: {compiled.needed}; looking for what does ...")
        plan["would_fit"] = search.remedies(make, config, len(devices), chip, line.say)
    else:
        line.say(f"compiled in {compiled.seconds:.1f} s; looking for the largest batch ...")
        plan["largest_batch_size"] = search.largest_batch(make, config, len(devices), chip, compiled, line.say)

    text = report(plan)
    for name, content in (("plan.json", json.dumps(plan, indent=2) + "\n"), ("plan.md", text)):
        with atomic_file.replacing(epath.Path(workdir) / name) as path:
            path.write_text(content)
    line.say(text)
    line.say(f"wrote {epath.Path(workdir) / 'plan.md'} and plan.json")
    return 0 if plan["fits"] else 1
