"""Comparison of training settings with a baseline, paired by seed.

An *arm* is one of the training settings that an experiment compares, as in a clinical trial: a name in the config's
`compare.arms`, with the values that it changes. Each arm is trained once with each seed. Runs of two arms with the same
seed start from the same parameters and see the data in the same order, so they form a pair.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # loads its modules when they are named
from jaxtyping import Float

from diffcurr.metrics.intervals import Interval, mean_interval

Result = dict[str, Any]
"""The result of one run, as `jobs.compare` writes it to `result.json`.

Keys: `arm`, `seed`; `evaluation`, the contents of `evaluation.json` after the last step; `grids`, {name: the same on
another sampling grid}; `measure`, the name of the distance that decides; `steps` and `distance`, lists with the step
and that distance of each evaluation during training; `floor`, the distance that fresh real images would have in those
evaluations; `denoising`, None or, of those evaluations, {`log_snr`; `bound`, a list; `noise_error`, `x0_error`, lists
of lists over log-SNR}; `logged_steps` and `stage`, lists; `exposure`, how densely each cluster was drawn;
`steps_per_second`.
"""


class Compared(NamedTuple):
    """An arm compared with the baseline. Intervals are over seeds; arrays have one entry for each seed.

    Attributes:
      distance: Fréchet distance after the last step.
      kernel_distance: kernel distance after the last step.
      excess: Fréchet distance after the last step, minus the distance that copies of the training images have.
      excess_ratio: mean excess of the arm, divided by that of the baseline.
      distance_ratio: Fréchet distance of the arm at each evaluation during training, divided by the baseline's.
      share_to_baseline: steps until the arm is as close as the baseline is after its last step, as a share of all
        steps; infinite if it never is.
      steps_to_real: steps until the arm is as close as fresh real images; infinite if it never is.
      step_time_ratio: mean time of a step of the arm, divided by that of the baseline.
    """

    distance: Interval
    kernel_distance: Interval
    excess: Float[np.ndarray, " seed"]
    excess_ratio: Interval
    distance_ratio: Float[np.ndarray, "seed evaluation"]
    share_to_baseline: Float[np.ndarray, " seed"]
    steps_to_real: Float[np.ndarray, " seed"]
    step_time_ratio: Interval


class DenoisingCompared(NamedTuple):
    """The denoising error of held-out images of an arm compared with the baseline's. Intervals are over seeds.

    Attributes:
      noise_error_ratio: error of the noise at each evaluation and log-SNR, divided by the baseline's.
      bound: bound on the negative log-likelihood after the last step, in bits per dimension.
      bound_difference: the same, minus the baseline's.
      share_to_baseline: steps until the bound is as low as the baseline's after its last step, as a share of all steps;
        infinite if it never is.
    """

    noise_error_ratio: Interval
    bound: Interval
    bound_difference: Interval
    share_to_baseline: Float[np.ndarray, " seed"]


def compare_denoising(arm: Sequence[Result], baseline: Sequence[Result]) -> DenoisingCompared:
    """Compares the denoising errors of an arm with those of the baseline, for results that have them.

    Args:
      arm: results of the arm, one for each seed.
      baseline: results of the baseline, with the same seeds in the same order.
    """

    def values(results: Sequence[Result], name: str) -> Float[np.ndarray, "seed *rest"]:
        return np.asarray([result["denoising"][name] for result in results], float)

    bounds, steps = values(arm, "bound"), np.asarray(arm[0]["steps"], float)
    its_bounds = values(baseline, "bound")
    reached = [
        steps_to_reach(steps, curve, its_curve[-1]) / steps[-1]
        for curve, its_curve in zip(bounds, its_bounds, strict=True)
    ]
    return DenoisingCompared(
        noise_error_ratio=geometric_mean(values(arm, "noise_error") / values(baseline, "noise_error")),
        bound=mean_interval(bounds[:, -1]),
        bound_difference=mean_interval(bounds[:, -1] - its_bounds[:, -1]),
        share_to_baseline=np.asarray(reached),
    )


def compare_with_baseline(
    arm: Sequence[Result], baseline: Sequence[Result], measure: str = "frechet_distance"
) -> Compared:
    """Compares the results of an arm with those of the baseline.

    Args:
      arm: results of the arm, one for each seed.
      baseline: results of the baseline, with the same seeds in the same order and the same evaluation steps.
      measure: name of the distance among what was evaluated.

    Raises:
      ValueError: if there are fewer than two seeds, or the two have different numbers of them.
    """

    def final(results: Sequence[Result], measure: str, part: str = "value") -> Float[np.ndarray, " seed"]:
        return np.asarray([result["evaluation"][measure][part] for result in results])

    def excess(results: Sequence[Result]) -> Float[np.ndarray, " seed"]:
        return final(results, measure) - final(results, measure, "copies")

    def steps_to(result: Result, target: float) -> float:
        return steps_to_reach(np.asarray(result["steps"], float), np.asarray(result["distance"]), target)

    def step_time(results: Sequence[Result]) -> Float[np.ndarray, " seed"]:
        return 1 / np.asarray([result["steps_per_second"] for result in results])

    pairs = list(zip(arm, baseline, strict=True))
    return Compared(
        distance=mean_interval(final(arm, measure)),
        kernel_distance=mean_interval(final(arm, "kernel_distance")),
        excess=excess(arm),
        excess_ratio=paired_ratio(excess(arm), excess(baseline)),
        distance_ratio=np.asarray([one["distance"] for one in arm]) / [base["distance"] for base in baseline],
        share_to_baseline=np.asarray([steps_to(one, base["distance"][-1]) / one["steps"][-1] for one, base in pairs]),
        steps_to_real=np.asarray([steps_to(one, baseline[0]["floor"]) for one in arm]),
        step_time_ratio=paired_ratio(step_time(arm), step_time(baseline)),
    )


def paired_ratio(
    arm: Float[np.ndarray, " seed"], baseline: Float[np.ndarray, " seed"], confidence: float = 0.95
) -> Interval:
    """Divides the mean of `arm` by the mean of `baseline`, with Fieller's confidence interval (Fieller 1954).

    The interval is exact for pairs from a bivariate normal distribution, whatever their correlation. It holds every
    ratio r for which Student's t-test does not reject that arm - r baseline has mean 0. If the mean of the baseline is
    not significantly above 0, the set of such ratios is unbounded, or a ratio says nothing, and both ends are infinite.

    Args:
      arm: one value for each seed.
      baseline: values for the same seeds in the same order.
      confidence: probability that the interval covers the ratio.

    Raises:
      ValueError: if there are fewer than two seeds, or the two have different numbers of them.
    """
    if len(arm) < 2 or len(arm) != len(baseline):
        raise ValueError(
            f"{len(arm)} seeds of the arm and {len(baseline)} of the baseline: a ratio needs the same number of both, "
            f"at least two"
        )
    x, y, n = np.mean(baseline), np.mean(arm), len(arm)
    (xx, xy), (_, yy) = np.cov(baseline, arm) / n
    t2 = scipy.stats.t.ppf((1 + confidence) / 2, n - 1) ** 2
    # (y - r x)² <= t² (yy - 2 r xy + r² xx), a quadratic inequality in r.
    a, b, c = x**2 - t2 * xx, x * y - t2 * xy, y**2 - t2 * yy
    if a <= 0 or x <= 0 or b**2 < a * c:
        return Interval(np.asarray(y / x), np.asarray(-np.inf), np.asarray(np.inf))
    root = np.sqrt(b**2 - a * c)
    return Interval(np.asarray(y / x), np.asarray((b - root) / a), np.asarray((b + root) / a))


def geometric_mean(values: Float[np.ndarray, "seed *rest"], confidence: float = 0.95) -> Interval:
    """Computes the geometric mean over the first axis, with Student's confidence interval of the mean logarithm.

    Args:
      values: positive numbers, such as ratios.
      confidence: probability that the interval covers the mean.

    Raises:
      ValueError: if there are fewer than two seeds.
    """
    return Interval(*map(np.exp, mean_interval(np.log(values), confidence)))


def steps_to_reach(steps: Float[np.ndarray, " point"], curve: Float[np.ndarray, " point"], target: float) -> float:
    """Finds the first step at which a curve of distances is at or below `target`.

    The curve is interpolated linearly between its points. The result is the first step if the curve starts at or below
    the target, and infinite if it never reaches it.

    Args:
      steps: increasing steps.
      curve: distance at each of these steps.
      target: distance to reach.

    Raises:
      ValueError: if there are no steps, they do not increase, or `curve` has another length.
    """
    if len(steps) != len(curve) or not len(steps) or np.any(np.diff(steps) <= 0):
        raise ValueError(f"{len(steps)} steps and {len(curve)} points: give increasing steps, one for each point")
    below = np.flatnonzero(curve <= target)
    if not len(below):
        return float("inf")
    first = below[0]
    if first == 0:
        return float(steps[0])
    before, after = curve[first - 1], curve[first]
    return float(steps[first - 1] + (steps[first] - steps[first - 1]) * (before - target) / (before - after))
