"""What a linear classifier reads from each block: `python -m diffcurr.main --config=... --job=probe`"""

import json

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr.conditioning import Class
from diffcurr.data import pipeline
from diffcurr.errors import UserError
from diffcurr.metrics import probe
from diffcurr.reporting import figures
from diffcurr.reporting.probe import draw_probe
from diffcurr.reporting.progress import Line
from diffcurr.run import open_run
from diffcurr.tasks import Tokens
from diffcurr.training import distributed
from diffcurr.training.workdir import make_writable


def run(config: ConfigDict, workdir: epath.PathLike) -> int:
    """Writes probe.json and probe.png, of the averaged weights. Returns the exit code.

    Each block's output, averaged over the tokens of a picture and told no class, is given to a logistic regression, as
    Yu et al. 2022 do. Beside it stand the pixels, and the same network with random weights. It is fitted to the first
    `probe.images` pictures that were trained on, and tested on as many of those that were not.

    Raises:
      UserError: if there is no checkpoint, no token transformer, or there are no classes or no held-out pictures.
    """
    opened, workdir = open_run(config, workdir), epath.Path(workdir)
    experiment, config, dataset = opened.experiment, opened.config, opened.experiment.dataset
    if not isinstance(experiment.task, Tokens):
        raise UserError(f"task.name = {config.task.name!r}: --job=probe reads the blocks of what 'tokens' trains")
    if not dataset.num_classes:
        raise UserError(f"dataset.name = {config.dataset.name!r}: a probe needs pictures with classes")
    if not dataset.holds_out:
        raise UserError(
            f"dataset.name = {config.dataset.name!r}: a probe needs pictures that training never sees; set "
            f"dataset.held_out to the share of them"
        )
    make_writable(workdir)
    blocks = experiment.task.blocks(experiment)
    line, labelled = Line(silent=not distributed.is_primary()), Class(num_classes=dataset.num_classes)
    sources = distributed.primary_first(dataset.opened), distributed.primary_first(dataset.opened_held_out)
    number = config.probe.images
    seen, unseen = (pipeline.load(one, dataset, labelled.of, number, seed=0) for one in sources)
    labels, unseen_labels = (batch.condition["label"] for batch in (seen, unseen))

    line.show(f"step {opened.step}: features of {len(seen.x) + len(unseen.x):,} pictures", 0.0)
    networks = opened.params, experiment.init_state().params
    fitted, tested = ([blocks(params, batch.x) for params in networks] for batch in (seen, unseen))
    if not distributed.is_primary():
        return 0

    def accuracy(features: np.ndarray, unseen_features: np.ndarray) -> float:
        pair = (one.reshape(len(one), -1) for one in (features, unseen_features))
        return probe.accuracy(next(pair), labels, next(pair), unseen_labels)

    number_of_blocks = fitted[0].shape[1]
    accuracies: list[list[float]] = [[], []]
    for block in range(number_of_blocks):
        line.show(f"probing block {block + 1} of {number_of_blocks}", block / number_of_blocks)
        for found, one, other in zip(accuracies, fitted, tested, strict=True):
            found.append(accuracy(one[:, block], other[:, block]))
    (trained, random), pixels = accuracies, accuracy(seen.x, unseen.x)
    known = {
        "dataset": config.dataset.name,
        "step": opened.step,
        "images": len(seen.x),
        "held_out": len(unseen.x),
        "trained": trained,
        "random": random,
        "pixels": pixels,
    }
    with atomic_file.replacing(workdir / "probe.json") as path:
        path.write_text(json.dumps(known, indent=2, allow_nan=False) + "\n")
    figures.save_figure(workdir / "probe.png", draw_probe(trained, random, pixels))
    best = int(np.argmax(trained))
    line.say(
        f"step {opened.step}: accuracy {trained[best]:.3f} from block {best + 1}, at best {max(random):.3f} from "
        f"random weights, {pixels:.3f} from pixels"
    )
    line.say(f"wrote {workdir / 'probe.json'} and {workdir / 'probe.png'}")
    return 0
