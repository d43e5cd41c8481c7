"""If this fails, samples are compared with another reference than the one that is named."""

import pathlib

import jax
import numpy as np
import pytest
import tiny

from diffcurr.errors import UserError
from diffcurr.metrics import features, frechet


def test_published_statistics_stand_for_the_pictures(tmp_path: pathlib.Path) -> None:
    """The distance from a file's mean and covariance; what it is stands in the report, and what it lacks is said."""
    look, rng = features.load("digits"), np.random.default_rng(0)
    published = frechet.statistics(look.extract(rng.uniform(-1, 1, (300, 8, 8, 1)).astype(np.float32)))
    np.savez(tmp_path / "reference.npz", mu=published.mean, sigma=published.covariance)
    settings = {"evaluation__reference": str(tmp_path / "reference.npz"), "sampling__steps": 1}
    settings["evaluation__metrics"] = {"frechet_distance": {"resamples": 2}}
    experiment = tiny.experiment(1, **settings)
    # A section of metrics is merged with that of the outline.
    experiment.metrics.pop("kernel_distance", None), experiment.metrics.pop("precision_recall", None)
    evaluator = experiment.evaluator(140)
    shown, measured = evaluator(experiment.init_state().ema)
    assert evaluator.reference["file"] == "reference.npz" and len(evaluator.reference["sha256"]) == 8
    assert shown.shape == (100, 8, 8, 1) and list(measured) == ["frechet_distance"]
    condition = experiment.conditioning.chosen(140)
    images = experiment.sampler.draw(experiment.init_state().ema, experiment.sample_key(), condition, 140)
    np.testing.assert_array_equal(images[:100], shown)
    drawn = frechet.statistics(look.extract(experiment.dataset.quantised(images)))
    assert measured["frechet_distance"]["value"] == pytest.approx(frechet.distance(drawn, published), rel=1e-4)
    assert "floor" not in measured["frechet_distance"]

    np.savez(tmp_path / "reference.npz", mu=published.mean[:64], sigma=published.covariance[:64, :64])
    with pytest.raises(UserError, match="mu is of 64 features, these features are 128"):
        experiment.evaluator(140)
    with pytest.raises(UserError, match="100 samples to evaluate: give more than the 128 features"):
        experiment.evaluator(100)
    spoilt = jax.tree.map(lambda x: x * np.nan, experiment.init_state().ema)
    np.savez(tmp_path / "reference.npz", mu=published.mean, sigma=published.covariance)
    with pytest.raises(UserError, match="140 of 140 images hold pixels that are NaN or infinite"):
        experiment.evaluator(140)(spoilt)
