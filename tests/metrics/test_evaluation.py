"""If these fail, evaluations report distances, intervals or floors that are not those of the samples."""

import json

import numpy as np
import pytest

from diffcurr.errors import UserError
from diffcurr.metrics import evaluation, frechet
from diffcurr.metrics import floor as floor_lib
from diffcurr.metrics.evaluation import METRICS, FrechetDistance, Measured


def normals(number: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return shift + np.random.default_rng(seed).normal(size=(number, 6))


def evaluate(real: np.ndarray, generated: np.ndarray, *, resamples: int) -> Measured:
    """Everything that a config measures by default."""
    metrics = {name: METRICS[name]() for name in ("kernel_distance", "precision_recall")}
    metrics["frechet_distance"] = FrechetDistance(resamples=resamples)
    return evaluation.measure(metrics, real, len(generated), seed=0)(generated)


def test_floor_is_what_fresh_real_examples_have() -> None:
    """At other numbers than it was measured at, too."""
    for number in (300, 1200):
        fresh = [
            frechet.distance(frechet.statistics(normals(600, seed)), frechet.statistics(normals(number, 1000 + seed)))
            for seed in range(400)
        ]
        floors = [floor_lib.floor(normals(600, seed), number) for seed in range(100)]
        assert np.mean(floors) == pytest.approx(np.mean(fresh), rel=0.1)


def test_copies_are_closer_than_fresh_examples() -> None:
    """By the half of the bias that comes from the reference; many copies have hardly any distance left."""
    real = normals(800, 0)
    assert floor_lib.copies(real, 800) == pytest.approx(floor_lib.floor(real, 800) / 2, rel=0.25)
    assert floor_lib.copies(real, 80_000) < 0.02 * floor_lib.floor(real, 80_000)
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


def test_published_statistics_and_kinds_of_features() -> None:
    """Each metric looks at its own kind; statistics stand in the place of real examples where they suffice."""
    kinds = {"pool": slice(0, 6), "spatial": slice(6, 9), "probabilities": slice(9, 11)}
    real, generated = normals(300, 0), normals(400, 1, shift=0.5)
    spatial, shares = normals(400, 2)[:, :3], np.tile([[0.25, 0.75], [0.75, 0.25]], (200, 1))
    every = np.concatenate([generated, spatial, shares], axis=1)
    known = {"pool": frechet.statistics(real), "spatial": frechet.statistics(normals(300, 3)[:, :3])}
    names = ("frechet_distance", "spatial_frechet_distance", "inception_score")
    metrics = {name: METRICS[name](**({"resamples": 5} if "frechet" in name else {})) for name in names}
    found = evaluation.measure(metrics, None, 400, kinds=kinds, published=known)(every)
    assert list(found) == list(names)
    of_pool = frechet.distance(frechet.statistics(generated), known["pool"])
    of_spatial = frechet.distance(frechet.statistics(spatial), known["spatial"])
    assert found["frechet_distance"]["value"] == pytest.approx(of_pool) and "floor" not in found["frechet_distance"]
    assert found["spatial_frechet_distance"]["value"] == pytest.approx(of_spatial)
    score = np.exp(0.25 * np.log(0.5) + 0.75 * np.log(1.5))
    assert found["inception_score"]["value"] == pytest.approx(score)
    with pytest.raises(UserError, match=r"evaluation.metrics.kernel_distance: needs pictures, or statistics of pool"):
        evaluation.measure({"kernel_distance": METRICS["kernel_distance"]()}, None, 400, published=known)
    with pytest.raises(UserError, match=r"spatial_frechet_distance: needs pictures, or statistics of spatial features"):
        evaluation.measure(metrics, None, 400, kinds=kinds, published={"pool": known["pool"]})
    everything = METRICS["precision_recall"](all_pairs=True).against(real, 400, 0)(generated)
    assert (everything["recall"]["examples"], everything["recall"]["reference_examples"]) == (400, 300)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.kind == "pool"])
def test_too_few_examples_and_ones_that_do_not_vary(name: str) -> None:
    """A number that JSON has, or an error that says how many are needed."""
    metric = FrechetDistance(resamples=5) if name == "frechet_distance" else METRICS[name]()
    for real, generated in ((0, 50), (1, 50), (2, 50), (3, 50), (50, 0), (50, 1)):
        with pytest.raises(ValueError, match="need|must be more|at least"):
            metric.against(normals(real, 0), 50, 0)(normals(generated, 1))
    constant = np.full((50, 6), 0.3, np.float32)
    for a, b in ((constant, constant), (constant, normals(50, 0)), (normals(50, 0), constant)):
        json.dumps(metric.against(a, 50, 0)(b), allow_nan=False)
