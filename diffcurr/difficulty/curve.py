"""The relative-entropy curve of a config's data: measured once, kept in the workdir, and turned into clusters."""

import dataclasses
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffcurr import atomic_file
from diffcurr import config as config_lib
from diffcurr.curriculum import clusters
from diffcurr.data import pipeline
from diffcurr.data.pipeline import Batch
from diffcurr.difficulty.relative_entropy import RelativeEntropy, relative_entropy
from diffcurr.errors import concerning
from diffcurr.experiment import Experiment
from diffcurr.reporting.progress import Countdown, Line
from diffcurr.training.randomness import stream_key

FILE = "relative_entropy.npz"


class Levels(NamedTuple):
    """A process's noise levels, from the least noise to the most, in float64."""

    u: np.ndarray
    alphas: np.ndarray
    sigmas: np.ndarray


def levels(experiment: Experiment) -> Levels:
    """The middle of each of the process's equally likely intervals of u."""
    u = experiment.process.level_midpoints
    return Levels(u, *experiment.process.exact_alpha_sigma(u))


def load_data(experiment: Experiment, line: Line) -> Batch:
    """The images that are analyzed: all of the split, or `analysis.images` of them drawn by the seed."""
    config = experiment.config
    source = experiment.open_source()
    number = min(len(source), config.analysis.images)
    number -= number % jax.local_device_count()  # each device holds as many
    line.say(f"{config.dataset.name}: reading {number:,} of {len(source):,} images")
    return pipeline.load(source, experiment.dataset, number, config.seed)


def measure(experiment: Experiment, data: Batch, line: Line, *, leave_one_out: bool = False) -> RelativeEntropy:
    """The curve of `data` under the config's process, on this host's devices; the mean of ten, to see how it goes.

    Raises:
      UserError: if there are fewer images than samples, or they are all the same.
    """
    _, alphas, sigmas = levels(experiment)
    mesh = Mesh(np.array(jax.local_devices()), "data")
    images = jax.device_put(jnp.asarray(data["image"]), NamedSharding(mesh, PartitionSpec("data")))
    samples = experiment.config.analysis.samples
    with concerning("analysis"):
        if samples > len(images):
            raise ValueError(f"samples = {samples}: there are only {len(images)} images")
    parts = next(n for n in range(10, 0, -1) if n == 1 or (samples % n == 0 and samples // n >= 50))
    what = "relative entropy" + (", leave-one-out" if leave_one_out else "")
    countdown = Countdown(line, what, f"times {samples // parts} samples")
    curves = []
    for part in range(parts):
        key = jax.random.fold_in(stream_key(experiment.config.seed, "relative entropy"), part)
        with concerning("analysis"):
            curve = relative_entropy(images, alphas, sigmas, key, samples // parts, leave_one_out=leave_one_out)
        curves.append([np.asarray(field, np.float64) for field in curve])
        countdown(part + 1, parts)
    value, error, bound = np.swapaxes(curves, 0, 1)
    return RelativeEntropy(value.mean(0), np.sqrt(np.mean(error**2, 0) / parts), bound[0])


def save(workdir: epath.Path, experiment: Experiment, arrays: dict[str, Any]) -> None:
    """Writes the curve and what belongs to it, with what it was measured on."""
    with atomic_file.replacing(workdir / FILE) as path:
        np.savez_compressed(path, u=levels(experiment).u, measured_on=json.dumps(_measured_on(experiment)), **arrays)


def load(workdir: epath.Path, experiment: Experiment) -> dict[str, np.ndarray] | None:
    """What a workdir holds of this config's curve; None if nothing, or that of other data or another process."""
    if not (workdir / FILE).exists():
        return None
    with (workdir / FILE).open("rb") as file, np.load(file) as arrays:
        if json.loads(str(arrays["measured_on"])) != _measured_on(experiment):
            return None
        return dict(arrays)


def with_clusters(experiment: Experiment, workdir: epath.Path, line: Line) -> Experiment:
    """The experiment with its clusters known; the curve they may follow from is measured unless the workdir has it.

    The first process measures, and the others take its edges, so that all train on the same ones.
    """
    if experiment.edges is not None:
        return experiment
    settings = experiment.config.curriculum
    edges = np.zeros(settings.clusters + 1)
    if jax.process_index() == 0:
        arrays = load(workdir, experiment)
        if arrays is None:
            line.say("measuring the relative entropy from which the clusters follow (once; kept in the workdir)")
            arrays = measure(experiment, load_data(experiment, line), line)._asdict()
            save(workdir, experiment, arrays)
        edges = entropy_clusters(arrays["value"], settings.clusters, settings.entropy_power)
    if jax.process_count() > 1:
        edges = multihost_utils.broadcast_one_to_all(edges)
    return dataclasses.replace(experiment, edges=edges)


def entropy_clusters(value: jax.Array | np.ndarray, number: int, power: float) -> np.ndarray:
    """Clusters from a measured curve, which sampling may leave a little below 0 where it is tiny."""
    return clusters.by_relative_entropy(np.maximum(np.asarray(value), 0.0), number, power=power)


def _measured_on(experiment: Experiment) -> dict[str, Any]:
    """Everything that the curve depends on."""
    config = config_lib.to_json(experiment.config)
    return {
        "dataset": [config["dataset"]["name"], config["dataset"]["split"]],
        "process": config["process"],
        "images": config["analysis"]["images"],
        "samples": config["analysis"]["samples"],
        "seed": config["seed"],
    }
