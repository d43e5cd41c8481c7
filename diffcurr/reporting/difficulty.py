"""The texts of the report on the difficulty of a data set's noise levels, in Markdown."""

from collections.abc import Mapping

import numpy as np
import scipy  # loads its modules when they are named
from jaxtyping import Float

from diffcurr.difficulty.convergence import Convergence, steps_to_share
from diffcurr.difficulty.relative_entropy import RelativeEntropy
from diffcurr.metrics.intervals import mean_interval


def describe_relative_entropy(
    mixture: RelativeEntropy,
    left_out: RelativeEntropy,
    gaussian: Float[np.ndarray, " pair"],
    edges: Mapping[str, Float[np.ndarray, " edge"]],
) -> str:
    """Describes the relative entropy of a data set, and the clusters that follow from it.

    The text numbers each pair of timesteps by the noisier one, t = 1, 2, ...

    Args:
      mixture: relative entropy of the data set.
      left_out: the same, computed with `leave_one_out`.
      gaussian: relative entropy of a Gaussian with the data's mean and covariance, in nats.
      edges: edges of the clusters in u, by the name of the rule that suggests them.
    """
    value, error = mixture.value, mixture.standard_error
    pairs, equal = np.arange(1, len(value) + 1), value == 0
    relative = np.max(error[~equal] / np.abs(value[~equal]), initial=0.0)
    rises = np.diff(value) > 2 * np.hypot(error[1:], error[:-1]) + 1e-4 * value[:-1]
    half = int(np.searchsorted(np.cumsum(value), np.sum(value) / 2)) + 1
    length = np.sqrt(2 * np.maximum(value, 0))
    half_length = int(np.searchsorted(np.cumsum(length), np.sum(length) / 2)) + 1
    if not np.any(rises):
        shape = "falls throughout"
    else:
        shape = f"does not fall throughout: it rises at {np.sum(rises)} of {len(rises)} timesteps, first at t = "
        shape += f"{pairs[1:][rises][0]},"
    peak = int(np.argmax(gaussian))
    lines = [
        f"- From data to noise the divergence {shape}, from {value[0]:.3g} nats at t = 1 to {value[-1]:.2g} at "
        f"t = {len(value)}. Its standard error is at most {relative:.1%} of the value."
        + (f" {np.sum(equal)} pairs are of the same noise level." if np.any(equal) else ""),
        f"- Half of its sum ({np.sum(value):.3g} nats) lies in the first {half} of the {len(value)} pairs of "
        f"timesteps. Half of the length of the path from data to noise (the sum of sqrt(2 D_KL), {np.sum(length):.3g}) "
        f"lies in the first {half_length}.",
        f"- A Gaussian with the data's mean and covariance has its largest divergence, {gaussian[peak]:.3g} nats, at "
        f"t = {pairs[peak]}; the data set has its largest at "
        + ("the same t." if peak == np.argmax(value) else f"t = {pairs[np.argmax(value)]}."),
        _describe_leave_one_out(mixture, left_out),
        "",
        f"Edges of {len(next(iter(edges.values()))) - 1} clusters in u, by the rule that suggests them:",
        "",
        "| rule | edges |",
        "|---|---|",
    ]
    lines += [f"| {name} | {' '.join(f'{edge:.3g}' for edge in positions)} |" for name, positions in edges.items()]
    return "\n".join(lines)


def _describe_leave_one_out(mixture: RelativeEntropy, left_out: RelativeEntropy) -> str:
    """Says up to which timestep the curve is large only because the data are a finite set of points."""
    negative = left_out.value < -2 * left_out.standard_error
    if not negative[0]:
        return (
            "- The leave-one-out curve is not negative, even at t = 1: the less noisy mixture of the other points "
            "predicts a left-out point no worse than the noisier one does. So the divergence is not an effect of "
            "having finitely many points."
        )
    last = len(negative) if np.all(negative) else int(np.argmin(negative))
    text = (
        f"- The leave-one-out curve is negative up to t = {last} (at worst {np.min(left_out.value):.3g} nats): the "
        f"less noisy mixture of the other points predicts a left-out point *worse* than the noisier one does. There "
        f"the divergence describes this finite set of points, not a density behind it. "
    )
    apart = np.flatnonzero(np.abs(left_out.value - mixture.value) > 0.1 * mixture.value)
    meet = apart[-1] + 2 if len(apart) else 1
    if meet > len(mixture.value):
        return text + "At the last t it still differs from the data set's curve by more than 10 %."
    return text + f"From t = {meet} on it agrees with the data set's curve within 10 %: there the points suffice."


def describe_convergence(convergence: Convergence, edges: Float[np.ndarray, " edge"], share: float) -> str:
    """Describes which u-intervals are learned in fewer steps.

    A verdict needs at least two seeds and two u-intervals.

    Args:
      convergence: losses of networks that were each trained on one u-interval.
      edges: edges of the u-intervals.
      share: share of the improvement, in (0, 1), to which steps are counted (`convergence.steps_to_share`).

    Raises:
      ValueError: if share is not in (0, 1).
    """
    steps = steps_to_share(convergence, share)
    seeds, intervals = steps.shape
    if seeds < 2 or intervals < 2:
        verdict = f"With {seeds} seed(s) and {intervals} u-interval(s) there is no verdict: it needs two of each."
    elif np.isnan(steps).any():
        verdict = (
            f"{np.isnan(steps).sum()} of {steps.size} networks ended with no smaller loss than they began with, so "
            f"there is no verdict: give more steps (analysis.convergence.steps)."
        )
    else:
        ratio = np.log(steps[:, 0] / steps[:, -1])
        mean, low, high = (float(np.exp(v)) for v in mean_interval(ratio))
        rank = mean_interval(np.array([scipy.stats.spearmanr(np.arange(intervals), one).statistic for one in steps]))
        if low > 1:
            finding = "**The lowest noise levels take more steps to learn.**"
        elif high < 1:
            finding = "**The lowest noise levels take fewer steps to learn**, contrary to the paper's observation."
        else:
            finding = "**No difference is shown** between the lowest and the highest noise levels."
        verdict = (
            f"{finding} To make {share:.0%} of its improvement, a network that sees only u in [0, {edges[1]:.3g}) "
            f"takes {mean:.3g} times (95 % interval {low:.3g} to {high:.3g}) the steps of one that sees only u in "
            f"[{edges[-2]:.3g}, 1). Rank correlation of noise and steps over all {intervals} u-intervals: "
            f"{rank.mean:.2f} ({max(rank.low, -1):.2f} to {min(rank.high, 1):.2f}). {seeds} seeds, "
            f"{convergence.steps[-1]} steps each; improvement that would come after these steps is not counted."
        )
    lines = [
        verdict,
        "",
        f"| u-interval | loss at the start | loss at the end | steps to {share:.0%} of the improvement |",
        "|---|---|---|---|",
    ]
    for k in range(intervals):
        needed = "no improvement" if np.isnan(steps[:, k]).any() else f"{np.mean(steps[:, k]):.0f}"
        if seeds > 1 and not np.isnan(steps[:, k]).any():
            interval = mean_interval(steps[:, k])
            needed += f" ({interval.low:.0f} to {interval.high:.0f})"
        first, last = np.mean(convergence.loss[:, k, 0]), np.mean(convergence.loss[:, k, -1])
        lines.append(f"| {edges[k]:.3g} to {edges[k + 1]:.3g} | {first:.3f} | {last:.4f} | {needed} |")
    return "\n".join(lines)
