"""Whether features tell real images from worse ones: the least that a distance on them must show."""

from typing import NamedTuple

import numpy as np
import scipy.ndimage
from jaxtyping import Float, Int

from diffcurr.metrics import frechet
from diffcurr.metrics.features import Features
from diffcurr.metrics.kernel_distance import kernel_distance

PAIRS = 5000  # examples of each kind whose pairs are compared, at most
NOISE = 0.4  # standard deviation, of pixels in [-1, 1]


class Separation(NamedTuple):
    """How far a set of images is from the reference: `number` of them, Fréchet and kernel distance."""

    number: int
    frechet: float
    kernel: float


def worsened(
    images: Float[np.ndarray, "n height width channel"], labels: Int[np.ndarray, " n"], seed: int = 0
) -> dict[str, Float[np.ndarray, "m height width channel"]]:
    """Real images, and three ways to spoil them: lost detail, wrong pixels, missing kinds."""
    noise = NOISE * np.random.default_rng(seed).normal(size=images.shape)
    classes = np.unique(labels)
    return {
        "real": images,
        "blurred, by a Gaussian of one pixel": scipy.ndimage.gaussian_filter(images, (0, 1, 1, 0)),
        f"noisy, by {NOISE} in [-1, 1]": np.clip(images + noise, -1, 1).astype(images.dtype),
        "of half of the classes": images[np.isin(labels, classes[: len(classes) // 2])],
    }


def separation(
    look: Features,
    reference: Float[np.ndarray, "m height width channel"],
    images: Float[np.ndarray, "n height width channel"],
    labels: Int[np.ndarray, " n"],
    seed: int = 0,
) -> dict[str, Separation]:
    """Distances from the reference of other real images, and of the same images spoilt.

    Args:
      reference: such as the split trained on.
      images, labels: such as the test split.
    """
    rng, seen = np.random.default_rng(seed), look.extract(reference)
    whole = frechet.statistics(seen)
    found = {}
    for name, one in worsened(images, labels, seed).items():
        features = look.extract(one)
        pairs = min(len(features), len(seen), PAIRS)
        kernel = kernel_distance(rng.permutation(features)[:pairs], rng.permutation(seen)[:pairs]).value
        found[name] = Separation(len(one), float(frechet.distance(frechet.statistics(features), whole)), kernel)
    return found


def table(found: dict[str, Separation]) -> str:
    """A row a set."""
    rows = ["| images | number | Fréchet distance | kernel distance |", "|---|---|---|---|"]
    rows += [f"| {name} | {one.number:,} | {one.frechet:.3g} | {one.kernel:.3g} |" for name, one in found.items()]
    return "\n".join(rows)
