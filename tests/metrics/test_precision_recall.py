"""If these fail, precision and recall of samples are wrong."""

import numpy as np
import pytest
import scipy.spatial

from diffcurr.metrics import precision_recall as module
from diffcurr.metrics.precision_recall import precision_recall


def test_a_worked_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points on a line, with one neighbour."""
    monkeypatch.setattr(module, "BLOCK_SIZE", 2)
    real = np.asarray([[0.0], [1.0], [10.0], [12.0]])  # balls of radius 1, 1, 2, 2 cover [-1, 2] and [8, 14]
    generated = np.asarray([[1.0], [1.5], [-10.0], [7.9]])  # balls of radius 0.5, 0.5, 11, 6.4
    found = precision_recall(real, generated, neighbours=1)
    assert found.precision == 0.5  # 1 and 1.5 are covered; -10 and 7.9 are not
    assert found.recall == 1.0  # 0 and 1 are covered by the ball around -10 or 1; 10 and 12 by the one around 7.9


def test_missing_classes_and_noise() -> None:
    """Samples of half of the classes have precision 1 and recall 1/2; noise has a low precision."""
    rng = np.random.default_rng(0)
    centres = np.repeat([[0.0, 0.0], [50.0, 0.0]], 300, axis=0)
    real, same = (centres + rng.normal(size=(600, 2)) for _ in range(2))
    half = rng.normal(size=(600, 2))
    equal, dropped = precision_recall(real, same), precision_recall(real, half)
    assert min(equal) > 0.9
    assert dropped.precision > 0.9 and dropped.recall == pytest.approx(0.5, abs=0.05)
    assert precision_recall(real, rng.uniform(-100, 100, (600, 2))).precision < 0.1


@pytest.mark.parametrize("numbers", [(90, 90), (40, 200), (200, 40)])
def test_numbers_may_differ(numbers: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Against every distance by its definition; some examples are copies of others, which lie on the edge of balls."""
    monkeypatch.setattr(module, "BLOCK_SIZE", 32)
    rng = np.random.default_rng(numbers[0])
    real, generated = (100 + rng.normal(size=(number, 4)).astype(np.float32) for number in numbers)
    generated[:9], real[10:14] = real[:9], real[14:18]

    def covered(points: np.ndarray, members: np.ndarray) -> float:
        between = scipy.spatial.distance.cdist(members, members)
        np.fill_diagonal(between, np.inf)
        radii = np.sort(between, axis=1)[:, 2]
        return float((scipy.spatial.distance.cdist(points, members) <= radii).any(axis=1).mean())

    assert precision_recall(real, generated) == (covered(generated, real), covered(real, generated))


def test_rejects() -> None:
    with pytest.raises(ValueError, match="3 generated examples: there must be more than neighbours = 3"):
        precision_recall(np.ones((4, 2)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="0 real examples: there must be more than neighbours = 3"):
        precision_recall(np.ones((0, 2)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="some features of the generated examples are not finite"):
        precision_recall(np.ones((4, 2)), np.full((4, 2), np.nan))
    assert precision_recall(np.ones((4, 2)), np.ones((4, 2))) == (1, 1)  # of sets that do not vary
