"""The report of a comparison: report.md and the pictures that it shows."""

from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr.metrics.comparison import (
    Result,
    compare_denoising,
    compare_with_baseline,
    geometric_mean,
    paired_ratio,
)
from diffcurr.metrics.denoising import NAME
from diffcurr.metrics.intervals import Interval, mean_interval
from diffcurr.reporting import comparison, denoising, figures

DISTANCES = ("frechet_distance", "held_out_frechet_distance", "kernel_distance")


def write_report(config: ConfigDict, results: list[Result], workdir: epath.Path) -> str:
    """Writes report.md and what it shows. Returns its first line, the verdict."""
    names, baseline = list(config.compare.arms), config.compare.baseline
    arms = {name: [one for one in results if one["arm"] == name] for name in names}
    measure = config.compare.measure
    compared = {name: compare_with_baseline(arms[name], arms[baseline], measure) for name in names}
    candidates = config.compare.candidates or [name for name in names if name != baseline]
    what = f"{config.dataset.name}, {config.process.name}, {config.steps:,} steps, {config.compare.seeds} seeds"
    verdict = comparison.verdict(compared, baseline, candidates, what)

    def over_seeds(name: str, steps: str, values: str) -> tuple[np.ndarray, Any]:
        return np.asarray(arms[name][0][steps], float), np.asarray([one[values] for one in arms[name]])

    distances, stages = {}, {}
    for name in names:
        steps, curves = over_seeds(name, "steps", "distance")
        distances[name] = (steps, mean_interval(curves))
        logged, stage = over_seeds(name, "logged_steps", "stage")
        stages[name] = (logged, stage.mean(axis=0))
    figures.save_figure(
        workdir / "distance.png", figures.draw_comparison(distances, arms[baseline][0]["floor"], stages)
    )
    points = distances[baseline][0]
    ratios = {name: geometric_mean(compared[name].distance_ratio) for name in names if name != baseline}
    figures.save_figure(workdir / "ratio.png", figures.draw_ratios(points, ratios, baseline))
    pictures = {name: workdir / name / f"{config.seed:02d}" / "evaluation.png" for name in names}
    figures.save_figure(workdir / "samples.png", figures.draw_side_by_side(pictures))
    parts = [
        verdict,
        comparison.conditions(arms[baseline], compared, config.evaluation.training_samples, measure),
        comparison.table(compared, baseline),
        "![distance over steps, and stages](distance.png)",
        f"![distance over {baseline}'s over steps](ratio.png)",
        comparison.ratio_table(points, ratios, baseline),
        f"![samples of seed {config.seed}, same noise](samples.png)",
        *_grids(arms, baseline, measure),
        *_other_metrics(arms, measure),
        *_denoising_of(arms, baseline, workdir),
    ]
    with atomic_file.replacing(workdir / "report.md") as path:
        path.write_text("\n\n".join(parts) + "\n")
    return verdict


def _grids(arms: dict[str, list[Result]], baseline: str, measure: str) -> list[str]:
    """The part of the report on other sampling grids; none where there is no other."""
    others = arms[baseline][0].get("grids") or {}

    def ratios(evaluated: dict[str, list[dict[str, Any]]]) -> dict[str, Interval]:
        final = {name: np.asarray([one[measure]["value"] for one in each]) for name, each in evaluated.items()}
        return {name: paired_ratio(final[name], final[baseline]) for name in arms if name != baseline}

    if not others:
        return []
    found = {"the config's": ratios({name: [one["evaluation"] for one in each] for name, each in arms.items()})}
    for grid in others:
        found[grid] = ratios({name: [one["grids"][grid] for one in each] for name, each in arms.items()})
    return [comparison.table_by_arm(f"Distance over {baseline}'s at the end, by sampling grid", "sampling grid", found)]


def _other_metrics(arms: dict[str, list[Result]], measure: str) -> list[str]:
    """The part of the report on metrics that have no other place in it; none where there are none."""
    first = next(iter(arms.values()))[0]
    values = [name for name, one in first["evaluation"].items() if isinstance(one, dict) and "value" in one]
    found = {}
    for metric in (name for name in values if name not in (*DISTANCES, measure, NAME)):
        for grid in ("", *(first.get("grids") or {})):
            each = {
                arm: [one["grids"][grid] if grid else one["evaluation"] for one in results]
                for arm, results in arms.items()
            }
            of_arm = {
                arm: mean_interval(np.asarray([one[metric]["value"] for one in all])) for arm, all in each.items()
            }
            found[metric.replace("_", " ") + (f", {grid}" if grid else "")] = of_arm
    return [comparison.table_by_arm("Other metrics at the end, means over seeds", "metric", found)] if found else []


def _denoising_of(arms: dict[str, list[Result]], baseline: str, workdir: epath.Path) -> list[str]:
    """The part of the report on held-out images, whose picture is written; none where nothing was measured."""
    first = arms[baseline][0]
    if not first.get("denoising"):
        return []
    compared = {name: compare_denoising(results, arms[baseline]) for name, results in arms.items()}
    log_snr = first["denoising"]["log_snr"]
    ratios = {name: one.noise_error_ratio for name, one in compared.items() if name != baseline}
    figure = denoising.draw_ratios(log_snr, np.asarray(first["steps"], float), ratios, baseline)
    figures.save_figure(workdir / "denoising.png", figure)
    images = first["evaluation"][NAME]["examples"]
    return [
        comparison.denoising_table(compared, baseline, log_snr, images),
        "![error of the noise over log-SNR and steps](denoising.png)",
    ]
