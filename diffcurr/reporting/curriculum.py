"""A run's curriculum as a picture: what each cluster still costs, how often it is drawn, and what it tells."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import matplotlib
import numpy as np
from etils import epath
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from ml_collections import ConfigDict

from diffcurr.curriculum import Levels
from diffcurr.curriculum.gating import ONSET, SHARPNESS, gate, onset
from diffcurr.difficulty import earlier
from diffcurr.reporting.figures import save_figure
from diffcurr.training import distributed
from diffcurr.training.rows import by_cluster, read_rows

FILE = "curriculum.png"
CURVES = 4  # parts of the run whose error is drawn

Steps: TypeAlias = Float[np.ndarray, " boundary"]
"""The step at which each row begins, and the last one's end."""


def save_curriculum(path: epath.PathLike, rows: Sequence[Mapping[str, Any]], levels: Levels) -> None:
    """Writes a PNG of a run's rows, `draw_curriculum`; nothing if there is nothing to draw."""
    figure = draw_curriculum(rows, levels)
    if figure is not None:
        save_figure(path, figure)


def draw_curriculum(rows: Sequence[Mapping[str, Any]], levels: Levels) -> Figure | None:
    """Draws the clusters over the steps and, where the rows have it, what they tell over log-SNR.

    On the left, over the steps: the stage, if there are several; the loss of each cluster, its error of the noise, and
    its weight. On the right, over log-SNR: the error, which is twice the information per log-SNR and pixel, with its
    onset; and beside the information how often each level is drawn. Rows of older versions have less, which is left
    out.

    Args:
      rows: rows of `metrics.jsonl`, with `step`, `stage`, `num_stages` and `loss_by_cluster`, and of newer versions
        `noise_error_by_cluster` and `weight_by_cluster`; None marks a cluster that was not trained.
      levels: the clusters, and log-SNR at the process's levels.

    Returns:
      The figure; None if no row is of these clusters.
    """
    number = len(levels.widths)
    rows = [row for row in rows if _is_of_curriculum(row, number)]
    if not rows:
        return None
    loss, error, weight = (
        by_cluster(rows, name, number) for name in ("loss_by_cluster", "noise_error_by_cluster", "weight_by_cluster")
    )
    # The numbers of a row are means over the steps since the row before.
    steps = np.concatenate([[0.0], [row["step"] for row in rows]])
    maps = {
        "loss (grey: not trained)": loss,
        "error of the noise, per pixel": error,
        "weight (1: as the process; grey: 0)": weight,
    }
    maps = {label: np.where(values > 0, values, np.nan) for label, values in maps.items()}
    maps = {label: values for label, values in maps.items() if np.any(np.isfinite(values))}
    if not maps:
        return None
    is_staged, is_detailed = rows[-1]["num_stages"] > 1, np.any(np.isfinite(error))

    heights = [1.0] * is_staged + [2.5] * len(maps)
    figure = Figure(figsize=(14 if is_detailed else 9, 1.2 + 1.1 * sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), 2 if is_detailed else 1, height_ratios=heights)
    left: list[Axes] = []
    for place in range(len(heights)):
        left.append(figure.add_subplot(grid[place, 0], sharex=left[0] if left else None))
        left[-1].tick_params(labelbottom=place == len(heights) - 1)
    left[-1].set_xlabel("step")
    if is_staged:
        _draw_stages(left[0], steps, rows)
    for axes, (label, values) in zip(left[is_staged:], maps.items(), strict=True):
        _draw_map(figure, axes, steps, values, levels, label)
    if is_detailed:
        right = grid[:, 1].subgridspec(2, 1)
        upper, lower = figure.add_subplot(right[0]), figure.add_subplot(right[1])
        _draw_error(upper, steps, error, levels)
        _draw_shares(lower, _shares(np.diff(steps), error, weight, levels), levels)
        for axes in (upper, lower):
            axes.set(xlabel="log-SNR (more noise to the right)", xlim=levels.edge_log_snr[[0, -1]])
            axes.grid(alpha=0.3)
            axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, fontsize="small", frameon=False)
    return figure


