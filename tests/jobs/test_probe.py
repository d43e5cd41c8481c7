"""If these fail, a trained token transformer is measured by other pictures, or probed by other features, than said."""

import json
import pathlib

import coded
import numpy as np
import pytest
import tiny

from diffcurr.errors import UserError
from diffcurr.jobs import evaluate, probe, train
from diffcurr.metrics.probe import accuracy
from diffcurr.run import load_run

coded_guests = coded.coded_guests  # a fixture of this module too

SETTINGS = coded.TOKENS | {
    "steps": 2,
    "sample_every": 0,
    "dataset__held_out": 0.2,
    "evaluation__samples": 140,
    "evaluation__denoising__images": 20,
    "evaluation__metrics": {"frechet_distance": {"resamples": 10}},
    "probe__images": 300,
}


def test_a_run_is_evaluated_and_probed(tmp_path: pathlib.Path) -> None:
    config = tiny.config(**SETTINGS)
    assert train.run(config, tmp_path) == 0
    assert evaluate.run(config, tmp_path) == 0
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["sampling"] | {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "samples": 140} == found["sampling"]
    assert found["frechet_distance"]["value"] > 0 and 3 < found["bits_per_token"]["value"] < 4  # of 12 codes

    assert probe.run(config, tmp_path) == 0
    found = json.loads((tmp_path / "probe.json").read_text())
    assert (tmp_path / "probe.png").stat().st_size > 1000
    assert (found["images"], found["held_out"], found["step"]) == (300, 300, 2)
    assert len(found["trained"]) == len(found["random"]) == 2
    assert 0.5 < found["pixels"] <= 1 and all(0.1 < one < 1 for one in found["trained"])
    run = load_run(tmp_path)
    images = run.experiment.held_out_images().x
    blocks = run.experiment.task.blocks(run.experiment)(run.params, images)
    assert blocks.shape == (20, 2, 8) and np.all(np.abs(np.diff(blocks, axis=1)).max(axis=(1, 2)) > 1e-6)
    told = tiny.experiment(**SETTINGS | {"conditioning__dropout": 0.0})
    with pytest.raises(UserError, match="conditioning.dropout = 0.0: the network knows no picture without its class"):
        told.task.blocks(told)


def test_accuracy_of_a_linear_classifier() -> None:
    rng = np.random.default_rng(0)
    labels, means = rng.integers(0, 3, 400), np.eye(3) * 20 + 100
    features = means[labels] + rng.standard_normal((400, 3))
    assert accuracy(features[:300], labels[:300], features[300:], labels[300:]) == 1.0
    assert accuracy(rng.standard_normal((300, 3)), labels[:300], features[300:], labels[300:]) < 0.7
