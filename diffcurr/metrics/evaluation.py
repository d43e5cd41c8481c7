"""What is said of a set of samples beside real images, in one set of features; each measure is a part of a config."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
import scipy  # loads its modules when they are named
from annotated_types import Interval
from jaxtyping import Float

from diffcurr import ranges
from diffcurr.metrics import frechet
from diffcurr.metrics.kernel_distance import kernel_distance
from diffcurr.metrics.precision_recall import precision_recall
from diffcurr.parts import Several

SPLITS = 10

Measured = dict[str, dict[str, float]]
"""Name -> {"value", where known "low" and "high", the ends of its 95 % interval, and the numbers of examples}."""

Measure = Callable[[Float[np.ndarray, "generated feature"]], Measured]
"""What is measured of the features of generated examples."""


class Metric(ranges.Checked, abc.ABC):
    """Compares the features of generated examples with those of real ones."""

    @abc.abstractmethod
    def against(self, real: Float[np.ndarray, "real feature"], number: int, seed: int) -> Measure:
        """The measure of `number` generated examples; what depends on the real ones alone is computed once, here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrechetDistance(Metric):
    """The Fréchet distance (Heusel et al. 2017), with a bootstrap interval, and what to measure it against.

    It falls with the number of examples: `floor` is that of fresh real images from real images at the same numbers (see
    `floor`), `copies` that of copies of the same real images, the least to be expected of a model that was trained on
    them. A distance below `floor` is that of samples closer to the training images than other real images are: the
    model remembers them.

    Attributes:
      resamples: bootstrap resamples of the interval.
    """

    resamples: Annotated[int, Interval(ge=2, le=10**6)] = 200  # an interval needs two

    def against(self, real: Float[np.ndarray, "real feature"], number: int, seed: int) -> Measure:
        if len(real) < 4:
            raise ValueError(f"{len(real)} real images: the floor compares halves of them, so there must be at least 4")
        reference, known = frechet.statistics(real), levels(real, number)

        def measure(generated: Float[np.ndarray, "generated feature"]) -> Measured:
            found = frechet.distance_interval(generated, reference, resamples=self.resamples, seed=seed)
            value, low, high = map(float, found)
            numbers = {"examples": len(generated), "reference_examples": len(real)}
            return {"frechet_distance": {"value": value, "low": low, "high": high} | known | numbers}

        return measure


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairMetric(Metric):
    """A metric of pairs of examples, whose time grows with the square of their number.

    Attributes:
      pairs: examples of each kind that are compared, at most.
    """

    pairs: Annotated[int, Interval(ge=8, le=10**6)] = 10_000

    @abc.abstractmethod
    def compared(
        self, real: Float[np.ndarray, "n feature"], generated: Float[np.ndarray, "n feature"]
    ) -> dict[str, dict[str, float]]:
        """What is measured of as many real as generated examples."""

    def against(self, real: Float[np.ndarray, "real feature"], number: int, seed: int) -> Measure:
        def measure(generated: Float[np.ndarray, "generated feature"]) -> Measured:
            rng, pairs = np.random.default_rng(seed), min(len(real), len(generated), self.pairs)
            found = self.compared(rng.permutation(real)[:pairs], rng.permutation(generated)[:pairs])
            numbers = {"examples": pairs, "reference_examples": pairs}
            return {name: values | numbers for name, values in found.items()}

        return measure


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelDistance(PairMetric):
    """The kernel distance (Binkowski et al. 2018), which has no bias: copies of real images have 0."""

    def compared(
        self, real: Float[np.ndarray, "n feature"], generated: Float[np.ndarray, "n feature"]
    ) -> dict[str, dict[str, float]]:
        kernel = kernel_distance(real, generated)
        reach = float(scipy.stats.norm.ppf(0.975) * np.sqrt(kernel.jackknife))
        return {"kernel_distance": {"value": kernel.value, "low": kernel.value - reach, "high": kernel.value + reach}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecisionRecall(PairMetric):
    """Precision and recall (Kynkaanniemi et al. 2019)."""

    def compared(
        self, real: Float[np.ndarray, "n feature"], generated: Float[np.ndarray, "n feature"]
    ) -> dict[str, dict[str, float]]:
        shares = precision_recall(real, generated)
        return {"precision": {"value": shares.precision}, "recall": {"value": shares.recall}}


METRICS: dict[str, type[Metric]] = Several(
    frechet_distance=FrechetDistance, kernel_distance=KernelDistance, precision_recall=PrecisionRecall
)
"""Name in `evaluation.metrics` of a config -> the class."""


def measure(
    metrics: Mapping[str, Metric], real: Float[np.ndarray, "real feature"], number: int, seed: int = 0
) -> Measure:
    """All of the metrics as one measure."""
    measures = [metric.against(real, number, seed) for metric in metrics.values()]

    def all_of_them(generated: Float[np.ndarray, "generated feature"]) -> Measured:
        found: Measured = {}
        for one in measures:
            found |= one(generated)
        return found

    return all_of_them


def levels(real: Float[np.ndarray, "real feature"], number: int) -> dict[str, float]:
    """What the Fréchet distance of `number` examples is measured against: `floor` and `copies`."""
    return {"floor": floor(real, number), "copies": copies(real, number)}


def floor(real: Float[np.ndarray, "real feature"], number: int, seed: int = 0) -> float:
    """The Fréchet distance that `number` fresh real examples would have from these.

    The bias of the distance is, to first order, inversely proportional to the numbers: so it is measured between random
    halves of the real examples, of N/2 each, and multiplied by (1/number + 1/N) / (2/N + 2/N). Mean of `_draws` splits.
    """
    whole = len(real)

    def between_halves(rng: np.random.Generator) -> float:
        return frechet.distance(*map(frechet.statistics, np.array_split(rng.permutation(real), 2)))

    return float(np.mean(frechet.repeated(between_halves, _draws(real), seed)) * (1 / number + 1 / whole) / (4 / whole))


def copies(real: Float[np.ndarray, "real feature"], number: int, seed: int = 0) -> float:
    """The Fréchet distance that `number` copies of real examples have from all of them.

    Copies are drawn one by one with replacement: what a model gives that has learned its training data and no more.
    Mean of `_draws` draws.
    """
    reference = frechet.statistics(real)

    def of_copies(rng: np.random.Generator) -> float:
        return frechet.distance(frechet.statistics(real[rng.integers(0, len(real), number)]), reference)

    return float(np.mean(frechet.repeated(of_copies, _draws(real), seed)))


def _draws(real: Float[np.ndarray, "real feature"]) -> int:
    """10, and up to 80 where features are few: there the distance scatters more, and takes less time.

    On the digits (128 features) the mean of 10 floors has a standard error of 10 %, that of 80 one of 4 %.
    """
    return SPLITS * min(8, max(1, 1024 // real.shape[1]))


def describe(measured: Mapping[str, Any]) -> str:
    """What was measured, in a line."""
    texts = []
    for name, values in measured.items():
        label = name.replace("_", " ").replace("frechet", "Fréchet")
        notes = [f"{values['low']:.3g} to {values['high']:.3g}"] if "low" in values else []
        notes += [f"{note} {values[note]:.3g}" for note in ("floor", "copies") if note in values]
        texts.append(f"{label} {values['value']:.3g}" + (f" ({', '.join(notes)})" if notes else ""))
    return ", ".join(texts)


def flat(measured: Mapping[str, Any]) -> dict[str, float]:
    """What was measured as one row: {"frechet_distance": ..., "frechet_distance_low": ..., ...}."""
    return {
        name if part == "value" else f"{name}_{part}": value
        for name, parts in measured.items()
        for part, value in parts.items()
    }
