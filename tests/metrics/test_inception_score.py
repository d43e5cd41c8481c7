"""If these fail, the Inception score is wrong."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from diffcurr.metrics.inception_score import inception_score


def test_against_entropies() -> None:
    """The mean divergence is the entropy of the mean less the mean entropy; the last part is smaller."""
    logits = np.random.default_rng(0).normal(0, 3, (23, 7))
    probabilities = scipy.special.softmax(logits, axis=1).astype(np.float32)
    scores = []
    for part in (probabilities[:10], probabilities[10:20], probabilities[20:]):
        exact = part.astype(np.float64)
        exact /= exact.sum(axis=1, keepdims=True)
        entropies = scipy.stats.entropy(exact, axis=1)
        scores.append(np.exp(scipy.stats.entropy(exact.mean(axis=0)) - entropies.mean()))
    found = inception_score(probabilities, part=10)
    assert found.value == pytest.approx(np.mean(scores), rel=1e-6) and (found.examples, found.parts) == (23, 3)


def test_extremes() -> None:
    """Sure of one of seven classes each: 7. Sure of the same class, or of nothing: 1."""
    assert inception_score(np.tile(np.eye(7), (5, 1))).value == pytest.approx(7)
    assert inception_score(np.eye(7)[np.zeros(9, int)]).value == 1
    assert inception_score(np.full((9, 4), 0.25)) == (pytest.approx(1), 9, 1)


def test_rejects() -> None:
    with pytest.raises(ValueError, match="0 examples in parts of 5000: give at least one of each"):
        inception_score(np.zeros((0, 4)))
    for wrong in (np.full((2, 4), np.nan), np.full((2, 4), 0.5), np.asarray([[-0.5, 1.5]])):
        with pytest.raises(ValueError, match="probabilities: must be 0 or more, and add up to 1"):
            inception_score(wrong)
