"""The relative-entropy curve of a config's data."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from diffcurr import config as config_lib
from diffcurr.difficulty import streaming
from diffcurr.difficulty.analyzed import Data, Experiment, load_data
from diffcurr.difficulty.kept import Curve, NewCountdown, Say, from_first
from diffcurr.difficulty.relative_entropy import RelativeEntropy, gaussian_relative_entropy, relative_entropy
from diffcurr.difficulty.survey import Survey, survey
from diffcurr.errors import UserError, concerning
from diffcurr.training.randomness import stream_key

MOST = 20_000  # dimensions of which there is a covariance: 3.2 GB, three times
UNIT = "pairs x levels"  # an image, a sample and a pair of noise levels


class NoiseLevels(NamedTuple):
    """A process's noise levels, from the least noise to the most, in float64."""

    u: np.ndarray
    alphas: np.ndarray
    sigmas: np.ndarray


def levels(experiment: Experiment) -> NoiseLevels:
    """The middle of each of the process's equally likely intervals of u."""
    u = experiment.process.level_midpoints
    return NoiseLevels(u, *experiment.process.exact_alpha_sigma(u))


def look(experiment: Experiment, data: Data, new_countdown: NewCountdown, *, covariance: bool = False) -> Survey:
    """Reads the data once, for their means, the points of the curve's samples, and the covariance if it is wanted.

    Raises:
      UserError: if there are fewer images than samples, they are all the same, or their covariance is too large.
    """
    keys, each = _keys(experiment)
    _check(experiment, data)
    dimension = data.points.dimension
    if covariance and dimension > MOST:
        raise UserError(
            f"analysis: images of {dimension:,} values, whose covariance would take {8e-9 * dimension**2:,.0f} GB: "
            f"analyze their latents, or images of at most {MOST:,} values"
        )
    what = "mean and covariance" if covariance else "mean"
    with concerning("analysis"):
        index = streaming.own_components(keys, each, data.points)
        return survey(data.points, index, covariance=covariance, report=new_countdown(what, "images of this process"))


def measure(
    experiment: Experiment, data: Data, new_countdown: NewCountdown, *, leave_one_out: bool = False
) -> RelativeEntropy:
    """The curve of `data` under the config's process; see `measure_each`."""
    return measure_each(experiment, data, new_countdown, (leave_one_out,))[0]


def measure_each(
    experiment: Experiment,
    data: Data,
    new_countdown: NewCountdown,
    leave_one_out: Sequence[bool],
    surveyed: Survey | None = None,
) -> list[RelativeEntropy]:
    """The curves of `data` under the config's process, on all devices of all processes, which all call it.

    Each is the mean of ten, to see how it goes. Data that one device holds are measured as one array; others in blocks
    (`streaming`).

    Args:
      new_countdown: (what is measured, the unit of its parts) -> what to call after each part.
      leave_one_out: what is measured, for each curve; see `relative_entropy`.
      surveyed: what `look` found.

    Raises:
      UserError: if there are fewer images than samples, or they are all the same.
    """
    _, alphas, sigmas = levels(experiment)
    keys, each = _keys(experiment)
    _check(experiment, data)
    pairs = data.number * each * len(keys) * (len(alphas) - 1) * len(leave_one_out)
    countdown = new_countdown("relative entropy", UNIT)

    def report(done: int, parts: int) -> None:
        countdown(pairs * done // parts, pairs)

    with concerning("analysis"):
        if jax.device_count() == 1 and data.points.num_blocks == 1:
            images, curves = jnp.asarray(data.examples.x), []
            for number, (one, key) in enumerate(itertools.product(leave_one_out, keys)):
                curve = relative_entropy(images, alphas, sigmas, key, each, leave_one_out=one)
                curves.append(jax.tree.map(np.asarray, curve))
                report(number + 1, len(keys) * len(leave_one_out))
            grouped = [curves[start : start + len(keys)] for start in range(0, len(curves), len(keys))]
        else:
            grouped = streaming.relative_entropies(
                data.points,
                alphas,
                sigmas,
                keys,
                each,
                leave_one_out=leave_one_out,
                surveyed=look(experiment, data, new_countdown) if surveyed is None else surveyed,
                report=report,
            )
    return [from_first(_pooled(curves)) for curves in grouped]


def gaussian(experiment: Experiment, surveyed: Survey) -> Float[np.ndarray, " pair"]:
    """The curve of a Gaussian with the data's mean and covariance."""
    assert surveyed.covariance is not None
    eigenvalues, vectors = np.linalg.eigh(surveyed.covariance)
    _, alphas, sigmas = levels(experiment)
    # A covariance has no negative eigenvalue but by rounding.
    return gaussian_relative_entropy(np.maximum(eigenvalues, 0.0), alphas, sigmas, surveyed.mean @ vectors)


def _keys(experiment: Experiment) -> tuple[list[jax.Array], int]:
    """(the keys of the parts that are measured, number of samples of each)."""
    samples = experiment.config.analysis.samples
    parts = next(n for n in range(10, 0, -1) if n == 1 or (samples % n == 0 and samples // n >= 50))
    key = stream_key(experiment.config.seed, "relative entropy")
    return [jax.random.fold_in(key, part) for part in range(parts)], samples // parts


def _check(experiment: Experiment, data: Data) -> None:
    samples = experiment.config.analysis.samples
    with concerning("analysis"):
        if samples > data.number:
            raise ValueError(f"samples = {samples}: there are only {data.number} images")


def _pooled(curves: Sequence[RelativeEntropy]) -> RelativeEntropy:
    """The mean of independent estimates."""
    value, error, bound = np.swapaxes([[np.asarray(field, np.float64) for field in curve] for curve in curves], 0, 1)
    return RelativeEntropy(value.mean(0), np.sqrt(np.mean(error**2, 0) / len(curves)), bound[0])


class RelativeEntropyCurve(Curve):
    """The relative entropy of consecutive marginals at levels 1..T-1."""

    file = "relative_entropy.npz"
    what = "relative entropy"
    kind = RelativeEntropy

    def length(self, experiment: Experiment) -> int:
        return experiment.process.num_levels - 1

    def measured_on(self, config: ConfigDict) -> dict[str, Any]:
        parts = ("dataset", "codec", "process", "analysis", "seed")
        whole = config_lib.without(config_lib.to_json(config), config_lib.FREE_KEYS)
        return {key: value for key, value in whole.items() if key.split(".")[0] in parts}

    def former(self, measured_on: dict[str, Any]) -> dict[str, Any]:
        if "images" not in measured_on:  # as version 0.1.0 wrote it
            return measured_on
        name, split = measured_on.pop("dataset")
        analysis = {key: measured_on.pop(key) for key in ("images", "samples")}
        return measured_on | {"dataset": {"name": name, "split": split}, "analysis": analysis}

    def measure(self, experiment: Experiment, say: Say, new_countdown: NewCountdown) -> RelativeEntropy:
        return measure(experiment, load_data(experiment, say), new_countdown)


KEPT = RelativeEntropyCurve()
