"""Draws docs/method.png, the picture in the README: `python -m docs.method` (half a minute on two CPU cores).

Nothing in it is a sketch: the library measures the difficulty, noises the digit and trains the network.
"""

import pathlib
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import blended_transform_factory

from diffcurr import config as config_lib
from diffcurr import experiment as experiment_lib
from diffcurr.data import pipeline
from diffcurr.difficulty import curve
from diffcurr.experiment import Experiment
from diffcurr.training import step as step_lib

PICTURE = pathlib.Path(__file__).with_suffix(".png")
CONFIG, CLUSTERS, STEPS = "digits:flow", 8, 300
DIGIT = 0  # of the data set, shown at each noise level
INK, FAINT, IDLE = "#2b2b2b", "#8a8a8a", "#f0f0f0"


class Trained(NamedTuple):
    """What a run did, step by step."""

    weights: np.ndarray  # [step, cluster]
    stage: np.ndarray  # [step]
    loss: np.ndarray  # [step]
    u: np.ndarray  # [step, batch]: the noise levels that were drawn


def main() -> None:
    config = config_lib.changed(config_lib.complete(config_lib.load(CONFIG)), {"curriculum": {"clusters": CLUSTERS}})
    experiment = experiment_lib.from_config(config, jax.devices()[:1])
    images = curve.load_data(experiment, lambda text: None)
    entropy = curve.measure(experiment, images, lambda what, unit: lambda done, number: None).value
    draw(experiment, entropy, train(experiment)).savefig(PICTURE, dpi=150)


def train(experiment: Experiment) -> Trained:
    """STEPS steps of the real train step, and the noise levels that each of them draws."""
    config, compiled = experiment.config, experiment.compiled
    batches = pipeline.make_dataset(
        experiment.dataset.open(),
        experiment.dataset,
        experiment.conditioning.of,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    state = experiment.init_state()
    weights = compiled.initial_carry(state)
    history: list[Any] = []
    for number in range(STEPS):
        batch = jax.device_put(batches[number], compiled.batch_sharding)
        draws = step_lib.draw(experiment.step_config, jax.numpy.int32(number), 0, weights, batch.x.shape)
        state, next_weights, metrics = compiled.step(state, batch, weights)
        history.append((weights, metrics.stage, metrics.loss, draws.u))
        weights = next_weights
    return Trained(*(np.stack(part) for part in zip(*jax.device_get(history), strict=True)))


def draw(experiment: Experiment, entropy: np.ndarray, trained: Trained) -> Figure:
    """Three columns over one axis of noise levels: what they are, how hard they are, and when they are trained."""
    edges = experiment.edges
    assert edges is not None
    colours = matplotlib.colormaps["viridis"](np.linspace(0.1, 0.9, len(edges) - 1))
    style = {
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(12.6, 6.4), facecolor="white")
        rows = {"height_ratios": (4.4, 1), "hspace": 0.24, "top": 0.92, "bottom": 0.085}
        left = figure.add_gridspec(2, 2, width_ratios=(0.55, 2.6), wspace=0.1, left=0.065, right=0.36, **rows)
        right = figure.add_gridspec(2, 1, left=0.45, right=0.985, **rows)
        _draw_levels(figure.add_subplot(left[0, 0]), experiment, edges)
        _draw_hardness(figure.add_subplot(left[0, 1]), experiment, entropy, edges, colours)
        _draw_legend(figure.add_subplot(left[1, :]), colours[3], experiment.config.curriculum.patience)
        _draw_run(figure.add_subplot(right[0]), trained, edges, colours)
        _draw_loss(figure.add_subplot(right[1]), trained)
    return figure


def _draw_levels(axes: Axes, experiment: Experiment, edges: np.ndarray) -> None:
    """One digit in the middle of each cluster, scaled to the same spread."""
    digit = experiment.dataset.scaled(experiment.dataset.open()[DIGIT]["image"])[..., 0]
    noise = np.random.default_rng(1).normal(size=digit.shape)
    middles, half = (edges[:-1] + edges[1:]) / 2, 0.47 / (len(edges) - 1)
    for u, alpha, sigma in zip(middles, *experiment.process.exact_alpha_sigma(middles), strict=True):
        noisy = (alpha * digit + sigma * noise) / np.hypot(alpha, sigma)
        axes.imshow(noisy, extent=(0, 1, u - half, u + half), cmap="gray", vmin=-1.2, vmax=1.2, aspect="auto")
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], ylabel="noise level u")
    axes.set_title("a digit", loc="center")
    axes.set_yticks([0.0, 0.5, 1.0], ["clean 0", "0.5", "noise 1"])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_hardness(
    axes: Axes, experiment: Experiment, entropy: np.ndarray, edges: np.ndarray, colours: np.ndarray
) -> None:
    """The relative entropy of neighbouring noise levels, cut into clusters."""
    u, value = experiment.process.level_midpoints[1:], np.maximum(entropy, 1e-12)
    for low, high, colour in zip(edges[:-1], edges[1:], colours, strict=True):
        axes.fill_betweenx(u, value, 1e-12, where=(u >= low - 0.001) & (u <= high), color=colour, linewidth=0)
        axes.axhline(high, color="white", linewidth=1.5)
    axes.set(xscale="log", xlim=(value.min() / 2, value.max()), ylim=(0, 1), yticks=[])
    axes.set_title("1  Measure how hard each level is")
    axes.set_xlabel("relative entropy of neighbouring levels, nats", fontsize=9)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=8.5)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_run(axes: Axes, trained: Trained, edges: np.ndarray, colours: np.ndarray) -> None:
    """The clusters that each step trains, and some of the noise levels that it drew."""
    steps = np.arange(len(trained.loss) + 1)
    shown = trained.u[::3, ::4]
    at = np.broadcast_to(steps[:-1:3, None] + 0.5, shown.shape)
    for k, colour in enumerate(colours):
        active = np.append(trained.weights[:, k], trained.weights[-1, k]) > 0
        axes.fill_between(
            steps, edges[k], edges[k + 1], where=active, step="post", color=colour, alpha=0.33, linewidth=0
        )
        inside = (shown >= edges[k]) & (shown < edges[k + 1])
        axes.scatter(at[inside], shown[inside], s=3.5, color=colour, linewidth=0)
        axes.axhline(edges[k], color="white", linewidth=1.5)
    names = [str(k + 1) for k in range(len(colours))]
    names[0], names[-1] = f"hardest  {names[0]}", f"easiest  {names[-1]}"
    axes.set(ylim=(0, 1), xlim=(0, steps[-1]), facecolor=IDLE, ylabel="cluster")
    axes.set_yticks((edges[:-1] + edges[1:]) / 2, names)
    axes.yaxis.labelpad = -30
    axes.set_title("2  Train the easiest cluster; add a harder one whenever the loss stops improving")
    axes.tick_params(labelbottom=False, length=0)
    axes.spines[:].set_visible(False)


