"""Precision and recall of samples: the share of samples that look real, and the share of real images they cover."""

from typing import NamedTuple

import numpy as np
import scipy  # loads its modules when they are named
from jaxtyping import Bool, Float

BLOCK_SIZE = 1024  # rows of the distance matrix that are in memory at once
MARGIN = 1e-9  # in proportion to squared norms; a squared distance from a matrix product errs by less than 1e-12


class PrecisionRecall(NamedTuple):
    """Precision and recall, each from 0 to 1.

    Attributes:
      precision: share of the generated examples that the real examples cover.
      recall: share of the real examples that the generated examples cover.
    """

    precision: float
    recall: float


def precision_recall(
    real: Float[np.ndarray, "real feature"], generated: Float[np.ndarray, "generated feature"], neighbours: int = 3
) -> PrecisionRecall:
    """Computes precision and recall of generated examples, from nearest neighbours (Kynkäänniemi et al. 2019).

    A set covers a ball around each of its members, whose radius is the distance to the member's k-th nearest neighbour
    in the set. Precision and recall both depend on the numbers of examples, so compare results of the same numbers
    only. The sets need not be equally large: ADM's evaluator (Dhariwal & Nichol 2021) compares 10,000 real and 50,000
    generated examples, with k = 3 and the pool features of Inception. It rounds squared distances to float16 (one of a
    few hundred by up to 1/8), so its figures differ a little from these, which are exact.

    Args:
      real: features of real examples.
      generated: features of generated examples.
      neighbours: k.

    Raises:
      ValueError: if a set does not have more examples than `neighbours`, or a feature is not finite.
    """
    for name, features in (("real", real), ("generated", generated)):
        if not np.isfinite(features).all():
            raise ValueError(f"some features of the {name} examples are not finite: look at the images")
        if len(features) <= neighbours:
            raise ValueError(f"{len(features)} {name} examples: there must be more than neighbours = {neighbours}")
    return PrecisionRecall(
        precision=float(np.mean(_covered(generated, real, neighbours))),
        recall=float(np.mean(_covered(real, generated, neighbours))),
    )


def _covered(
    points: Float[np.ndarray, "point feature"], members: Float[np.ndarray, "member feature"], neighbours: int
) -> Bool[np.ndarray, " point"]:
    """Says for each point whether it lies in the ball around one of the members."""
    from sklearn.neighbors import NearestNeighbors  # here, not above, since most runs evaluate nothing

    # A member is not its own neighbour.
    radii = NearestNeighbors(n_neighbors=neighbours).fit(members).kneighbors()[0][:, -1]
    members = np.asarray(members, np.float64)
    norms = np.einsum("md,md->m", members, members)
    blocks = (points[start : start + BLOCK_SIZE] for start in range(0, len(points), BLOCK_SIZE))
    return np.concatenate([_block_covered(np.asarray(block, np.float64), members, norms, radii) for block in blocks])


def _block_covered(
    points: Float[np.ndarray, "point feature"],
    members: Float[np.ndarray, "member feature"],
    norms: Float[np.ndarray, " member"],
    radii: Float[np.ndarray, " member"],
) -> Bool[np.ndarray, " point"]:
    """Decides by a matrix product, and only where rounding could matter by differences, which take 20 times as long."""
    own = np.einsum("pd,pd->p", points, points)
    outside = points @ members.T
    outside *= -2
    outside += own[:, None]
    outside += norms - np.square(radii)  # squared distance - squared radius
    margin = MARGIN * (own.max() + norms.max())
    covered = (outside < -margin).any(axis=1)
    unsure = ~covered & ~(outside > margin).all(axis=1)
    if unsure.any():
        covered[unsure] = (scipy.spatial.distance.cdist(points[unsure], members) <= radii).any(axis=1)
    return covered
