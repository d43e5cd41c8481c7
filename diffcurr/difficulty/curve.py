"""The relative-entropy curve of a config's data: measured once, kept in the workdir, and turned into clusters."""

import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr import config as config_lib
from diffcurr.batch import Batch
from diffcurr.codecs import Codec
from diffcurr.conditioning import Conditioning
from diffcurr.data import pipeline
from diffcurr.data.datasets import Dataset
from diffcurr.difficulty.relative_entropy import RelativeEntropy, relative_entropy
from diffcurr.errors import concerning, first_line
from diffcurr.processes import Process
from diffcurr.training.randomness import stream_key

FILE = "relative_entropy.npz"
ENCODED = 256  # images encoded at a time
Countdown = Callable[[int, int], None]
"""Called with (parts done, parts in all)."""


@runtime_checkable
class Experiment(Protocol):
    """The part of an experiment that a curve depends on."""

    @property
    def config(self) -> ConfigDict: ...

    @property
    def dataset(self) -> Dataset: ...

    @property
    def conditioning(self) -> Conditioning: ...

    @property
    def encoder(self) -> Codec | None: ...

    @property
    def process(self) -> Process: ...


class Levels(NamedTuple):
    """A process's noise levels, from the least noise to the most, in float64."""

    u: np.ndarray
    alphas: np.ndarray
    sigmas: np.ndarray


def levels(experiment: Experiment) -> Levels:
    """The middle of each of the process's equally likely intervals of u."""
    u = experiment.process.level_midpoints
    return Levels(u, *experiment.process.exact_alpha_sigma(u))


def load_data(experiment: Experiment, say: Callable[[str], None]) -> Batch:
    """What is analyzed: all of the split, or `analysis.images` of them drawn by the seed; encoded, means of latents."""
    config = experiment.config
    source = experiment.dataset.opened()
    number = min(len(source), config.analysis.images)
    number -= number % jax.local_device_count()  # each device holds as many
    say(f"{config.dataset.name}: reading {number:,} of {len(source):,} images")
    data = pipeline.load(source, experiment.dataset, experiment.conditioning.of, number, config.seed)
    if experiment.encoder is None:
        return data
    encode = jax.jit(lambda images, codec=experiment.encoder: codec.encode(images)[0])
    parts = [encode(data.x[start : start + ENCODED]) for start in range(0, number, ENCODED)]
    return data._replace(x=np.concatenate(jax.device_get(parts)))


def measure(
    experiment: Experiment, data: Batch, new_countdown: Callable[[str, str], Countdown], *, leave_one_out: bool = False
) -> RelativeEntropy:
    """The curve of `data` under the config's process, on this host's devices; the mean of ten, to see how it goes.

    Args:
      new_countdown: (what is measured, the unit of its parts) -> what to call after each part.

    Raises:
      UserError: if there are fewer images than samples, or they are all the same.
    """
    _, alphas, sigmas = levels(experiment)
    mesh = Mesh(np.array(jax.local_devices()), "data")
    images = jax.device_put(jnp.asarray(data.x), NamedSharding(mesh, PartitionSpec("data")))
    samples = experiment.config.analysis.samples
    with concerning("analysis"):
        if samples > len(images):
            raise ValueError(f"samples = {samples}: there are only {len(images)} images")
    parts = next(n for n in range(10, 0, -1) if n == 1 or (samples % n == 0 and samples // n >= 50))
    what = "relative entropy" + (", leave-one-out" if leave_one_out else "")
    countdown = new_countdown(what, f"times {samples // parts} samples")
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
        np.savez_compressed(
            path, u=levels(experiment).u, measured_on=json.dumps(_measured_on(experiment.config)), **arrays
        )


def load(workdir: epath.Path, experiment: Experiment) -> dict[str, np.ndarray] | None:
    """What a workdir holds of this config's curve; None if nothing, or that of other data or another process."""
    path = workdir / FILE
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = dict(arrays)
        measured_on = json.loads(str(found["measured_on"]))
        if "images" in measured_on:  # written by version 0.1.0
            name, split = measured_on.pop("dataset")
            analysis = {key: measured_on.pop(key) for key in ("images", "samples")}
            measured_on |= {"dataset": {"name": name, "split": split}, "analysis": analysis}
        if _measured_on(config_lib.upgrade(measured_on)) != _measured_on(experiment.config):
            return None
        for name in RelativeEntropy._fields:
            if found[name].shape != (experiment.process.num_levels - 1,) or not np.all(np.isfinite(found[name])):
                raise ValueError(f"{name} is no curve of {experiment.process.num_levels} levels")
        return found
    except Exception as error:  # whatever a damaged file makes of NumPy, zlib and JSON: said, and measured again
        print(f"WARNING: {path} is damaged ({first_line(error)}): the curve is measured again", file=sys.stderr)
        return None


def _measured_on(config: ConfigDict) -> dict[str, Any]:
    """Everything that the curve depends on: a part of the config."""
    whole = config_lib.to_json(config)
    return {
        "dataset": {key: whole["dataset"][key] for key in ("name", "split")},
        "process": whole["process"],
        "analysis": {key: whole["analysis"][key] for key in ("images", "samples")},
        "seed": whole["seed"],
    }
