"""What a comparison of arms found, in words: the verdict first."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from diffcurr.metrics.comparison import Compared, Result, geometric_mean, paired_ratio
from diffcurr.metrics.intervals import Interval, mean_interval


def verdict(compared: Mapping[str, Compared], baseline: str, candidates: Sequence[str], what: str) -> str:
    """One line: whether the best of the candidates ends closer to the data than the baseline, and is closer on the way.

    The best is chosen by its mean end, so its intervals are of 95 % for all candidates at once (Bonferroni).

    Args:
      what: data set, steps and seeds, in words.
    """

    def mean_above(name: str) -> float:
        return float(np.mean(compared[name].above))

    best, confidence = min(candidates, key=mean_above), 1 - 0.05 / len(candidates)
    ratio = paired_ratio(compared[best].above, compared[baseline].above, confidence)
    whole = _whole(compared[best], confidence)
    sure = (
        f"{_word(ratio, 'Better', 'Worse', 'No difference is shown')} at the end, "
        f"{_word(whole, 'closer', 'further', 'no difference is shown')} on the way"
    )
    chosen = (
        f"`{best}`, the best of {', '.join(f'`{name}`' for name in candidates)}," if candidates[1:] else f"`{best}`"
    )
    widened = f", for all {len(candidates)} at once" if candidates[1:] else ""
    lowest = min(compared, key=mean_above)
    at = "" if lowest == baseline else f", at {_show(compared[lowest].ratio)}"
    others = "" if lowest == best else f" Of all {len(compared)} arms `{lowest}` ends lowest{at}."
    return (
        f"**{sure}**: {chosen} ends at {_show(ratio)} times the Fréchet distance above copies that `{baseline}` ends "
        f"at; on the way its distance is {_show(whole)} times `{baseline}`'s (95 % intervals{widened}; {what}).{others}"
    )


def table(compared: Mapping[str, Compared], baseline: str) -> str:
    """A row an arm."""
    rows = [
        f"| arm | Fréchet distance | kernel distance | above copies, over {baseline}'s "
        f"| distance over {baseline}'s, all evaluations "
        f"| steps to {baseline}'s end, share of all | steps to fresh real images' distance, over {baseline}'s "
        f"| time of a step, over |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in compared.items():
        to_end, real, base = found.to_end, found.to_real, compared[baseline].to_real
        to_real = _show(paired_ratio(real, base)) if np.isfinite([real, base]).all() else _reached(real)
        one = name == baseline
        columns = [
            name,
            _show(found.distance),
            _show(found.kernel),
            "1" if one else _show(found.ratio),
            "1" if one else _show(_whole(found)),
            _show(mean_interval(to_end)) if np.isfinite(to_end).all() else _reached(to_end),
            "1" if one else to_real,
            "1" if one else _show(found.time),
        ]
        rows.append(f"| {' | '.join(columns)} |")
    return "\n".join(rows)


def courses(steps: Float[np.ndarray, " point"], ratios: Mapping[str, Interval], baseline: str) -> str:
    """The table of `figures.draw_courses`: a row an evaluation on the way, a column an arm."""
    rows = [f"| step | {' | '.join(ratios)} |", "|---" * (len(ratios) + 1) + "|"]
    for point, step in enumerate(steps):
        shown = (_show(Interval(*(ends[point] for ends in ratio))) for ratio in ratios.values())
        rows.append(f"| {step:,.0f} | {' | '.join(shown)} |")
    return "\n".join([f"Distance over {baseline}'s (geometric mean):", "", *rows])


def conditions(results: Sequence[Result], compared: Mapping[str, Compared], way: int) -> str:
    """What the figures of the table belong to, and how to read them.

    Args:
      results: of the baseline.
      way: samples of each evaluation on the way.
    """
    one = results[0]["evaluation"]
    counts, kernel, sampling = one["frechet_distance"], one["kernel_distance"], one["sampling"]
    remember = [name for name, found in compared.items() if found.distance.mean < counts["floor"]]
    lines = [
        f"Features: {one['features']}. At the end {counts['examples']:,} samples against "
        f"{counts['reference_examples']:,} images of the split trained on. At these numbers copies of those images, "
        f"drawn at random, have a distance of {counts['copies']:.3g}, the least to be expected; fresh real images "
        f"would have {counts['floor']:.3g}. Kernel distances are on {kernel['examples']:,} of each. On the way {way:,} "
        f"samples, where fresh real images would have {results[0]['floor']:.3g}. Sampling: {sampling['solver']}, "
        f"{sampling['steps']} steps, guidance {sampling['guidance']:g}. Equal steps; arms are paired by seed (same "
        f"first weights, same order of data). All intervals are 95 %, over seeds; `anything` where "
        f"{results[0]['arm']}'s own value may be 0. Over all evaluations a ratio is the geometric mean of each one's."
    ]
    if remember:
        lines += [
            "",
            f"Closer to the training images than fresh real images are, that is, remembering them: "
            f"{', '.join(remember)}. Among these a smaller distance means that more is remembered, not that new images "
            f"are better.",
        ]
    return "\n".join(lines)


def _show(interval: Interval) -> str:
    if np.isinf([interval.low, interval.high]).all():
        return f"{interval.mean:.3g} (anything)"
    return f"{interval.mean:.3g} ({interval.low:.3g} to {interval.high:.3g})"


def _word(ratio: Interval, below: str, above: str, unknown: str) -> str:
    return below if ratio.high < 1 else above if ratio.low > 1 else unknown


def _whole(found: Compared, confidence: float = 0.95) -> Interval:
    """The distance over the baseline's, all evaluations together."""
    return geometric_mean(np.exp(np.log(found.course).mean(axis=1)), confidence)


def _reached(steps: Float[np.ndarray, " seed"]) -> str:
    return f"reached by {np.isfinite(steps).sum()} of {len(steps)}"
