"""Draw samples from a workdir: `python -m diffcurr.main --config=... --job=sample`"""

from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr.reporting import figures
from diffcurr.reporting.progress import Countdown, Line
from diffcurr.run import open_run


def run(config: ConfigDict, workdir: epath.PathLike) -> int:
    """Writes samples of the averaged weights to samples.npz and samples.png. Returns the exit code."""
    opened, workdir = open_run(config, workdir), epath.Path(workdir)
    experiment, number = opened.experiment, opened.config.sampling.samples
    condition = experiment.conditioning.chosen(number)
    images = experiment.sampler.draw(
        opened.params, experiment.sample_key, condition, number, Countdown(Line(), f"step {opened.step}", "samples")
    )
    with atomic_file.replacing(workdir / "samples.npz") as temporary:
        arrays: dict[str, Any] = {"images": images, "step": opened.step}
        # A class has been called `labels` here since version 0.1.0.
        arrays |= {"labels" if name == "label" else name: values for name, values in condition.items()}
        np.savez_compressed(temporary, **arrays)
    figures.save_grid(workdir / "samples.png", images[:100], experiment.conditioning.columns)
    print(f"wrote {workdir / 'samples.npz'} and {workdir / 'samples.png'}")
    return 0
