"""How far samples are from the data: `python -m diffcurr.main --config=... --job=evaluate`"""

import json

from etils import epath
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr.metrics import evaluation
from diffcurr.reporting import grids
from diffcurr.reporting.progress import Countdown, Line
from diffcurr.run import open_run
from diffcurr.training import distributed
from diffcurr.training.workdir import make_writable


def run(config: ConfigDict, workdir: epath.PathLike) -> int:
    """Writes evaluation.json and evaluation.png, of the averaged weights. Returns the exit code.

    Raises:
      UserError: if there is no checkpoint, or there are no features for these images.
    """
    opened, workdir = open_run(config, workdir), epath.Path(workdir)
    experiment, config, step = opened.experiment, opened.config, opened.step
    make_writable(workdir)
    evaluator = experiment.evaluator(config.evaluation.samples)
    held_out = experiment.held_out_error()
    primary = distributed.is_primary()
    images, measured = evaluator(opened.params, Countdown(Line(silent=not primary), f"step {step}", "samples"))
    measured |= held_out(opened.params) if held_out else {}
    if not primary:
        return 0
    known = {
        "dataset": config.dataset.name,
        "split": config.dataset.split,
        "reference": evaluator.reference,
        "features": evaluator.features.name,
        "sampling": {
            **experiment.require_sampled().sampling_facts(experiment),
            "samples": evaluator.number,
            "seed": config.seed,
            "dtype": config.dtype,
        },
        "step": step,
    }
    with atomic_file.replacing(workdir / "evaluation.json") as path:
        path.write_text(json.dumps(known | measured, indent=2, allow_nan=False) + "\n")
    columns, alpha = experiment.conditioning.columns, experiment.has_alpha
    captions = experiment.conditioning.shown_captions(len(images))
    grids.save_grid(workdir / "evaluation.png", images[:100], columns, alpha=alpha, captions=captions[:100])
    against = config.evaluation.reference or f"{evaluator.reference_number:,} of {config.dataset.name}"
    print(
        f"step {step}, {evaluator.number:,} samples against {against}, {known['features']}: "
        f"{evaluation.describe(measured)}"
    )
    print(f"wrote {workdir / 'evaluation.json'} and {workdir / 'evaluation.png'}")
    return 0
