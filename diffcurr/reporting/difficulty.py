"""What was found about the difficulty of a data set's noise levels, in words."""

from collections.abc import Mapping

import numpy as np
import scipy.stats
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
    """Markdown on the three curves and the clusters that they suggest. Pairs are numbered by their noisier timestep."""
    value, error = mixture.value, mixture.standard_error
    pairs = np.arange(1, len(value) + 1)
    rises = np.diff(value) > 2 * np.hypot(error[1:], error[:-1]) + 1e-4 * value[:-1]
    half = int(np.searchsorted(np.cumsum(value), np.sum(value) / 2)) + 1
    length = np.sqrt(2 * np.maximum(value, 0))
    half_length = int(np.searchsorted(np.cumsum(length), np.sum(length) / 2)) + 1
    if not np.any(rises):
        shape = "falls all the way"
    else:
        shape = f"does not fall all the way: it rises at {np.sum(rises)} of {len(rises)} places, first at t = "
        shape += f"{pairs[1:][rises][0]}"
    peak = int(np.argmax(gaussian))
    lines = [
        f"- From data to noise the divergence {shape}, from {value[0]:.3g} nats at t = 1 to {value[-1]:.2g} at "
        f"t = {len(value)}. Its standard error is at most {np.max(error / value):.1%} of it.",
        f"- Half of its sum ({np.sum(value):.3g} nats) lies in the first {half} of {len(value)} pairs; half of the "
        f"path's length (the sum of sqrt(2 D_KL), {np.sum(length):.3g}) in the first {half_length}.",
        f"- A Gaussian with the data's mean and covariance has its largest value, {gaussian[peak]:.3g} nats, at "
        f"t = {pairs[peak]}"
        + (", like the data set." if peak == np.argmax(value) else f", the data set at t = {pairs[np.argmax(value)]}."),
        _on_leave_one_out(mixture, left_out),
        "",
        f"Edges of {len(next(iter(edges.values()))) - 1} clusters in u, by each rule:",
        "",
        "| rule | edges |",
        "|---|---|",
    ]
    lines += [f"| {name} | {' '.join(f'{edge:.3g}' for edge in positions)} |" for name, positions in edges.items()]
    return "\n".join(lines)


def _on_leave_one_out(mixture: RelativeEntropy, left_out: RelativeEntropy) -> str:
    """Where the curve is that of a finite set of points."""
    negative = left_out.value < -2 * left_out.standard_error
    if not negative[0]:
        return (
            "- Without the sample's own centre the less noisy mixture predicts an unseen point better from the start "
            "(leave-one-out): the curve does not come from the finiteness of the data."
        )
    last = len(negative) if np.all(negative) else int(np.argmin(negative))
    text = (
        f"- Up to t = {last} the less noisy mixture predicts an unseen point *worse* (leave-one-out, at worst "
        f"{np.min(left_out.value):.3g} nats): there the divergence is that of this finite set of points. "
    )
    apart = np.flatnonzero(np.abs(left_out.value - mixture.value) > 0.1 * mixture.value)
    meet = apart[-1] + 2 if len(apart) else 1
    if meet > len(mixture.value):
        return text + "The two curves do not come within 10 % of each other."
    return text + f"From t = {meet} on the two curves agree within 10 %: there the points suffice for a density."


def describe_convergence(convergence: Convergence, edges: Float[np.ndarray, " edge"], share: float) -> str:
    """Markdown on which intervals are learned sooner. The verdict needs two seeds at least."""
    steps = steps_to_share(convergence, share)
    seeds, intervals = steps.shape
    if seeds < 2 or intervals < 2:
        verdict = f"With {seeds} seed(s) and {intervals} interval(s) there is no verdict: give two of each at least."
    else:
        ratio = np.log(steps[:, 0] / steps[:, -1])
        mean, low, high = (float(np.exp(v)) for v in mean_interval(ratio))
        rank = mean_interval(np.array([scipy.stats.spearmanr(np.arange(intervals), row).statistic for row in steps]))
        if low > 1:
            found = "**The least noise is learned more slowly.**"
        elif high < 1:
            found = "**The least noise is learned faster**, against the paper's observation."
        else:
            found = "**No difference is shown** between the least and the most noise."
        verdict = (
            f"{found} To {share:.0%} of its improvement, a network that sees only u in [0, {edges[1]:.3g}) takes "
            f"{mean:.3g} times (95 % interval {low:.3g} to {high:.3g}) the steps of one that sees only u in "
            f"[{edges[-2]:.3g}, 1). Rank correlation of noise and steps over all {intervals} intervals: "
            f"{rank.mean:.2f} ({max(rank.low, -1):.2f} to {min(rank.high, 1):.2f}). {seeds} seeds, "
            f"{convergence.steps[-1]} steps each; what a network would still improve after them is not counted."
        )
    lines = [verdict, "", f"| u | loss at the start | at the end | steps to {share:.0%} |", "|---|---|---|---|"]
    for k in range(intervals):
        needed = f"{np.mean(steps[:, k]):.0f}"
        if seeds > 1:
            interval = mean_interval(steps[:, k])
            needed += f" ({interval.low:.0f} to {interval.high:.0f})"
        first, last = np.mean(convergence.loss[:, k, 0]), np.mean(convergence.loss[:, k, -1])
        lines.append(f"| {edges[k]:.3g} to {edges[k + 1]:.3g} | {first:.3f} | {last:.4f} | {needed} |")
    return "\n".join(lines)
