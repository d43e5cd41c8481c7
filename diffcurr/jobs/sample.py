"""Draw samples from a workdir: `python -m diffcurr.main --config=... --job=sample`"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from diffcurr import atomic_file, ranges
from diffcurr.errors import UserError, concerning, first_line
from diffcurr.reporting import grids
from diffcurr.reporting.progress import Countdown, Line
from diffcurr.run import open_run
from diffcurr.training import distributed
from diffcurr.training.workdir import make_writable


def run(
    config: ConfigDict,
    workdir: epath.PathLike,
    classes: Sequence[int] | None = None,
    prompt: Sequence[str] | None = None,
    prompts: str | None = None,
    negative_prompt: str = "",
    seed: int | None = None,
    out: epath.PathLike | None = None,
) -> int:
    """Writes samples of the averaged weights to samples.npz and samples.png. Returns the exit code.

    Args:
      classes: taken in turn; all of them if None.
      prompt: texts to draw in turn, of a network that is told a text; captions of the data set if None.
      prompts: a file of prompts, one on each line.
      negative_prompt: what guidance leads away from, where not from the empty text.
      seed: seed of the samples; the config's if None.
      out: where they are written; the workdir if None.

    Raises:
      UserError: if there is no checkpoint, or the network knows no such class, or is told no text.
    """
    with concerning("--job=sample"):
        ranges.check({"seed": ranges.Seed | None}, {"seed": seed})
    flag, wanted = _wish(classes, prompt, prompts)
    opened, primary = open_run(config, workdir), distributed.is_primary()
    out = epath.Path(workdir if out is None else out).expanduser()
    experiment, number = opened.experiment, opened.config.sampling.samples
    conditioning = experiment.conditioning
    with concerning(flag):
        condition = conditioning.chosen(number, wanted)
    with concerning("--negative_prompt"):
        sampler = experiment.sampler_of(experiment.sampling, negative_prompt)
    make_writable(out, "--out")
    images = sampler.draw(
        opened.params,
        experiment.sample_key(seed),
        condition,
        number,
        Countdown(Line(silent=not primary), f"step {opened.step}", "samples"),
    )
    if not primary:
        return 0
    with atomic_file.replacing(out / "samples.npz") as temporary:
        arrays: dict[str, Any] = {"images": images, "step": opened.step}
        # A class has been called `labels` here since version 0.1.0.
        recorded = conditioning.recorded(number, wanted)
        arrays |= {"labels" if name == "label" else name: values for name, values in recorded.items()}
        np.savez_compressed(temporary, **arrays)
    columns = conditioning.columns if wanted is None else 0
    captions = conditioning.shown_captions(number, wanted)[:100]
    grids.save_grid(out / "samples.png", images[:100], columns, alpha=experiment.has_alpha, captions=captions)
    print(f"wrote {out / 'samples.npz'} and {out / 'samples.png'}")
    return 0


def _wish(
    classes: Sequence[int] | None, prompt: Sequence[str] | None, prompts: str | None
) -> tuple[str, Sequence[int] | Sequence[str] | None]:
    """(the flag that says of what samples are wanted, what it says).

    Raises:
      UserError: if several do, or the file of prompts cannot be read, or holds none.
    """
    given = {"--class": classes, "--prompt": prompt, "--prompts": prompts}
    said = [flag for flag, value in given.items() if value]
    if len(said) > 1:
        raise UserError(f"{' and '.join(said)}: give one of them")
    if not prompts:
        return (said or ["--class"])[0], prompt or classes
    try:
        lines = epath.Path(prompts).expanduser().read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts={prompts}: cannot be read ({first_line(error)}): give a text file") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise UserError(f"--prompts={prompts}: holds no prompt: write one on each line")
    return "--prompts", found
