"""Arms of an experiment against a baseline: `python -m diffcurr.main --config=... --job=compare`"""

import json
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from diffcurr import atomic_file, jobs
from diffcurr import config as config_lib
from diffcurr import experiment as experiment_lib
from diffcurr.curriculum import Levels
from diffcurr.difficulty import earlier
from diffcurr.errors import UserError
from diffcurr.metrics.comparison import Result
from diffcurr.metrics.denoising import NAME
from diffcurr.metrics.evaluation import METRICS, FrechetDistance
from diffcurr.reporting.comparison_report import write_report
from diffcurr.reporting.progress import Line
from diffcurr.reporting.writers import EVALUATIONS, read_rows
from diffcurr.sampling.evaluator import check_number

RESULT = "result.json"
# Of what a run may be continued with, the rest changes what is measured.
FREE = tuple(key for key in config_lib.FREE_KEYS if key not in ("sampling", "evaluation", "evaluate_every"))


class Run(NamedTuple):
    """One arm with one seed, in its own workdir; the same seed has the same first weights and order of data."""

    arm: str
    seed: int
    config: ConfigDict
    folder: epath.Path

    @property
    def result(self) -> Result | None:
        """The result of the finished run; None before.

        Raises:
          UserError: if it was made with another config.
        """
        path = self.folder / RESULT
        if not path.exists():
            return None
        found = json.loads(path.read_text())
        changed = [*config_lib.differences(found["config"], self.config, FREE)]
        if found["evaluation"]["step"] != self.config.steps:
            changed.append("steps")
        compare = self.config.compare
        if found.get("measure", compare.measure) != compare.measure:  # older results do not say it
            changed.append("compare.measure")
        if set(found.get("grids") or {}) != set(compare.grids):
            changed.append("compare.grids")
        if changed:
            raise UserError(
                f"{path}: was made with another config ({', '.join(changed)}): remove it, or choose another --workdir"
            )
        return found

    def finish(self) -> int:
        """Trains, goes on training or only evaluates, and writes the result. Returns the exit code of the training."""
        code: int = jobs.find("train").run(self.config, self.folder)
        if code:
            return code
        changes = self.config.compare.grids.to_dict()
        grids = {name: self._evaluated({"sampling": change}) for name, change in changes.items()}
        evaluation = self._evaluated({})
        evaluations, logged = read_rows(self.folder, EVALUATIONS), read_rows(self.folder)
        measure = self.config.compare.measure
        levels = earlier.levels_of(self.folder, self.config)
        assert levels is not None, "a finished run has a checkpoint, which has the edges"
        result = {
            "arm": self.arm,
            "seed": self.seed,
            "evaluation": evaluation,
            "grids": grids,
            "measure": measure,
            "steps": [row["step"] for row in evaluations],
            "distance": [row[measure] for row in evaluations],
            "floor": evaluations[-1][f"{measure}_floor"],
            "denoising": _denoising(evaluations),
            "logged_steps": [row["step"] for row in logged],
            "stage": [row["stage"] for row in logged],
            "exposure": _exposure(logged, levels),
            "steps_per_second": float(np.median([row["steps_per_second"] for row in logged])),
            "config": config_lib.without(config_lib.to_json(self.config), FREE),
        }
        with atomic_file.replacing(self.folder / RESULT) as path:
            path.write_text(json.dumps(result, allow_nan=False) + "\n")
        return 0

    def _evaluated(self, changes: dict[str, Any]) -> dict[str, Any]:
        """What `--job=evaluate` writes with a changed config."""
        jobs.find("evaluate").run(config_lib.changed(self.config, changes), self.folder)
        found: dict[str, Any] = json.loads((self.folder / "evaluation.json").read_text())
        return found


