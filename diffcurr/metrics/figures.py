"""Pictures: grids of images, and the loss of each cluster under the stage line.

Figures are made without pyplot, which is not safe outside the main thread.
"""

from typing import Any

import matplotlib
import numpy as np
from etils import epath
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image

from diffcurr import atomic_file


def save_grid(path: epath.PathLike, images: Float[np.ndarray, "n height width channel"], columns: int = 0) -> None:
    """Writes images in [-1, 1] as one PNG, row by row; small ones are enlarged by whole pixels.

    Args:
      columns: images a row; the square root of their number if 0.
    """
    number, height, width, channels = images.shape
    columns = columns or int(np.ceil(np.sqrt(number)))
    rows = -(-number // columns)
    pixels = np.round((np.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
    zoom = max(1, 64 // height)
    pixels = pixels.repeat(zoom, axis=1).repeat(zoom, axis=2)
    gap = 2
    canvas = np.full(
        (rows * (height * zoom + gap) + gap, columns * (width * zoom + gap) + gap, channels), 255, np.uint8
    )
    for i, image in enumerate(pixels):
        top, left = gap + i // columns * (height * zoom + gap), gap + i % columns * (width * zoom + gap)
        canvas[top : top + height * zoom, left : left + width * zoom] = image
    with atomic_file.replacing(path) as temporary:
        Image.fromarray(canvas[..., 0] if channels == 1 else canvas).save(temporary)


def save_curriculum(path: epath.PathLike, rows: list[dict[str, Any]], edges: Float[np.ndarray, " edge"]) -> None:
    """Writes the loss of each cluster over time as a heat map under the stage line.

    Args:
      rows: of `metrics.jsonl`, with `step`, `stage`, `num_stages` and `loss_by_cluster` (null where a cluster was not
        trained).
      edges: of the clusters, in u.
    """
    if not rows:
        return
    steps = np.array([row["step"] for row in rows], float)
    loss = np.array([[np.nan if v is None else v for v in row["loss_by_cluster"]] for row in rows]).T
    stages = [rows[0]["stage"]] + [row["stage"] for row in rows]

    figure = Figure(figsize=(9, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 3))
    upper.set(
        ylabel="stage",
        ylim=(0.5, rows[-1]["num_stages"] + 0.5),
        title="Loss of each cluster as the curriculum advances",
    )
    upper.yaxis.get_major_locator().set_params(integer=True)
    upper.grid(alpha=0.3)

    starts = np.concatenate([[0.0], steps])  # a column of the map is the interval that its row averages over
    upper.step(starts, stages, where="pre", color="tab:blue")
    shown = np.where(loss > 0, loss, np.nan)
    finite = shown[np.isfinite(shown)]
    norm = matplotlib.colors.LogNorm(*np.quantile(finite, [0.01, 0.99])) if finite.size and np.ptp(finite) > 0 else None
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="0.92")
    mesh = lower.pcolormesh(starts, edges, np.ma.masked_invalid(shown), norm=norm, cmap=colours, rasterized=True)
    lower.set(xlabel="step", ylabel="noise level u\n(0 clean, hard; 1 noise, easy)", ylim=(0, 1))
    figure.colorbar(mesh, ax=lower, label="mean loss (grey: not trained)", extend="both")
    with atomic_file.replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
