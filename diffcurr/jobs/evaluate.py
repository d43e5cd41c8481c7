"""How far samples are from the data: `python -m diffcurr.main --config=... --job=evaluate`"""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr.data import pipeline
from diffcurr.errors import UserError, concerning
from diffcurr.experiment import Experiment
from diffcurr.jobs import sample as sample_job
from diffcurr.metrics import evaluation, features
from diffcurr.metrics.features import Features
from diffcurr.reporting import figures

CACHE = epath.Path("~/.cache/diffcurr").expanduser()


def run(config: ConfigDict, workdir: epath.PathLike) -> int:
    """Writes evaluation.json and evaluation.png, of the averaged weights. Returns the exit code.

    Raises:
      UserError: if there is no checkpoint, or there are no features for these images.
    """
    experiment, state = sample_job.restored(config, workdir)
    workdir, step = epath.Path(workdir), int(state.step)
    evaluate = make_evaluator(experiment, config.evaluation.samples, f"samples of step {step}")
    images, measured = evaluate(state.ema)
    known = {
        "dataset": config.dataset.name,
        "split": config.dataset.split,
        "features": find_features(experiment).name,
        "sampling": {name: config.sampling[name] for name in ("solver", "steps", "guidance")},
        "step": step,
    }
    with atomic_file.replacing(workdir / "evaluation.json") as path:
        path.write_text(json.dumps(known | measured, indent=2) + "\n")
    figures.save_grid(workdir / "evaluation.png", images[:100], sample_job.grid_columns(experiment))
    counts = measured["frechet_distance"]
    print(
        f"step {step}, {counts['examples']:,} samples against {counts['reference_examples']:,} of "
        f"{config.dataset.name}, {known['features']}: {evaluation.describe(measured)}"
    )
    print(f"wrote {workdir / 'evaluation.json'} and {workdir / 'evaluation.png'}")
    return 0


def make_evaluator(
    experiment: Experiment, number: int, what: str = ""
) -> Callable[[Any], tuple[Float[np.ndarray, "n height width channel"], dict[str, Any]]]:
    """A function of parameters: draws `number` samples, always from the same noise, and compares them with the data.

    Args:
      what: the samples are, for a line as they come; none if empty.

    Raises:
      UserError: if they are too few, or there are no features for these images.
    """
    look = find_features(experiment)
    if number <= look.width:
        raise UserError(f"{number} samples to evaluate: give more than the {look.width} features of {look.name}")
    real = reference(experiment, look)
    levels = evaluation.levels(real, number)
    draw = sample_job.make_drawer(experiment, number, what)
    settings = experiment.config

    def evaluate(params: Any) -> tuple[Float[np.ndarray, "n height width channel"], dict[str, Any]]:
        images, _ = draw(params)
        with jax.transfer_guard("allow"):
            found = look.extract(quantised(experiment, images))
        return images, evaluation.evaluate(
            real, found, resamples=settings.evaluation.resamples, seed=settings.seed, known=levels
        )

    return evaluate


def find_features(experiment: Experiment) -> Features:
    """Those that the config names by their file, or the shipped ones of its data set."""
    name, info = experiment.config.evaluation.features, experiment.dataset
    look = features.load(name or features.SHIPPED / f"{info.name}.safetensors")
    with concerning("evaluation.features"):
        look.check(info.image_size, info.channels)
    return look


def reference(experiment: Experiment, look: Features) -> Float[np.ndarray, "n feature"]:
    """Features of all images of the config's split."""
    source = experiment.open_source()
    data = pipeline.load(source, experiment.dataset, len(source), seed=0)
    return features.of_reference(look, data["image"], CACHE)


def quantised(
    experiment: Experiment, images: Float[np.ndarray, "n height width channel"]
) -> Float[np.ndarray, "n height width channel"]:
    """On the grid of values that the data's pixels have, as a picture file would keep them."""
    levels = experiment.dataset.max_value
    if levels is None:
        return images
    return np.round((np.clip(images, -1, 1) + 1) / 2 * levels).astype(np.float32) / levels * 2 - 1