def _is_of_curriculum(row: Mapping[str, Any], clusters: int) -> bool:
    """Whether a row has what the picture needs; a damaged file may hold others."""
    loss = row.get("loss_by_cluster")
    numbers = (row.get("stage"), row.get("num_stages"))
    return isinstance(loss, list) and len(loss) == clusters and all(isinstance(one, int | float) for one in numbers)


def _draw_stages(axes: Axes, steps: Steps, rows: Sequence[Mapping[str, Any]]) -> None:
    stages = [rows[0]["stage"]] + [row["stage"] for row in rows]
    axes.step(steps, stages, where="pre", color="tab:blue")
    axes.set(ylabel="stage", ylim=(0.5, rows[-1]["num_stages"] + 0.5))
    axes.yaxis.set_major_locator(MaxNLocator("auto", steps=(1, 2, 5, 10), integer=True))
    axes.grid(alpha=0.3)


def _draw_map(
    figure: Figure, axes: Axes, steps: Steps, values: Float[np.ndarray, "row cluster"], levels: Levels, label: str
) -> None:
    """A heat map over steps and u, logarithmic between the 1 % and 99 % quantiles, but over a factor of 2 at least."""
    low, high = np.log(np.quantile(values[np.isfinite(values)], [0.01, 0.99]))
    half = max(high - low, np.log(2.0)) / 2
    low, high = np.exp((low + high) / 2 + np.array([-half, half]))
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="0.92")
    shown = np.ma.masked_invalid(values.T)
    mesh = axes.pcolormesh(steps, levels.edges, shown, norm=LogNorm(low, high), cmap=colours, rasterized=True)
    axes.set(ylim=(0, 1), ylabel="noise level u\n(0 clean, 1 noise)")
    ticks = [float(f"{tick:.2g}") for tick in np.geomspace(low, high, 7)[1:-1]]
    bar = figure.colorbar(mesh, ax=axes, label=label, extend="both", ticks=ticks, format="{x:g}")
    bar.minorticks_off()


def _mean(values: Float[np.ndarray, "row cluster"]) -> Float[np.ndarray, " cluster"]:
    """The mean over the rows that have a value; NaN where none has."""
    known = np.isfinite(values)
    return np.where(known, values, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)


def _draw_error(axes: Axes, steps: Steps, error: Float[np.ndarray, "row cluster"], levels: Levels) -> None:
    """The error of each cluster in parts of the run, the latest darkest."""
    parts = np.array_split(np.arange(len(error)), min(CURVES, len(error)))
    parts = [part for part in parts if np.any(np.isfinite(error[part]))]
    for colour, part in zip(matplotlib.colormaps["Blues"](np.linspace(0.35, 1, len(parts))), parts, strict=True):
        label = f"steps {steps[part[0]] + 1:,.0f} to {steps[part[-1] + 1]:,.0f}"
        axes.plot(levels.centres, _mean(error[part]), color=colour, label=label, marker=".")
    axes.set(yscale="log", ylabel="error of the noise, per pixel\n(twice the information per log-SNR)")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    at = _onset(_mean(error[parts[-1]]), levels)
    axes.axvline(-2 * np.log(at), color="tab:red", linestyle="--", label=f"onset: above {ONSET:.1%} of the largest")


def _onset(error: Float[np.ndarray, " cluster"], levels: Levels) -> float:
    known = np.where(np.isfinite(error), error, 0.0)
    return float(onset(known, np.exp(-levels.centres / 2), ONSET))


class Shares(NamedTuple):
    """What each cluster has a share of; each sums to 1, or is 0 where nothing is known.

    Attributes:
      information: the information at the end, gated.
      drawn: examples over the whole run.
      drawn_last: examples at the end.
    """

    information: Float[np.ndarray, " cluster"]
    drawn: Float[np.ndarray, " cluster"]
    drawn_last: Float[np.ndarray, " cluster"]


