"""Precision and recall of samples: how many look real, and how much of what is real they reach."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

ROWS = 1024  # of the matrix of distances at a time


class PrecisionRecall(NamedTuple):
    """Shares, from 0 to 1."""

    precision: float
    recall: float


def precision_recall(
    real: Float[np.ndarray, "real feature"], generated: Float[np.ndarray, "generated feature"], neighbours: int = 3
) -> PrecisionRecall:
    """Precision and recall of Kynkäänniemi et al. 2019.

    A set covers the balls around its members that reach to their `neighbours`-th nearest other member. Precision is the
    share of the generated that the real cover, recall the share of the real that the generated cover. Both depend on
    the numbers of examples: compare figures of equal numbers only.

    Raises:
      ValueError: if there are not more examples than neighbours.
    """
    for name, features in (("real", real), ("generated", generated)):
        if len(features) <= neighbours:
            raise ValueError(f"{len(features)} {name} examples: there must be more than neighbours = {neighbours}")
    return PrecisionRecall(
        precision=float(np.mean(_covered(generated, real, neighbours))),
        recall=float(np.mean(_covered(real, generated, neighbours))),
    )


def _covered(
    points: Float[np.ndarray, "point feature"], members: Float[np.ndarray, "member feature"], neighbours: int
) -> Bool[np.ndarray, " point"]:
    """Whether each point lies in the ball of a member."""
    radii = NearestNeighbors(n_neighbors=neighbours).fit(members).kneighbors()[0][:, -1]  # others than itself
    parts = [cdist(points[start : start + ROWS], members) <= radii for start in range(0, len(points), ROWS)]
    return np.concatenate([part.any(axis=1) for part in parts])
