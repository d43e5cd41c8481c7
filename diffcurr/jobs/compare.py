"""Arms of an experiment against a baseline: `python -m diffcurr.main --config=... --job=compare`"""

import json
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr.errors import UserError
from diffcurr.jobs import evaluate, train
from diffcurr.jobs import experiment as experiment_lib
from diffcurr.metrics import figures
from diffcurr.metrics.comparison import paired_ratio, steps_to_reach
from diffcurr.metrics.intervals import Interval, mean_interval
from diffcurr.metrics.progress import Line
from diffcurr.metrics.writers import EVALUATIONS, read_rows


class Run(NamedTuple):
    """One arm with one seed, in a workdir of its own; the same seed has the same first weights and order of data."""

    arm: str
    seed: int
    config: ConfigDict
    folder: epath.Path

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """Of the finished run; None before."""
        path = self.folder / "evaluation.json"
        found = json.loads(path.read_text()) if path.exists() else None
        return found if found and found["step"] == self.config.steps else None


def run(config: ConfigDict, workdir: epath.PathLike, shard: str | None = None) -> int:
    """Trains and evaluates every run that is not done yet; with all done, writes report.md, its pictures and numbers.

    Args:
      shard: "index/count": this machine does every count-th run; whoever comes last writes the report.

    Returns:
      The exit code: that of a run that was asked to leave, to be started again.

    Raises:
      UserError: before any compute, if an arm is no valid config, or there is nothing to compare.
    """
    workdir, line = epath.Path(workdir), Line()
    runs = plan_runs(config, workdir)
    index, count = _shard(shard)
    mine = runs[index::count]
    for number, one in enumerate(mine, start=1):
        if one.evaluation is not None:
            continue
        line.say(f"run {number} of {len(mine)}: {one.arm}, seed {one.seed}")
        code = train.run(one.config, one.folder)
        if code:
            return code
        evaluate.run(one.config, one.folder)
        jax.clear_caches()  # the next run compiles its own programs
    left = sum(one.evaluation is None for one in runs)
    if left:
        line.say(f"{left} of {len(runs)} runs are left to others; the same command, when they are done, reports")
        return 0
    line.say(write_report(config, runs, workdir))
    line.say(f"wrote {workdir / 'report.md'}, comparison.json, distance.png and samples.png")
    return 0


def plan_runs(config: ConfigDict, workdir: epath.Path) -> list[Run]:
    """Every arm with every seed, seed by seed, each config checked whole."""
    settings = config.compare
    if settings.baseline not in settings.arms:
        raise UserError(
            f"compare.baseline = {settings.baseline!r}: is none of compare.arms ({', '.join(settings.arms) or 'empty'})"
        )
    if settings.seeds < 2 or len(settings.arms) < 2:
        raise UserError("compare: give two arms and two seeds at least")
    if not config.evaluate_every or config.steps % config.evaluate_every:
        raise UserError(
            f"evaluate_every = {config.evaluate_every}: a comparison needs the distance over the steps, the last of "
            f"steps = {config.steps} among them"
        )
    runs = []
    for seed in range(config.seed, config.seed + settings.seeds):
        for arm, changes in settings.arms.items():
            changed = config.copy_and_resolve_references()
            changed.compare.arms = ConfigDict()
            changed.seed = seed
            try:
                with changed.unlocked():  # what is unknown is found below, with a remedy
                    changed.update(changes)
            except (AttributeError, TypeError, ValueError) as error:
                raise UserError(f"compare.arms.{arm}: {error}") from error
            same = {"seed": seed} | {key: config[key] for key in ("steps", "batch_size", "evaluate_every")}
            for key, value in same.items():
                if changed[key] != value:
                    raise UserError(f"compare.arms.{arm}: {key} is the same for all arms")
            if seed == config.seed:
                try:
                    evaluate.find_features(experiment_lib.from_config(changed))
                except UserError as error:
                    raise UserError(f"compare.arms.{arm}: {error}") from error
            runs.append(Run(arm, seed, changed, workdir / arm / f"{seed:02d}"))
    return runs


def _shard(shard: str | None) -> tuple[int, int]:
    index, _, count = (shard or "0/1").partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(f"--shard={shard}: give index/count, the index from 0, such as 0/2")
    return int(index), int(count)


def _arm(runs: list[Run]) -> dict[str, Any]:
    """The raw numbers of one arm, a row a seed."""
    curves = [read_rows(one.folder, EVALUATIONS) for one in runs]
    logged = [read_rows(one.folder) for one in runs]
    return {
        "seeds": [one.seed for one in runs],
        "evaluations": [one.evaluation for one in runs],
        "steps": [row["step"] for row in curves[0]],
        "distance": [[row["frechet_distance"] for row in rows] for rows in curves],
        "floor": curves[0][0]["frechet_distance_floor"],
        "logged_steps": [row["step"] for row in logged[0]],
        "stage": np.mean([[row["stage"] for row in rows] for rows in logged], axis=0).tolist(),
        "steps_per_second": [float(np.median([row["steps_per_second"] for row in rows])) for rows in logged],
    }