def _denoising(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The denoising error of held-out images over the evaluations; None where it was not measured."""
    if NAME not in rows[-1]:
        return None
    fields = ("noise_error", "x0_error")
    return {
        "log_snr": rows[-1][f"{NAME}_log_snr"],
        "bound": [row[NAME] for row in rows],
        **{field: [row[f"{NAME}_{field}"] for row in rows] for field in fields},
    }


def _exposure(rows: list[dict[str, Any]], levels: Levels) -> list[float]:
    """How densely each cluster was drawn relative to the process's own density, the mean over the run.

    The weights of a row are those of its last step.
    """
    weights = np.asarray([row["weight_by_cluster"] for row in rows], float)
    lengths = np.diff([0.0, *(row["step"] for row in rows)])
    density = weights / (weights @ levels.widths)[:, None]
    return [float(one) for one in lengths @ density / lengths.sum()]


def run(config: ConfigDict, workdir: epath.PathLike, shard: str | None = None) -> int:
    """Trains and evaluates every run that has no result yet; with all done, writes report.md and its pictures.

    Each run's `result.json` is all that the report needs of it.

    Args:
      shard: "index/count": this machine does every count-th run; the machine that finishes last writes the report.

    Returns:
      The exit code: that of a run that was asked to leave, to be started again.

    Raises:
      UserError: before any compute, if an arm is no valid config, or there is nothing to compare.
    """
    workdir, line = epath.Path(workdir), Line()
    runs = plan_runs(config, workdir)
    index, count = _shard(shard)
    mine = runs[index::count]
    todo = [one for one in mine if one.result is None]
    for one in todo:
        line.say(f"run {mine.index(one) + 1} of {len(mine)}: {one.arm}, seed {one.seed}")
        code = one.finish()
        if code:
            return code
        jax.clear_caches()  # the next run compiles its own programs
    results = [one.result for one in runs]
    left = sum(result is None for result in results)
    if left:
        line.say(f"{left} of {len(runs)} runs are left to others; the same command, when they are done, reports")
        return 0
    done = [result for result in results if result]
    features = {one["evaluation"]["features"] for one in done}
    if len(features) > 1:
        raise UserError(f"{workdir}: its runs were evaluated by different features ({', '.join(sorted(features))})")
    line.say(write_report(config, done, workdir))
    line.say(f"wrote {workdir / 'report.md'}, distance.png, ratio.png and samples.png")
    return 0


def plan_runs(config: ConfigDict, workdir: epath.Path) -> list[Run]:
    """Every arm with every seed, seed by seed, each config checked whole."""
    settings = config.compare
    if settings.baseline not in settings.arms:
        raise UserError(
            f"compare.baseline = {settings.baseline!r}: is none of compare.arms ({', '.join(settings.arms) or 'empty'})"
        )
    for name in settings.candidates:
        if name not in settings.arms or name == settings.baseline:
            raise UserError(f"compare.candidates: {name!r} is none of the other arms ({', '.join(settings.arms)})")
    distances = [name for name, one in METRICS.items() if issubclass(one, FrechetDistance)]
    if settings.measure not in distances:
        raise UserError(f"compare.measure = {settings.measure!r}: choose one of {', '.join(distances)}")
    for metric in ("frechet_distance", "kernel_distance", settings.measure):
        if metric not in config.evaluation.metrics:
            raise UserError(f"evaluation.metrics: a comparison needs {metric}")
    if settings.seeds < 2 or len(settings.arms) < 2:
        raise UserError("compare: give two arms and two seeds at least")
    if not config.evaluate_every or config.steps % config.evaluate_every:
        raise UserError(
            f"evaluate_every = {config.evaluate_every}: a comparison needs the distance over the steps, the last of "
            f"steps = {config.steps} among them"
        )
    if not config.log_every:
        raise UserError("log_every = 0: a comparison needs the log of each run; give the steps between two rows")
    if config.evaluation.reference:
        raise UserError(
            f"evaluation.reference = {config.evaluation.reference!r}: a comparison needs the data set's own pictures, "
            f"of which copies and fresh ones are measured too; leave it empty"
        )
    runs, whole = [], config_lib.complete(config)
    for seed in range(config.seed, config.seed + settings.seeds):
        for arm, changes in settings.arms.items():
            if not isinstance(changes, ConfigDict):
                raise UserError(f"compare.arms.{arm} = {changes!r}: must be a section")
            try:
                changed = config_lib.changed(config, {"seed": seed} | changes.to_dict())
            except (TypeError, UserError) as error:
                raise UserError(f"compare.arms.{arm}: {error}") from error
            same = {"seed": seed} | {key: whole[key] for key in ("steps", "batch_size", "evaluate_every", "evaluation")}
            for key, value in same.items():
                if changed[key] != value:
                    raise UserError(f"compare.arms.{arm}: {key} is the same for all arms")
            if seed == config.seed:
                try:
                    experiment = experiment_lib.from_config(changed)
                    experiment.require_denoiser("--job=compare compares")
                    check_number(whole.evaluation.samples, experiment.find_features(), experiment.metrics)
                except UserError as error:
                    raise UserError(f"compare.arms.{arm}: {error}") from error
                for grid, change in settings.grids.to_dict().items():
                    try:
                        experiment_lib.from_config(config_lib.changed(changed, {"sampling": change}))
                    except UserError as error:
                        raise UserError(f"compare.grids.{grid}, compare.arms.{arm}: {error}") from error
            runs.append(Run(arm, seed, changed, workdir / arm / f"{seed:02d}"))
    return runs


def _shard(shard: str | None) -> tuple[int, int]:
    index, _, count = (shard or "0/1").partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(f"--shard={shard}: give index/count, the index from 0, such as 0/2")
    return int(index), int(count)
