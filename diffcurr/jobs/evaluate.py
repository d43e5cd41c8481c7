"""How far samples are from the data: `python -m diffcurr.main --config=... --job=evaluate`"""

import json

import numpy as np
from etils import epath
from jaxtyping import Float
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr.data import pipeline
from diffcurr.errors import UserError
from diffcurr.jobs import sample as sample_job
from diffcurr.jobs.experiment import Experiment
from diffcurr.metrics import evaluation, features, figures
from diffcurr.metrics.features import Features

CACHE = epath.Path("~/.cache/diffcurr").expanduser()


def run(config: ConfigDict, workdir: epath.PathLike) -> int:
    """Writes evaluation.json and evaluation.png, of the averaged weights. Returns the exit code.

    Raises:
      UserError: if there is no checkpoint, or there are no features for these images.
    """
    settings = config.evaluation
    experiment, state = sample_job.restored(config, workdir)
    look = find_features(experiment)
    workdir, step = epath.Path(workdir), int(state.step)
    if settings.samples <= features.WIDTH:
        raise UserError(f"evaluation.samples = {settings.samples}: give more than the features' {features.WIDTH}")
    images, _ = sample_job.draw(experiment, state.ema, settings.samples, f"samples of step {step}")
    real = reference(experiment, look)
    measured = evaluation.evaluate(
        real, look.extract(quantised(experiment, images)), resamples=settings.resamples, seed=config.seed
    )
    known = {"dataset": config.dataset.name, "split": config.dataset.split, "features": look.name, "step": step}
    with atomic_file.replacing(workdir / "evaluation.json") as path:
        path.write_text(json.dumps(known | measured, indent=2) + "\n")
    figures.save_grid(workdir / "evaluation.png", images[:100], sample_job.grid_columns(experiment))
    print(f"step {step}, {settings.samples:,} samples against {len(real):,} of {config.dataset.name}, {look.name}:")
    print(evaluation.describe(measured))
    print(f"wrote {workdir / 'evaluation.json'} and {workdir / 'evaluation.png'}")
    return 0


def find_features(experiment: Experiment) -> Features:
    """Those that the config names by their file, or the shipped ones of its data set."""
    name = experiment.config.evaluation.features
    return features.load(name or features.SHIPPED / f"{experiment.dataset.name}.safetensors")


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
