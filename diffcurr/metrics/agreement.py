"""Whether samples are of the classes that were asked for, as a classifier sees them."""

from typing import NamedTuple

import numpy as np
import scipy  # loads its modules when they are named
from jaxtyping import Float, Int


class Agreement(NamedTuple):
    """The share of examples that the classifier puts into the class that was wanted.

    Attributes:
      value, low, high: the share, and the ends of its 95 % interval (Wilson 1927).
      chance: the share to be expected were the same pictures dealt to the same wishes at random.
    """

    value: float
    low: float
    high: float
    chance: float


def agreement(probabilities: Float[np.ndarray, "example label"], wanted: Int[np.ndarray, " wish"]) -> Agreement:
    """
    Args:
      probabilities: probability of each class, for each example.
      wanted: class that was asked for.

    Raises:
      ValueError: if there are no examples, or not as many wishes.
    """
    if not len(wanted) or len(wanted) != len(probabilities):
        raise ValueError(f"{len(probabilities)} examples and {len(wanted)} wanted classes: give one for each")
    seen = probabilities.argmax(axis=1)
    hits = int(np.sum(seen == wanted))
    interval = scipy.stats.binomtest(hits, len(wanted)).proportion_ci(method="wilson")
    shares = [np.bincount(some, minlength=probabilities.shape[1]) / len(wanted) for some in (seen, wanted)]
    return Agreement(hits / len(wanted), float(interval.low), float(interval.high), float(shares[0] @ shares[1]))
