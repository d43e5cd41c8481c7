"""The Inception score of samples: how sure the Inception network is of their classes, and how many they have."""

from typing import NamedTuple

import numpy as np
import scipy  # loads its modules when they are named
from jaxtyping import Float


class InceptionScore(NamedTuple):
    """The Inception score, from 1 to the number of classes.

    Attributes:
      value: mean over the parts.
      examples: number of examples; the score grows with it, and with the size of a part.
      parts: number of parts.
    """

    value: float
    examples: int
    parts: int


def inception_score(probabilities: Float[np.ndarray, "example label"], part: int = 5000) -> InceptionScore:
    """Computes the Inception score (Salimans et al. 2016): exp of the mean of KL(p(y | x) || p(y)) over the examples x.

    As in ADM's evaluator (Dhariwal & Nichol 2021), p(y) is the mean over a part of the examples, taken in their order,
    and the score is the mean over the parts, of which the last may be smaller. Here it is computed in float64.

    Args:
      probabilities: probability of each class, for each example (`pretrained.inception.Outputs.probabilities`).
      part: number of examples of a part.

    Raises:
      ValueError: if there are no examples, `part` is below 1, or rows are no probabilities.
    """
    exact = np.asarray(probabilities, np.float64)
    if part < 1 or not len(exact):
        raise ValueError(f"{len(exact)} examples in parts of {part}: give at least one of each")
    if not (exact >= 0).all() or not np.allclose(exact.sum(axis=1), 1, atol=1e-3):
        raise ValueError("probabilities: must be 0 or more, and add up to 1 for each example: look at the samples")
    parts = [exact[start : start + part] for start in range(0, len(exact), part)]
    divergences = [scipy.special.rel_entr(one, one.mean(axis=0)).sum(axis=1).mean() for one in parts]
    return InceptionScore(float(np.mean(np.exp(divergences))), len(exact), len(parts))
