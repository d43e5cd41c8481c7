"""What is said of a set of samples beside real images, in one set of features; each measure is a part of a config."""

import abc
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import scipy  # loads its modules when they are named
from annotated_types import Interval
from jaxtyping import Float, Int

from diffcurr import ranges
from diffcurr.errors import concerning
from diffcurr.metrics import frechet
from diffcurr.metrics.agreement import agreement
from diffcurr.metrics.floor import floor_and_copies
from diffcurr.metrics.frechet import Statistics
from diffcurr.metrics.inception_score import inception_score
from diffcurr.metrics.intervals import mean_interval
from diffcurr.metrics.kernel_distance import kernel_distance
from diffcurr.metrics.precision_recall import precision_recall
from diffcurr.parts import Several
from diffcurr.pretrained import clip_text, clip_vision

Measured = dict[str, dict[str, Any]]
"""Name -> {"value", where known "low" and "high", the ends of its 95 % interval, the numbers of examples, lists}."""

Measure = Callable[[Float[np.ndarray, "generated feature"]], Measured]
"""What is measured of the features of generated examples."""


class Wanted(NamedTuple):
    """What generated examples were asked to be, in their order.

    Attributes:
      labels: classes; None where there are none.
      texts: captions; empty where there are none.
    """

    labels: Int[np.ndarray, " generated"] | None = None
    texts: Sequence[str] = ()


class Metric(ranges.Checked, abc.ABC):
    """Compares the features of generated examples with those of real ones.

    Class attributes:
      kind: the kind of features that it looks at (`metrics.features.Features.kinds`).
      real: whether it needs real examples, or their statistics, at all.
      held_out: whether it compares with examples that were not trained on.
      wants: what it has to know of what was asked for: a field of `Wanted`, or "" for nothing.
    """

    kind: ClassVar[str] = "pool"
    real: ClassVar[bool] = True
    held_out: ClassVar[bool] = False
    wants: ClassVar[str] = ""

    def check_features(self, path: str) -> None:
        """Raises ValueError if the metric cannot go with the features in `evaluation.features`."""

    @abc.abstractmethod
    def against(self, real: Float[np.ndarray, "real feature"], number: int, seed: int) -> Measure:
        """The measure of `number` generated examples; what depends on the real ones alone is computed once, here."""


class WantedMetric(Metric):
    """A metric that compares generated examples with what was asked for, and looks at no real ones."""

    real = False

    def against(self, real: Float[np.ndarray, "real feature"], number: int, seed: int) -> Measure:
        raise ValueError(f"needs {self.wants} that were asked for: use `beside`")

    def check(self, wanted: Wanted) -> None:
        """Raises ValueError if that is not enough to measure anything."""
        there = getattr(wanted, self.wants)
        if there is None or not len(there):
            raise ValueError(f"samples are not asked to be of any {self.wants}")

    @abc.abstractmethod
    def beside(self, wanted: Wanted) -> Measure:
        """The measure of examples that were asked to be this."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrechetDistance(Metric):
    """The Fréchet distance (Heusel et al. 2017), with a bootstrap interval, and what to measure it against.

    It falls with the number of examples, so two values stand beside it at the same numbers (`metrics.floor`): `floor`,
    that of fresh real images, and `copies`, that of copies of the same real images, the least to be expected of a model
    that was trained on them. Samples below `floor` are closer to the training images than other real images are: the
    model memorises them.

    Attributes:
      resamples: bootstrap resamples of the interval.
    """

    name: ClassVar[str] = "frechet_distance"

    resamples: Annotated[int, Interval(ge=2, le=10**6)] = 200  # an interval needs two

    def beside(self, reference: Statistics, seed: int) -> Measure:
        """The measure of generated examples beside published statistics of real ones."""
        return lambda generated: self._measured(generated, reference, {}, seed)

    def _measured(
        self,
        generated: Float[np.ndarray, "generated feature"],
        reference: Statistics,
        known: Mapping[str, float],
        seed: int,
    ) -> Measured:
        found = frechet.distance_interval(generated, reference, resamples=self.resamples, seed=seed)
        value, low, high = map(float, found)
        return {self.name: {"value": value, "low": low, "high": high, **known, "examples": len(generated)}}

    def against(self, real: Float[np.ndarray, "real feature"], number: int, seed: int) -> Measure:
        if len(real) < 4:
            raise ValueError(f"{len(real)} real images: the floor compares halves of them, so there must be at least 4")
        reference, known = frechet.statistics(real), floor_and_copies(real, number)

        def measure(generated: Float[np.ndarray, "generated feature"]) -> Measured:
            found = self._measured(generated, reference, known, seed)
            return {self.name: found[self.name] | {"reference_examples": len(real)}}

        return measure


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpatialFrechetDistance(FrechetDistance):
    """The Fréchet distance in spatial features of Inception: ADM's sFID (Nash et al. 2021)."""

    kind = "spatial"
    name = "spatial_frechet_distance"


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOutFrechetDistance(FrechetDistance):
    """The Fréchet distance from images that training never sees: memorising the others does not lower it."""

    held_out = True
    name = "held_out_frechet_distance"