def _draw_loss(axes: Axes, trained: Trained) -> None:
    """The loss, which decides, and the step at which each stage begins."""
    axes.plot(np.arange(len(trained.loss)) + 0.5, trained.loss, color=INK, linewidth=1)
    place = blended_transform_factory(axes.transData, axes.transAxes)
    starts = np.flatnonzero(np.diff(trained.stage, prepend=0))
    for start, stage in zip(starts, trained.stage[starts], strict=True):
        axes.axvline(start, color=FAINT, linewidth=0.8, linestyle=":")
        name = f"stage {stage}" if stage == 1 else f"{stage}"
        axes.text(start, 1.03, name, transform=place, fontsize=8.5, color=FAINT)
    axes.set(xlim=(0, len(trained.loss)), xlabel="training step", ylabel="loss", yscale="log")
    axes.yaxis.set_major_locator(FixedLocator([0.4, 0.6, 1.0]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_legend(axes: Axes, colour: np.ndarray, patience: int) -> None:
    axes.set(xlim=(0, 10), ylim=(0, 4))
    axes.set_axis_off()
    axes.add_patch(Rectangle((0.1, 3.1), 0.7, 0.5, color=colour, alpha=0.33, linewidth=0))
    axes.scatter([0.2, 0.45, 0.7], [2.25, 2.5, 2.2], s=5, color=colour)
    axes.add_patch(Rectangle((0.1, 1.1), 0.7, 0.5, color=IDLE, linewidth=0))
    axes.plot([0.45, 0.45], [0.05, 0.65], color=FAINT, linewidth=0.8, linestyle=":")
    texts = (
        f"a stage begins: more than {patience} steps without a new best loss",
        "not trained yet",
        "noise levels that a step drew",
        "trained",
    )
    for height, text in enumerate(texts):
        axes.text(1.1, height + 0.35, text, va="center", fontsize=9)


if __name__ == "__main__":
    main()
