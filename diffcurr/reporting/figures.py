"""Figures: the difficulty of noise levels, and comparisons of arms.

Figures are made without pyplot, which is not safe to use outside the main thread.
"""

from collections.abc import Mapping

import matplotlib
import numpy as np
from etils import epath
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from PIL import Image

from diffcurr import atomic_file
from diffcurr.difficulty.convergence import Convergence, normalised, steps_to_share
from diffcurr.difficulty.relative_entropy import RelativeEntropy
from diffcurr.metrics.intervals import Interval, mean_interval


def draw_relative_entropy(
    u: Float[np.ndarray, " pair"],
    mixture: RelativeEntropy,
    left_out: RelativeEntropy,
    gaussian: Float[np.ndarray, " pair"],
    edges: Mapping[str, Float[np.ndarray, " edge"]],
) -> Figure:
    """Draws the relative entropy of a data set over u and over log u, above the clusters that each rule suggests.

    Args:
      u: noise level of each pair of timesteps.
      mixture: relative entropy of the data set; two standard errors are shaded.
      left_out: the same, computed with `leave_one_out`.
      gaussian: relative entropy of a Gaussian with the data's mean and covariance.
      edges: edges of the clusters in u, by the name of the rule that suggests them.
    """
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex="col", sharey="row", height_ratios=(4, 1))
    positive = np.where(left_out.value > 0, left_out.value, np.nan)
    for upper, lower in axes.T:
        upper.plot(
            u, mixture.upper_bound, color="0.6", linestyle=":", label="upper bound (only the sample's own component)"
        )
        upper.plot(u, mixture.value, color="tab:blue", label="the data set: mixture of its points")
        spread = 2 * mixture.standard_error
        low = np.maximum(mixture.value - spread, mixture.value / 10)
        upper.fill_between(u, low, mixture.value + spread, color="tab:blue", alpha=0.25, linewidth=0)
        upper.plot(u, positive, color="tab:green", label="leave-one-out")
        upper.plot(
            u, -left_out.value, color="tab:green", linestyle="--", label="leave-one-out, absolute value where negative"
        )
        upper.plot(u, gaussian, color="tab:orange", label="Gaussian with the same mean and covariance")
        upper.set_yscale("log")
        upper.grid(alpha=0.3)
        for row, (colour, positions) in enumerate(zip(("tab:blue", "tab:purple", "0.3"), edges.values(), strict=False)):
            lower.vlines(positions, row - 0.4, row + 0.4, color=colour)
        lower.set(xlabel="noise level u (0 clean, 1 noise)", yticks=range(len(edges)), yticklabels=list(edges))
    axes[0, 0].set(ylabel="$D_{KL}(p_{t-1}\\,\\|\\,p_t)$ in nats", xlim=(0, 1))
    axes[0, 1].set_xscale("log")
    axes[0, 1].set_xlim(u[0], 1)
    axes[0, 0].legend(fontsize="small")
    return figure


def draw_convergence(convergence: Convergence, edges: Float[np.ndarray, " edge"], share: float) -> Figure:
    """Draws the normalised losses of networks that were each trained on one u-interval, and their steps to a share.

    Lines are means over seeds; bands and error bars are 95 % confidence intervals, which need at least two seeds.

    Args:
      convergence: the losses.
      edges: edges of the u-intervals.
      share: share of the improvement, in (0, 1), to which the steps are shown (`convergence.steps_to_share`).

    Raises:
      ValueError: if share is not in (0, 1).
    """
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    num_intervals = len(edges) - 1
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.95, num_intervals))

    def over_seeds(values: Float[np.ndarray, "seed *rest"]) -> Interval:
        # With one seed there is no spread to show.
        return mean_interval(values) if len(values) > 1 else Interval(*[values[0]] * 3)

    curves = over_seeds(normalised(convergence.loss))
    steps = convergence.steps
    for k in range(num_intervals):
        label = f"u in [{edges[k]:.3g}, {edges[k + 1]:.3g})"
        left.plot(steps[1:], curves.mean[k, 1:], color=colours[k], label=label)
        left.fill_between(steps[1:], curves.low[k, 1:], curves.high[k, 1:], color=colours[k], alpha=0.2, linewidth=0)
    left.axhline(1 - share, color="0.5", linestyle=":")
    left.set(xscale="log", ylim=(-0.02, 1.0), xlabel="step", ylabel="loss (1 at the start, 0 at the end)")
    left.legend(fontsize="small", title="trained on")
    needed = over_seeds(steps_to_share(convergence, share))
    middle = (edges[:-1] + edges[1:]) / 2
    right.errorbar(middle, needed.mean, (needed.mean - needed.low, needed.high - needed.mean), color="0.4", capsize=3)
    right.scatter(middle, needed.mean, color=colours, zorder=3)
    right.set(xlabel="noise level u (0 clean, 1 noise)", ylabel=f"steps to {share:.0%} of the improvement", xlim=(0, 1))
    right.set_ylim(bottom=0)
    right.grid(alpha=0.3)
    return figure


