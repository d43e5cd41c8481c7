"""A classifier to compare images by: `python -m diffcurr.main --config=... --job=features`"""

import functools
import json

import jax
import numpy as np
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr import experiment as experiment_lib
from diffcurr.conditioning import Class
from diffcurr.data import pipeline
from diffcurr.data.sources import Part
from diffcurr.errors import UserError
from diffcurr.metrics import features
from diffcurr.metrics import separation as separation_lib
from diffcurr.pretrained.classifier import Classifier, to_bytes
from diffcurr.reporting.progress import Line
from diffcurr.training import sharding
from diffcurr.training.classifier import ClassifierState, compile_classifier_step
from diffcurr.training.loop import Loop
from diffcurr.training.optimizer import AdamW
from diffcurr.training.state import split_network
from diffcurr.training.window import Window
from diffcurr.training.workdir import make_writable

HELD_OUT = 5  # of a data set without a test split, a fifth of the images, drawn at random
BATCH = 128


def run(config: ConfigDict, workdir: epath.PathLike) -> int:
    """Writes features.safetensors, a classifier, and features.md: how it was made, and what it tells apart."""
    experiment, line, workdir = experiment_lib.from_config(config), Line(), epath.Path(workdir)
    config, dataset = experiment.config, experiment.dataset
    if not dataset.num_classes or dataset.is_latent:
        raise UserError(f"dataset.name = {config.dataset.name!r}: a classifier needs pictures with classes")
    make_writable(workdir)
    epochs, labelled = config.features.epochs, Class(num_classes=dataset.num_classes)

    ##################################################################### data
    train_source = dataset.opened()
    if dataset.holds_out:
        test_source = dataset.opened_held_out()
    else:
        order = np.random.default_rng(0).permutation(len(train_source))
        held_out = -(-len(order) // HELD_OUT)
        train_source, test_source = Part(train_source, order[held_out:]), Part(train_source, order[:held_out])
    batch_size = min(BATCH, len(train_source))
    train, test = (pipeline.load(one, dataset, labelled.of, len(one), seed=0) for one in (train_source, test_source))
    batches = pipeline.make_dataset(train_source, dataset, labelled.of, batch_size=batch_size, seed=config.seed)

    ################################################################ the loop
    side, _, channels = dataset.shape
    graph, params = split_network(Classifier(side, channels, dataset.num_classes, rngs=nnx.Rngs(config.seed)))
    epoch_steps = len(train_source) // batch_size
    steps = epoch_steps * epochs
    optimizer = AdamW(learning_rate=1e-3, schedule="cosine", weight_decay=0.01, clip_norm=0.0).transformation(steps)
    loop = Loop(
        compile_classifier_step(graph, optimizer),
        ClassifierState(params, optimizer.init(params)),
        None,
        pipeline.make_iterator(batches, threads=dataset.threads),
        sharding.replicated(sharding.make_mesh(1, 1, 1, jax.devices()[:1])),
        functools.partial(Window, batch_size=batch_size),
    )
    try:
        while loop.number < steps:
            loop.advance()
            if loop.number % epoch_steps == 0:
                loop.close_window()
                summary = loop.finish()
                assert summary is not None
                status = f"epoch {loop.number // epoch_steps}/{epochs}, loss {summary['loss']:.4f}"
                line.show(status, loop.number / steps)
    except FloatingPointError as error:
        raise UserError(f"--job=features: {error}: look at the images, of which some may be no pictures") from error
    network = nnx.merge(graph, loop.state.params)

    ################################################################## results
    accuracy = features.accuracy(network, test.x, test.condition["label"])
    facts = {
        "dataset": config.dataset.name,
        "shape": json.dumps([side, channels, dataset.num_classes]),
        "trained_on": f"{len(train_source)} images, {epochs} epochs, seed {config.seed}",
        "test_accuracy": f"{accuracy:.4f} on {len(test_source)} images",
        "command": f"--job=features --config.dataset.name={config.dataset.name} --config.features.epochs={epochs}",
    }
    path, report = workdir / "features.safetensors", workdir / "features.md"
    with atomic_file.replacing(path) as temporary:
        temporary.write_bytes(to_bytes(network, facts))
    line.say(f"accuracy {facts['test_accuracy']}: wrote {path}")
    made = features.load(path)
    found = separation_lib.separation(made, train.x, test.x, test.condition["label"])
    paragraphs = (
        f"**{made.name}**: accuracy {facts['test_accuracy']} that it was not trained on; trained on "
        f"{facts['trained_on']}; made by `{facts['command']}`.",
        f"Distances from the {len(train_source):,} images trained on:",
        separation_lib.table(found),
    )
    with atomic_file.replacing(report) as temporary:
        temporary.write_text("\n\n".join(paragraphs) + "\n")
    distances = ", ".join(f"{name} {one.frechet:.3g}" for name, one in found.items())
    line.say(f"Fréchet distance of images not trained on: {distances}; wrote {report}")
    return 0
