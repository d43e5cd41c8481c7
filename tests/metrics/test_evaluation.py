"""If these fail, evaluations report distances, intervals or floors that are not those of the samples."""

import json

import numpy as np
import pytest

from diffcurr.metrics import evaluation, frechet
from diffcurr.metrics.evaluation import METRICS, FrechetDistance, Measured


def normals(number: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return shift + np.random.default_rng(seed).normal(size=(number, 6))


def evaluate(real: np.ndarray, generated: np.ndarray, *, resamples: int) -> Measured:
    """Everything that a config measures by default."""
    metrics = {name: metric() for name, metric in METRICS.items()}
    metrics["frechet_distance"] = FrechetDistance(resamples=resamples)
    return evaluation.measure(metrics, real, len(generated), seed=0)(generated)


def test_floor_is_what_fresh_real_examples_have() -> None:
    """At other numbers than it was measured at, too."""
    for number in (300, 1200):
        fresh = [
            frechet.distance(frechet.statistics(normals(600, seed)), frechet.statistics(normals(number, 1000 + seed)))
            for seed in range(400)
        ]
        floors = [evaluation.floor(normals(600, seed), number) for seed in range(100)]
        assert np.mean(floors) == pytest.approx(np.mean(fresh), rel=0.1)


def test_copies_are_closer_than_fresh_examples() -> None:
    """By the half of the bias that comes from the reference; many copies have hardly any distance left."""
    real = normals(800, 0)
    assert evaluation.copies(real, 800) == pytest.approx(evaluation.floor(real, 800) / 2, rel=0.25)
    assert evaluation.copies(real, 80_000) < 0.02 * evaluation.floor(real, 80_000)
    measured = evaluate(real, real, resamples=5)["frechet_distance"]
    assert measured["value"] < measured["copies"] < measured["floor"]


def test_a_good_and_a_bad_set() -> None:
    real = normals(500, 0)
    good, bad = (evaluate(real, normals(700, 1, shift), resamples=50) for shift in (0.0, 1.0))
    distance = good["frechet_distance"]
    assert distance["low"] < distance["value"] < distance["high"]
    assert 0.3 < distance["value"] / distance["floor"] < 3
    assert (distance["examples"], distance["reference_examples"]) == (700, 500)
    assert good["kernel_distance"]["low"] < 0 < good["kernel_distance"]["high"]
    assert good["kernel_distance"]["examples"] == good["recall"]["examples"] == 500
    assert bad["frechet_distance"]["value"] == pytest.approx(6, rel=0.2)
    assert bad["kernel_distance"]["low"] > good["kernel_distance"]["high"]
    assert bad["precision"]["value"] < good["precision"]["value"]
    words = evaluation.describe(bad)
    assert f"Fréchet distance {bad['frechet_distance']['value']:.3g} (" in words and "floor" in words


@pytest.mark.parametrize("name", METRICS)
def test_too_few_examples_and_ones_that_do_not_vary(name: str) -> None:
    """A number that JSON has, or an error that says how many are needed."""
    metric = FrechetDistance(resamples=5) if name == "frechet_distance" else METRICS[name]()
    for real, generated in ((0, 50), (1, 50), (2, 50), (3, 50), (50, 0), (50, 1)):
        with pytest.raises(ValueError, match="need|must be more|at least"):
            metric.against(normals(real, 0), 50, 0)(normals(generated, 1))
    constant = np.full((50, 6), 0.3, np.float32)
    for a, b in ((constant, constant), (constant, normals(50, 0)), (normals(50, 0), constant)):
        json.dumps(metric.against(a, 50, 0)(b), allow_nan=False)
