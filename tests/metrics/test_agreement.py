"""If these fail, samples are said to be of the class that was asked for when they are not, or the other way round."""

import numpy as np
import pytest

from diffcurr.errors import UserError
from diffcurr.metrics import evaluation, features
from diffcurr.metrics.agreement import agreement


def test_by_hand() -> None:
    """Three of four; the interval is Wilson's; chance is the product of the shares of what is seen and wanted."""
    seen, wanted = np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0])
    found = agreement(np.eye(3)[seen], wanted)
    z2 = 1.959963984540054**2
    middle, reach = (0.75 + z2 / 8) / (1 + z2 / 4), np.sqrt(0.75 * 0.25 * z2 / 4 + z2**2 / 64) / (1 + z2 / 4)
    np.testing.assert_allclose(found, (0.75, middle - reach, middle + reach, (1 * 2 + 1 * 1 + 2 * 1) / 16))


def test_chance_is_what_dealing_at_random_gives() -> None:
    rng = np.random.default_rng(0)
    seen, wanted = rng.choice(4, 4000, p=(0.7, 0.1, 0.1, 0.1)), rng.choice(4, 4000, p=(0.4, 0.3, 0.2, 0.1))
    found = agreement(np.eye(4)[seen], wanted)
    assert found.value == pytest.approx(found.chance, abs=0.03) and found.low < found.chance < found.high


@pytest.mark.parametrize("wanted", [[], [1, 2]])
def test_one_wish_for_each(wanted: list[int]) -> None:
    with pytest.raises(ValueError, match=f"3 examples and {len(wanted)} wanted classes"):
        agreement(np.eye(3), np.array(wanted, int))


def test_a_shipped_classifier_gives_probabilities_and_the_same_features() -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (5, 8, 8, 1)).astype(np.float32)
    plain, both = features.load("digits"), features.load("digits", {"pool", "probabilities"})
    found = both.extract(images)
    np.testing.assert_allclose(found[:, both.kinds["pool"]], plain.extract(images), atol=1e-5)
    np.testing.assert_allclose(found[:, both.kinds["probabilities"]].sum(axis=1), 1.0, atol=1e-5)


def test_samples_that_were_asked_for_nothing() -> None:
    metrics = {"class_agreement": evaluation.ClassAgreement()}
    with pytest.raises(UserError, match="class_agreement: samples are not asked to be of any labels"):
        evaluation.measure(metrics, None, 3, kinds={"probabilities": slice(0, 3)})
