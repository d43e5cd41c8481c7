"""A picture of what a linear classifier reads from each block of a network."""

from collections.abc import Sequence

from matplotlib.figure import Figure


def draw_probe(trained: Sequence[float], random: Sequence[float], pixels: float) -> Figure:
    """Accuracy over blocks.

    Args:
      trained: accuracy with the features of each block.
      random: accuracy with the features of each block of the same network before it was trained.
      pixels: accuracy with the pixels themselves.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes, blocks = figure.add_subplot(), range(1, len(trained) + 1)
    axes.plot(blocks, trained, "o-", label="trained")
    axes.plot(blocks, random, "s--", color="0.5", label="random weights")
    axes.axhline(pixels, color="k", linestyle=":", label="pixels")
    axes.set_xlabel("block")
    axes.set_ylabel("accuracy of a linear probe")
    axes.set_xticks(list(blocks) if len(blocks) <= 12 else list(blocks)[:: -(-len(blocks) // 12)])
    axes.legend()
    return figure