def _shares(
    lengths: Float[np.ndarray, " row"],
    error: Float[np.ndarray, "row cluster"],
    weight: Float[np.ndarray, "row cluster"],
    levels: Levels,
) -> Shares:
    """
    Args:
      lengths: number of steps of each row.
    """
    latest = _mean(error[-max(1, len(error) // CURVES) :])
    ratio = np.exp(-levels.centres / 2)
    span = np.abs(np.diff(levels.edge_log_snr))
    # Where it was not measured everywhere, nobody knows which share of it lies where.
    measured = latest if np.all(np.isfinite(latest)) else np.zeros_like(latest)
    told = measured * gate(ratio, _onset(measured, levels), SHARPNESS) * span
    drawn = np.nan_to_num(weight) * levels.widths
    drawn /= np.maximum(drawn.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return Shares(*(one / max(one.sum(), np.finfo(float).tiny) for one in (told, lengths @ drawn, drawn[-1])))


def _draw_shares(axes: Axes, shares: Shares, levels: Levels) -> None:
    """The shares of the information and of the draws, per log-SNR."""
    lines: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "information at the end, gated": (shares.information, {"color": "tab:orange", "fill": True, "alpha": 0.4}),
        "draws of the process": (levels.widths, {"color": "0.4", "linestyle": ":", "linewidth": 1.5}),
        "draws over the whole run": (shares.drawn, {"color": "tab:blue", "linestyle": "--"}),
        "draws at the end": (shares.drawn_last, {"color": "tab:blue"}),
    }
    span = np.abs(np.diff(levels.edge_log_snr))
    for label, (share, style) in lines.items():
        if np.any(share > 0):
            axes.stairs(share / np.where(span > 0, span, np.nan), levels.edge_log_snr, label=label, **style)
    axes.set(ylabel="share per log-SNR (area 1)")
    axes.set_ylim(bottom=0)


def describe_run(rows: Sequence[Mapping[str, Any]], levels: Levels) -> str:
    """Says where a run's information lies and how often it is drawn, in Markdown; "" where the rows do not tell.

    Args:
      rows, levels: see `draw_curriculum`.
    """
    number = len(levels.widths)
    rows = [row for row in rows if _is_of_curriculum(row, number)]
    error, weight = (by_cluster(rows, name, number) for name in ("noise_error_by_cluster", "weight_by_cluster"))
    if not np.any(np.isfinite(error)):
        return ""
    shares = _shares(np.diff([0.0] + [row["step"] for row in rows]), error, weight, levels)
    if not np.any(shares.information):
        return (
            f"In the last of {rows[-1]['step']:,} steps some of {number} clusters were not drawn, so where the "
            f"information lies is not known."
        )
    half = int(np.searchsorted(np.cumsum(shares.information), 0.5)) + 1
    return (
        f"After {rows[-1]['step']:,} steps half of the information, as far as its network finds it, lies below "
        f"u = {levels.edges[half]:.3g} (log-SNR above {levels.edge_log_snr[half]:.2g}), in the {half} hardest of "
        f"{number} clusters. There it drew {np.sum(shares.drawn[:half]):.0%} of its examples, and "
        f"{np.sum(shares.drawn_last[:half]):.0%} at the end; the process itself draws {levels.edges[half]:.0%}."
    )


def of_workdir(workdir: epath.Path, config: ConfigDict) -> list[str]:
    """Draws the run that a workdir holds and describes it: the lines of a report in Markdown, none if there is no run.

    All processes call it; process 0 writes.

    Args:
      config: the run's.
    """
    rows = read_rows(workdir)
    levels = earlier.levels_of(workdir, config) if rows else None
    figure = None if levels is None else draw_curriculum(rows, levels)
    if levels is None or figure is None:
        return []
    if distributed.is_primary():
        save_figure(workdir / FILE, figure)
    picture = f"![Loss, error of the noise and weight of each cluster; information and draws over log-SNR]({FILE})"
    return ["## What the run in this folder has learned", "", describe_run(rows, levels), "", picture, ""]