def write_report(config: ConfigDict, runs: list[Run], workdir: epath.Path) -> str:
    """Writes report.md and what it shows. Returns its first line, the verdict."""
    names, baseline = list(config.compare.arms), config.compare.baseline
    arms = {name: _arm([one for one in runs if one.arm == name]) for name in names}
    compared = {name: _against(arms[name], arms[baseline]) for name in names}
    best = min((name for name in names if name != baseline), key=lambda name: compared[name]["above_floor"].mean)
    verdict = _verdict(config, best, baseline, compared[best]["ratio"], len(names) - 1)

    distances = {
        name: (np.asarray(arm["steps"], float), mean_interval(np.asarray(arm["distance"])))
        for name, arm in arms.items()
    }
    stages = {
        name: (np.asarray(arm["logged_steps"], float), np.asarray(arm["stage"], float)) for name, arm in arms.items()
    }
    figure = figures.draw_comparison(distances, arms[baseline]["floor"], stages)
    figures.save_figure(workdir / "distance.png", figure)
    first = {one.arm: one.folder / "evaluation.png" for one in runs if one.seed == config.seed}
    figures.save_figure(workdir / "samples.png", figures.draw_side_by_side(first))
    with atomic_file.replacing(workdir / "comparison.json") as path:
        path.write_text(json.dumps(arms) + "\n")
    with atomic_file.replacing(workdir / "report.md") as path:
        path.write_text(_text(config, arms, compared, verdict))
    return verdict


def _against(arm: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
    """One arm's figures, paired with the baseline's by seed."""

    def final(of: dict[str, Any], measure: str) -> np.ndarray:
        return np.asarray([one[measure]["value"] for one in of["evaluations"]])

    floor = baseline["evaluations"][0]["frechet_distance"]["floor"]
    above, base = final(arm, "frechet_distance") - floor, final(baseline, "frechet_distance") - floor
    steps = np.asarray(arm["steps"], float)
    reached = [
        steps_to_reach(steps, np.asarray(mine), theirs[-1]) / steps[-1]
        for mine, theirs in zip(arm["distance"], baseline["distance"], strict=True)
    ]
    return {
        "distance": mean_interval(final(arm, "frechet_distance")),
        "above_floor": mean_interval(above),
        "kernel": mean_interval(final(arm, "kernel_distance")),
        "ratio": paired_ratio(above, base),
        "reached": np.asarray(reached),
        "time": paired_ratio(1 / np.asarray(arm["steps_per_second"]), 1 / np.asarray(baseline["steps_per_second"])),
    }


def _show(interval: Interval) -> str:
    return f"{interval.mean:.3g} ({interval.low:.3g} to {interval.high:.3g})"


def _verdict(config: ConfigDict, best: str, baseline: str, ratio: Interval, others: int) -> str:
    words = f"`{best}`, the best of {others} other arms, " if others > 1 else f"`{best}` "
    ends = f"ends at {_show(ratio)} times the Fréchet distance above the floor that `{baseline}` ends at"
    sure = "better" if ratio.high < 1 else "worse" if ratio.low > 1 else "no difference is shown"
    return (
        f"**{sure.capitalize()}**: {words}{ends} (95 % interval; {config.dataset.name}, {config.steps:,} steps, "
        f"{config.compare.seeds} seeds)."
    )


def _text(config: ConfigDict, arms: dict[str, Any], compared: dict[str, Any], verdict: str) -> str:
    """report.md."""
    base = arms[config.compare.baseline]
    one = base["evaluations"][0]
    counts, kernel = one["frechet_distance"], one["kernel_distance"]
    lines = [
        verdict,
        "",
        f"Features: {one['features']}. {counts['examples']:,} samples against {counts['reference_examples']:,} real "
        f"images at the end (floor, real against real at these numbers: {counts['floor']:.3g}; kernel distances "
        f"on {kernel['examples']:,} of each), {config.evaluation.training_samples:,} on the way (floor "
        f"{base['floor']:.3g}). Sampling: {one['sampling']['solver']}, {one['sampling']['steps']} steps, guidance "
        f"{one['sampling']['guidance']:g}. Equal steps; arms are paired by seed (same first weights, same order of "
        f"data). All intervals are 95 %, over seeds.",
        "",
        f"| arm | Fréchet distance | kernel distance | above the floor, over {config.compare.baseline}'s "
        f"| steps to {config.compare.baseline}'s end, share of all | time of a step, over |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in compared.items():
        reached = found["reached"][np.isfinite(found["reached"])]
        if len(reached) == len(found["reached"]):
            steps = _show(mean_interval(reached))
        else:
            steps = f"reached by {len(reached)} of {len(found['reached'])}"
        lines.append(
            f"| {name} | {_show(found['distance'])} | {_show(found['kernel'])} | {_show(found['ratio'])} | {steps} "
            f"| {_show(found['time'])} |"
        )
    lines += ["", "![distance over steps, and stages](distance.png)", "", "![samples, same noise](samples.png)", ""]
    return "\n".join(lines)