def draw_comparison(
    distances: Mapping[str, tuple[Float[np.ndarray, " evaluation"], Interval]],
    floor: float,
    stages: Mapping[str, tuple[Float[np.ndarray, " logged"], Float[np.ndarray, " logged"]]],
) -> Figure:
    """Draws the Fréchet distance of each arm over the steps, above its stage over the steps.

    Args:
      distances: steps, and the mean distance over seeds with its interval, by arm.
      floor: distance that fresh real images would have in evaluations with the same number of images.
      stages: steps, and the mean stage over seeds, by arm; the same arms as in `distances`.
    """
    figure = Figure(figsize=(9, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for index, (arm, (steps, curve)) in enumerate(distances.items()):
        upper.plot(steps, curve.mean, label=arm, color=f"C{index}")
        upper.fill_between(steps, curve.low, curve.high, alpha=0.15, color=f"C{index}", linewidth=0)
        lower.step(*stages[arm], where="pre", color=f"C{index}")
    upper.axhline(floor, color="0.4", linestyle="--", linewidth=1, label="fresh real images")
    upper.set(ylabel="Fréchet distance (mean, 95 % band over seeds)", yscale="log")
    upper.legend(fontsize="small")
    lower.set(xlabel="optimizer step", ylabel="stage")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    return figure


def draw_ratios(steps: Float[np.ndarray, " evaluation"], ratios: Mapping[str, Interval], baseline: str) -> Figure:
    """Draws the ratio of each arm's Fréchet distance to the baseline's over the steps, with one panel for each arm.

    Args:
      steps: step of each evaluation.
      ratios: geometric mean of the ratio over seeds, with its interval, at each evaluation, by arm.
      baseline: name of the baseline.
    """
    columns = min(4, len(ratios))
    rows = -(-len(ratios) // columns)
    figure = Figure(figsize=(max(3 * columns, 6), 2.6 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for (arm, ratio), axes in zip(ratios.items(), panels, strict=False):
        axes.axhline(1, color="0.4", linestyle="--", linewidth=1)
        axes.plot(steps, ratio.mean)
        axes.fill_between(steps, ratio.low, ratio.high, alpha=0.25, linewidth=0)
        axes.set_title(arm, fontsize="small")
        axes.set(yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 2, 3, 5, 8)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    for unused in range(len(ratios), len(panels)):
        panels[unused].set_axis_off()
        panels[unused - columns].tick_params(labelbottom=True)
    figure.supxlabel("optimizer step", fontsize="medium")
    figure.supylabel(f"distance / {baseline}'s distance (95 % band)", fontsize="medium")
    return figure


def draw_side_by_side(pictures: Mapping[str, epath.Path]) -> Figure:
    """Draws picture files beside each other, each under its name, with at most five in a row.

    Args:
      pictures: file of each picture, by name.
    """
    columns = min(5, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for axes, (name, path) in zip(panels, pictures.items(), strict=False):
        with Image.open(path) as picture:
            axes.imshow(np.asarray(picture), cmap="gray")
        axes.set_title(name, fontsize="small")
    return figure


def save_figure(path: epath.PathLike, figure: Figure) -> None:
    """Writes a figure as a PNG, at 120 dots per inch."""
    with atomic_file.replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
