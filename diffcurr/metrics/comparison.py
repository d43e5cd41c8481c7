"""Arms of an experiment against a baseline, paired by seed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

from diffcurr.metrics.intervals import Interval, mean_interval

Result = dict[str, Any]
"""What one run of an arm with a seed came to, as `jobs.compare` writes it: `arm`, `seed`, the final `evaluation`, and
lists: `steps` and `distance` of the evaluations on the way, `logged_steps` and `stage`; `floor`, the distance of fresh
real images at the numbers on the way; `steps_per_second`."""


class Compared(NamedTuple):
    """An arm beside the baseline.

    Attributes:
      distance, kernel: at the end, over seeds.
      above: the end's Fréchet distance above that of copies, one a seed.
      ratio: of `above` over the baseline's.
      course: the distance over the baseline's at each evaluation on the way.
      to_end: steps until the arm is as close as the baseline at its end, as a share of all steps, one a seed; infinite
        where it never is.
      to_real: steps until the arm is as close as fresh real images, one a seed; infinite where it never is.
      time: of a step, over the baseline's.
    """

    distance: Interval
    kernel: Interval
    above: Float[np.ndarray, " seed"]
    ratio: Interval
    course: Float[np.ndarray, "seed point"]
    to_end: Float[np.ndarray, " seed"]
    to_real: Float[np.ndarray, " seed"]
    time: Interval


def against(arm: Sequence[Result], baseline: Sequence[Result]) -> Compared:
    """Compares an arm's results with those of the baseline, of the same seeds in the same order."""

    def final(results: Sequence[Result], measure: str, part: str = "value") -> Float[np.ndarray, " seed"]:
        return np.asarray([one["evaluation"][measure][part] for one in results])

    def above(results: Sequence[Result]) -> Float[np.ndarray, " seed"]:
        return final(results, "frechet_distance") - final(results, "frechet_distance", "copies")

    def reaching(one: Result, target: float) -> float:
        return steps_to_reach(np.asarray(one["steps"], float), np.asarray(one["distance"]), target)

    def time(results: Sequence[Result]) -> Float[np.ndarray, " seed"]:
        return 1 / np.asarray([one["steps_per_second"] for one in results])

    pairs = list(zip(arm, baseline, strict=True))
    return Compared(
        distance=mean_interval(final(arm, "frechet_distance")),
        kernel=mean_interval(final(arm, "kernel_distance")),
        above=above(arm),
        ratio=paired_ratio(above(arm), above(baseline)),
        course=np.asarray([one["distance"] for one in arm]) / [one["distance"] for one in baseline],
        to_end=np.asarray([reaching(one, base["distance"][-1]) / one["steps"][-1] for one, base in pairs]),
        to_real=np.asarray([reaching(one, baseline[0]["floor"]) for one in arm]),
        time=paired_ratio(time(arm), time(baseline)),
    )


def paired_ratio(
    arm: Float[np.ndarray, " seed"], baseline: Float[np.ndarray, " seed"], confidence: float = 0.95
) -> Interval:
    """The ratio of two means, with Fieller's interval (Fieller 1954): exact for normal pairs, however correlated.

    It holds every ratio r that Student's test of the mean of arm - r baseline does not refuse. Where the baseline's
    mean is not distinguishable from 0 no ratio is refused on one side or on both: then the ends are infinite.

    Args:
      arm, baseline: the same seeds in the same order, such as distances above their floor.

    Raises:
      ValueError: with fewer than two seeds, or different numbers of them.
    """
    if len(arm) < 2 or len(arm) != len(baseline):
        raise ValueError(f"{len(arm)} and {len(baseline)} seeds: a ratio needs as many of both, at least two")
    x, y, n = np.mean(baseline), np.mean(arm), len(arm)
    (xx, xy), (_, yy) = np.cov(baseline, arm) / n
    t2 = scipy.stats.t.ppf((1 + confidence) / 2, n - 1) ** 2
    # (y - r x)² <= t² (yy - 2 r xy + r² xx): a quadratic in r.
    a, b, c = x**2 - t2 * xx, x * y - t2 * xy, y**2 - t2 * yy
    if a <= 0 or b**2 < a * c:
        return Interval(np.asarray(y / x), np.asarray(-np.inf), np.asarray(np.inf))
    reach = np.sqrt(b**2 - a * c)
    return Interval(np.asarray(y / x), np.asarray((b - reach) / a), np.asarray((b + reach) / a))


def geometric_mean(values: Float[np.ndarray, "seed *rest"], confidence: float = 0.95) -> Interval:
    """Of positive values such as ratios, over the first axis, with Student's interval of their logarithms."""
    return Interval(*map(np.exp, mean_interval(np.log(values), confidence)))


def steps_to_reach(steps: Float[np.ndarray, " point"], curve: Float[np.ndarray, " point"], target: float) -> float:
    """The first step at which a curve of distances comes down to `target`, between its points by straight lines.

    Infinite if it never does; the first step if it begins there.

    Raises:
      ValueError: if steps do not increase, or the two have different lengths.
    """
    if len(steps) != len(curve) or not len(steps) or np.any(np.diff(steps) <= 0):
        raise ValueError(f"{len(steps)} steps and {len(curve)} points: give increasing steps, one a point")
    below = np.flatnonzero(curve <= target)
    if not len(below):
        return float("inf")
    first = below[0]
    if first == 0:
        return float(steps[0])
    before, after = curve[first - 1], curve[first]
    return float(steps[first - 1] + (steps[first] - steps[first - 1]) * (before - target) / (before - after))
