"""A classifier to compare images by: `python -m diffcurr.main --config=... --job=features`"""

import json

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr.data import pipeline, sources
from diffcurr.errors import UserError
from diffcurr.metrics import features
from diffcurr.metrics import separation as separation_lib
from diffcurr.reporting.progress import Line

HELD_OUT = 5  # of a data set without a test split, every fifth image of a fixed order


def run(config: ConfigDict, workdir: epath.PathLike) -> int:
    """Writes features.safetensors, a classifier, and features.md: how it was made, and what it tells apart."""
    settings, line = config.dataset, Line()
    info = sources.DATASETS[settings.name]
    if not info.num_classes or info.max_value is None:
        raise UserError(f"dataset.name = {settings.name!r}: a classifier needs pictures with classes")

    def read(split: str) -> pipeline.Batch:
        source = sources.open_source(info, split, settings.data_dir)
        return pipeline.load(source, info, len(source), seed=0)

    data = read("train")
    if info.builder:
        train, test = data, read("test")
    else:
        held_out = np.arange(len(data["label"])) % HELD_OUT == 0
        train, test = ({name: rows[chosen] for name, rows in data.items()} for chosen in (~held_out, held_out))
    epochs = config.features.epochs
    network = features.train(
        train["image"],
        train["label"],
        num_classes=info.num_classes,
        epochs=epochs,
        seed=config.seed,
        after_epoch=lambda done, loss: line.show(f"epoch {done}/{epochs}, loss {loss:.4f}", done / epochs),
    )
    accuracy = features.accuracy(network, test["image"], test["label"])
    facts = {
        "dataset": info.name,
        "shape": json.dumps([info.image_size, info.channels, info.num_classes]),
        "trained_on": f"{len(train['label'])} images, {epochs} epochs, seed {config.seed}",
        "test_accuracy": f"{accuracy:.4f} on {len(test['label'])} images",
        "command": f"--job=features --config.dataset.name={info.name} --config.features.epochs={epochs}",
    }
    workdir = epath.Path(workdir)
    path, report = workdir / "features.safetensors", workdir / "features.md"
    with atomic_file.replacing(path) as temporary:
        temporary.write_bytes(features.to_bytes(network, facts))
    line.say(f"accuracy {facts['test_accuracy']}: wrote {path}")
    look = features.load(path)
    found = separation_lib.separation(look, train["image"], test["image"], test["label"])
    parts = (
        f"**{look.name}**: accuracy {facts['test_accuracy']} that it was not trained on; trained on "
        f"{facts['trained_on']}; made by `{facts['command']}`.",
        f"Distances from the {len(train['label']):,} images trained on:",
        separation_lib.table(found),
    )
    with atomic_file.replacing(report) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n")
    distances = ", ".join(f"{name} {one.frechet:.3g}" for name, one in found.items())
    line.say(f"Fréchet distance of images not trained on: {distances}; wrote {report}")
    return 0
