"""The figure of denoising errors over noise levels and steps."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from diffcurr.metrics.intervals import Interval

COLUMNS = 4


def draw_ratios(
    log_snr: Sequence[float],
    steps: Float[np.ndarray, " evaluation"],
    ratios: Mapping[str, Interval],
    baseline: str,
) -> Figure:
    """Draws the error of the noise over the baseline's as one map for each arm: log-SNR across, steps upwards.

    A dot marks where the 95 % interval over seeds does not contain 1.

    Args:
      log_snr: the grid of log-SNR.
      steps: steps of the evaluations.
      ratios: geometric means over seeds [evaluation, level], by arm.
      baseline: name of the baseline.
    """
    columns = min(COLUMNS, len(ratios))
    rows = -(-len(ratios) // columns)
    figure = Figure(figsize=(1.2 + 2.9 * columns, 0.8 + 2.1 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    furthest = max(np.max(np.abs(np.log(ratio.mean))) for ratio in ratios.values())
    limit = float(np.clip(np.exp(furthest), 1.05, 2.0))
    for axes, (name, ratio) in zip(panels, ratios.items(), strict=False):
        shown = axes.pcolormesh(
            log_snr, np.arange(len(steps)), ratio.mean, cmap="RdBu_r", norm=LogNorm(1 / limit, limit), shading="nearest"
        )
        row, column = np.nonzero((ratio.low > 1) | (ratio.high < 1))
        axes.plot(np.asarray(log_snr)[column], row, ".", color="black", markersize=2)
        axes.set_title(name, fontsize="small")
        axes.set_yticks(np.arange(len(steps)), [f"{step:,.0f}" for step in steps], fontsize="x-small")
    for axes in panels[len(ratios) :]:
        axes.set_axis_off()
    bar = figure.colorbar(shown, ax=panels.tolist(), label=f"error of the noise over {baseline}'s")
    ticks = np.unique(np.round([1 / limit, 1 / limit**0.5, 1.0, limit**0.5, limit], 3))
    bar.set_ticks(ticks.tolist(), labels=[f"{tick:.3g}" for tick in ticks])
    bar.ax.minorticks_off()
    figure.supxlabel("log-SNR (noise to clean)", fontsize="small")
    figure.supylabel("optimizer step", fontsize="small")
    return figure
