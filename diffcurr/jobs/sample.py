"""Draw samples from a workdir: `python -m diffcurr.main --config=... --job=sample`"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from diffcurr import atomic_file, ranges
from diffcurr.errors import concerning
from diffcurr.reporting import figures
from diffcurr.reporting.progress import Countdown, Line
from diffcurr.run import open_run
from diffcurr.training import distributed


def run(
    config: ConfigDict,
    workdir: epath.PathLike,
    classes: Sequence[int] | None = None,
    seed: int | None = None,
    out: epath.PathLike | None = None,
) -> int:
    """Writes samples of the averaged weights to samples.npz and samples.png. Returns the exit code.

    Args:
      classes: taken in turn; all of them if None.
      seed: seed of the samples; the config's if None.
      out: where they are written; the workdir if None.

    Raises:
      UserError: if there is no checkpoint, or the network knows no such class.
    """
    with concerning("--job=sample"):
        ranges.check({"seed": ranges.Seed | None}, {"seed": seed})
    opened, primary = open_run(config, workdir), distributed.is_primary()
    out = epath.Path(workdir if out is None else out).expanduser()
    experiment, number = opened.experiment, opened.config.sampling.samples
    with concerning("--class"):
        condition = experiment.conditioning.chosen(number, classes)
    images = experiment.sampler.draw(
        opened.params,
        experiment.sample_key(seed),
        condition,
        number,
        Countdown(Line(silent=not primary), f"step {opened.step}", "samples"),
    )
    if not primary:
        return 0
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file.replacing(out / "samples.npz") as temporary:
        arrays: dict[str, Any] = {"images": images, "step": opened.step}
        # A class has been called `labels` here since version 0.1.0.
        arrays |= {"labels" if name == "label" else name: values for name, values in condition.items()}
        np.savez_compressed(temporary, **arrays)
    columns = experiment.conditioning.columns if classes is None else 0
    figures.save_grid(out / "samples.png", images[:100], columns, alpha=experiment.has_alpha)
    print(f"wrote {out / 'samples.npz'} and {out / 'samples.png'}")
    return 0
