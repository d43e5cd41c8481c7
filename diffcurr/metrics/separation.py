"""A test of features: does the distance from real images grow when images are corrupted?

Features for which it does not grow are of no use for evaluating samples.
"""

from typing import NamedTuple

import numpy as np
import scipy  # loads its modules when they are named
from jaxtyping import Float, Int

from diffcurr.metrics import frechet
from diffcurr.metrics.features import Features
from diffcurr.metrics.kernel_distance import kernel_distance

MAX_PAIRS = 5000  # examples of each set that enter the kernel distance, at most
NOISE = 0.4  # standard deviation of the added noise; pixels are in [-1, 1]


class Separation(NamedTuple):
    """The distances of a set of images from a reference set.

    Attributes:
      number: number of images in the set.
      frechet: Fréchet distance of their features.
      kernel: kernel distance of their features.
    """

    number: int
    frechet: float
    kernel: float


def corruptions(
    images: Float[np.ndarray, "n height width channel"], labels: Int[np.ndarray, " n"], seed: int = 0
) -> dict[str, Float[np.ndarray, "m height width channel"]]:
    """Makes three corrupted copies of a set of images: blurred, noisy, and without half of the classes.

    Args:
      images: pixels in [-1, 1].
      labels: class of each image.
      seed: seed of the noise.

    Returns:
      The images themselves, as `real`, and the corrupted sets, by a description for the report.
    """
    noise = NOISE * np.random.default_rng(seed).normal(size=images.shape)
    classes = np.unique(labels)
    return {
        "real": images,
        "blurred, by a Gaussian of one pixel": scipy.ndimage.gaussian_filter(images, (0, 1, 1, 0)),
        f"noisy, by {NOISE} in [-1, 1]": np.clip(images + noise, -1, 1).astype(images.dtype),
        "of half of the classes": images[np.isin(labels, classes[: len(classes) // 2])],
    }


def separation(
    features: Features,
    reference: Float[np.ndarray, "m height width channel"],
    images: Float[np.ndarray, "n height width channel"],
    labels: Int[np.ndarray, " n"],
    seed: int = 0,
) -> dict[str, Separation]:
    """Measures how far real images and corrupted copies of them are from a reference set of real images.

    Args:
      features: the features to test.
      reference: real images in [-1, 1], such as the training split.
      images: other real images in [-1, 1], such as the test split.
      labels: class of each of `images`.
      seed: seed of the noise, and of the choice of examples for the kernel distance.

    Returns:
      The distances of each set, by its name in `corruptions`.
    """
    rng, reference_features = np.random.default_rng(seed), features.extract(reference)
    reference_statistics = frechet.statistics(reference_features)
    result = {}
    for name, corrupted in corruptions(images, labels, seed).items():
        extracted = features.extract(corrupted)
        pairs = min(len(extracted), len(reference_features), MAX_PAIRS)
        kernel = kernel_distance(rng.permutation(extracted)[:pairs], rng.permutation(reference_features)[:pairs]).value
        distance = float(frechet.distance(frechet.statistics(extracted), reference_statistics))
        result[name] = Separation(len(corrupted), distance, kernel)
    return result


def table(found: dict[str, Separation]) -> str:
    """Formats the result of `separation` as a Markdown table with one line for each set."""
    lines = ["| images | number | Fréchet distance | kernel distance |", "|---|---|---|---|"]
    lines += [f"| {name} | {one.number:,} | {one.frechet:.3g} | {one.kernel:.3g} |" for name, one in found.items()]
    return "\n".join(lines)