@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionScore(Metric):
    """The Inception score (Salimans et al. 2016), which looks at no real image.

    Attributes:
      part: samples over which it is computed; the mean over all such parts counts.
    """

    kind = "probabilities"
    real = False

    part: ranges.Size = 5000

    def against(self, real: Float[np.ndarray, "real feature"], number: int, seed: int) -> Measure:
        def measure(generated: Float[np.ndarray, "generated feature"]) -> Measured:
            score = inception_score(generated, self.part)
            return {"inception_score": {"value": score.value, "examples": score.examples, "parts": score.parts}}

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
            drawn = (examples[rng.permutation(len(examples))[:pairs]] for examples in (real, generated))
            found = self.compared(*drawn)
            numbers = {"examples": pairs, "reference_examples": pairs}
            return {name: values | numbers for name, values in found.items()}

        return measure


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelDistance(PairMetric):
    """The kernel distance (Binkowski et al. 2018), which has no bias where the model has not seen the real images.

    Copies of the same real images have a little less than 0, since no image is paired with itself.
    """

    def compared(
        self, real: Float[np.ndarray, "n feature"], generated: Float[np.ndarray, "n feature"]
    ) -> dict[str, dict[str, float]]:
        kernel = kernel_distance(real, generated)
        reach = float(scipy.stats.norm.ppf(0.975) * np.sqrt(kernel.jackknife))
        return {"kernel_distance": {"value": kernel.value, "low": kernel.value - reach, "high": kernel.value + reach}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecisionRecall(PairMetric):
    """Precision and recall (Kynkaanniemi et al. 2019).

    Attributes:
      all_pairs: compare all real with all generated examples, as ADM's evaluator does, and not `pairs` of each.
    """

    all_pairs: bool = False

    def against(self, real: Float[np.ndarray, "real feature"], number: int, seed: int) -> Measure:
        if not self.all_pairs:
            return super().against(real, number, seed)

        def measure(generated: Float[np.ndarray, "generated feature"]) -> Measured:
            numbers = {"examples": len(generated), "reference_examples": len(real)}
            return {name: values | numbers for name, values in self.compared(real, generated).items()}

        return measure

    def compared(
        self, real: Float[np.ndarray, "real feature"], generated: Float[np.ndarray, "generated feature"]
    ) -> dict[str, dict[str, float]]:
        shares = precision_recall(real, generated)
        return {"precision": {"value": shares.precision}, "recall": {"value": shares.recall}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassAgreement(WantedMetric):
    """The share of samples that the classifier puts into the class that was asked for, or that their caption has."""

    kind = "classes"
    wants = "labels"

    def beside(self, wanted: Wanted) -> Measure:
        def measure(generated: Float[np.ndarray, "generated feature"]) -> Measured:
            assert wanted.labels is not None
            found = agreement(generated, wanted.labels)
            return {"class_agreement": found._asdict() | {"examples": len(generated)}}

        return measure


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipScore(WantedMetric):
    """How well samples fit their captions, as CLIP sees it (Hessel et al. 2021), in the features of the same CLIP.

    Attributes:
      folder: CLIP's, which `evaluation.features` names too.
      weight: 2.5 is that of the paper; work on text to image takes 100, the cosine in percent.
      prefix: what stands before each caption; the paper's is "A photo depicts ".
    """

    kind = "clip"
    wants = "texts"

    folder: str = ""
    weight: ranges.Positive = 2.5
    prefix: str = ""

    def check_features(self, path: str) -> None:
        if self.folder and os.path.expanduser(self.folder) != os.path.expanduser(path):
            raise ValueError(
                f"folder = {self.folder!r}: the same CLIP must see the pictures: give it as evaluation.features too"
            )

    def check(self, wanted: Wanted) -> None:
        super().check(wanted)
        if not self.folder:
            raise ValueError("folder is missing: give CLIP's, which evaluation.features names too")

    def beside(self, wanted: Wanted) -> Measure:
        texts = sorted(set(wanted.texts))
        encoder = clip_text.load(self.folder)
        found = encoder.features([f"{self.prefix}{text}" for text in texts], encoder.most or clip_text.LENGTH)
        row = {text: number for number, text in enumerate(texts)}
        words = found[[row[text] for text in wanted.texts]]

        def measure(generated: Float[np.ndarray, "generated feature"]) -> Measured:
            score = mean_interval(np.asarray(clip_vision.clip_score(generated, words, self.weight), np.float64))
            return {"clip_score": score.as_json() | {"examples": len(generated)}}

        return measure


METRICS: dict[str, type[Metric]] = Several(
    frechet_distance=FrechetDistance,
    kernel_distance=KernelDistance,
    precision_recall=PrecisionRecall,
    held_out_frechet_distance=HeldOutFrechetDistance,
    spatial_frechet_distance=SpatialFrechetDistance,
    inception_score=InceptionScore,
    class_agreement=ClassAgreement,
    clip_score=ClipScore,
)
"""Name in `evaluation.metrics` of a config -> the class."""


NOTHING_WANTED = Wanted()
WHOLE: Mapping[str, slice] = {"pool": slice(None)}


def check_wanted(metrics: Mapping[str, Metric], wanted: Wanted) -> None:
    """Checks that each metric that compares samples with what they are asked to be knows that.

    Raises:
      UserError: naming the metric that does not.
    """
    for name, metric in metrics.items():
        if isinstance(metric, WantedMetric):
            with concerning(f"evaluation.metrics.{name}"):
                metric.check(wanted)


def measure(
    metrics: Mapping[str, Metric],
    real: Float[np.ndarray, "real feature"] | None,
    number: int,
    seed: int = 0,
    *,
    kinds: Mapping[str, slice] = WHOLE,
    published: Mapping[str, Statistics] | None = None,
    held_out: Float[np.ndarray, "unseen feature"] | None = None,
    wanted: Wanted = NOTHING_WANTED,
) -> Measure:
    """All of the metrics as one measure.

    Args:
      real: features of real examples; None where there are only statistics of them.
      number: number of generated examples.
      kinds: which features are of which kind.
      published: statistics of real examples by kind, which come before `real`.
      held_out: features of real examples that were not trained on.
      wanted: what the generated examples are asked to be.

    Raises:
      UserError: if a metric needs what is not there.
    """
    check_wanted(metrics, wanted)
    measures = []
    for name, metric in metrics.items():
        with concerning(f"evaluation.metrics.{name}"):
            if isinstance(metric, WantedMetric):
                one = metric.beside(wanted)
            elif metric.held_out:
                one = _one_measure(metric, held_out, number, seed, kinds, {})
            else:
                one = _one_measure(metric, real, number, seed, kinds, published or {})
            measures.append((kinds[metric.kind], one))

    def all_of_them(generated: Float[np.ndarray, "generated feature"]) -> Measured:
        found: Measured = {}
        for columns, one in measures:
            found |= one(generated[:, columns])
        return found

    return all_of_them


def _one_measure(
    metric: Metric,
    real: Float[np.ndarray, "real feature"] | None,
    number: int,
    seed: int,
    kinds: Mapping[str, slice],
    published: Mapping[str, Statistics],
) -> Measure:
    if isinstance(metric, FrechetDistance) and metric.kind in published:
        return metric.beside(published[metric.kind], seed)
    if not metric.real:
        return metric.against(np.zeros((0, 0), np.float32), number, seed)
    if real is None:
        raise ValueError(f"needs pictures, or statistics of {metric.kind} features, which the reference lacks")
    return metric.against(real[:, kinds[metric.kind]], number, seed)


def describe(measured: Mapping[str, Any]) -> str:
    """What was measured, in a line."""
    texts = []
    for name, values in measured.items():
        label = name.replace("_", " ").replace("frechet", "Fréchet")
        notes = [f"{values['low']:.3g} to {values['high']:.3g}"] if "low" in values else []
        notes += [f"{note} {values[note]:.3g}" for note in ("floor", "copies", "chance") if note in values]
        texts.append(f"{label} {values['value']:.3g}" + (f" ({', '.join(notes)})" if notes else ""))
    return ", ".join(texts)


def flat(measured: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured as one row: {"frechet_distance": ..., "frechet_distance_low": ..., ...}."""
    return {
        name if part == "value" else f"{name}_{part}": value
        for name, parts in measured.items()
        for part, value in parts.items()
    }
