"""The text of a comparison's report: the verdict, the conditions, and the tables, in Markdown.

`diffcurr.metrics.comparison` says what an arm is. The reports in docs/evidence consist of these texts, and
tests/test_evidence.py compares them, so a change of a text here must be made in those reports too.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from diffcurr.metrics.comparison import Compared, DenoisingCompared, Result, geometric_mean, paired_ratio
from diffcurr.metrics.evaluation import METRICS
from diffcurr.metrics.intervals import Interval, mean_interval


def verdict(compared: Mapping[str, Compared], baseline: str, candidates: Sequence[str], setup: str) -> str:
    """Says in one line whether the best candidate is closer to the data than the baseline, after and during training.

    The best candidate is the one with the smallest mean excess (`Compared.excess`). Because it is chosen by its result,
    the intervals have a joint confidence of 95 % over all candidates (Bonferroni correction).

    Args:
      compared: comparison of each arm with the baseline.
      baseline: name of the baseline, which is in `compared` too.
      candidates: names of the arms among which the best is chosen.
      setup: data set, process, steps and seeds, in words.
    """

    def mean_excess(name: str) -> float:
        return float(np.mean(compared[name].excess))

    best, confidence = min(candidates, key=mean_excess), 1 - 0.05 / len(candidates)
    end_ratio = paired_ratio(compared[best].excess, compared[baseline].excess, confidence)
    training_ratio = _overall_ratio(compared[best], confidence)
    summary = (
        f"{_choose(end_ratio, 'Better', 'Worse', 'No difference is shown')} at the end, "
        f"{_choose(training_ratio, 'closer', 'further', 'no difference is shown')} on the way"
    )
    chosen = (
        f"`{best}`, the best of {', '.join(f'`{name}`' for name in candidates)}," if candidates[1:] else f"`{best}`"
    )
    joint = f", for all {len(candidates)} at once" if candidates[1:] else ""
    lowest = min(compared, key=mean_excess)
    lowest_ratio = "" if lowest == baseline else f", at {_format(compared[lowest].excess_ratio)}"
    others = "" if lowest == best else f" Of all {len(compared)} arms `{lowest}` ends lowest{lowest_ratio}."
    return (
        f"**{summary}**: {chosen} ends at {_format(end_ratio)} times the Fréchet distance above copies that "
        f"`{baseline}` ends at; on the way its distance is {_format(training_ratio)} times `{baseline}`'s (95 % "
        f"intervals{joint}; {setup}).{others}"
    )


def table(compared: Mapping[str, Compared], baseline: str) -> str:
    """Formats the comparisons as a Markdown table with one line for each arm."""
    lines = [
        f"| arm | Fréchet distance | kernel distance | above copies, over {baseline}'s "
        f"| distance over {baseline}'s, all evaluations "
        f"| steps to {baseline}'s end, share of all | steps to fresh real images' distance, over {baseline}'s "
        f"| time of a step, over |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, arm in compared.items():
        share, steps, baseline_steps = arm.share_to_baseline, arm.steps_to_real, compared[baseline].steps_to_real
        both_reach = np.isfinite([steps, baseline_steps]).all()
        steps_ratio = _format(paired_ratio(steps, baseline_steps)) if both_reach else _count_reached(steps)
        is_baseline = name == baseline
        columns = [
            name,
            _format(arm.distance),
            _format(arm.kernel_distance),
            "1" if is_baseline else _format(arm.excess_ratio),
            "1" if is_baseline else _format(_overall_ratio(arm)),
            _format(mean_interval(share)) if np.isfinite(share).all() else _count_reached(share),
            "1" if is_baseline else steps_ratio,
            "1" if is_baseline else _format(arm.step_time_ratio),
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def ratio_table(steps: Float[np.ndarray, " evaluation"], ratios: Mapping[str, Interval], baseline: str) -> str:
    """Formats the curves of `figures.draw_ratios` as a Markdown table.

    Args:
      steps: step of each evaluation during training: one line of the table.
      ratios: geometric mean of `Compared.distance_ratio` over seeds, by arm: one column of the table.
      baseline: name of the baseline.
    """
    lines = [f"| step | {' | '.join(ratios)} |", "|---" * (len(ratios) + 1) + "|"]
    for index, step in enumerate(steps):
        cells = (_format(Interval(*(values[index] for values in ratio))) for ratio in ratios.values())
        lines.append(f"| {step:,.0f} | {' | '.join(cells)} |")
    return "\n".join([f"Distance over {baseline}'s (geometric mean):", "", *lines])


def table_by_arm(title: str, of_row: str, rows: Mapping[str, Mapping[str, Interval]]) -> str:
    """Formats intervals as a Markdown table with one column for each arm.

    Args:
      title: what they are.
      of_row: what the name of a row is.
      rows: by row and arm.
    """
    arms = list(next(iter(rows.values())))
    lines = [f"| {of_row} | {' | '.join(arms)} |", "|---" * (len(arms) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(_format(one) for one in of_arm.values())} |" for name, of_arm in rows.items()]
    return "\n".join([f"{title}:", "", *lines])


def denoising_table(
    compared: Mapping[str, DenoisingCompared], baseline: str, log_snr: Sequence[float], images: int
) -> str:
    """Formats the bounds on the likelihood of held-out images as a Markdown table with one line for each arm.

    Args:
      compared: comparison of each arm with the baseline.
      baseline: name of the baseline.
      log_snr: the grid on which the denoising error was measured.
      images: number of held-out images.
    """
    lines = [
        f"Denoising {images:,} held-out images, with the same noise for all arms. The bound is on their negative "
        f"log-likelihood in bits per dimension, from the error of the noise at log-SNR {min(log_snr):g} to "
        f"{max(log_snr):g}:",
        "",
        f"| arm | bound | minus {baseline}'s | steps to {baseline}'s end, share of all |",
        "|---|---|---|---|",
    ]
    for name, arm in compared.items():
        share, is_baseline = arm.share_to_baseline, name == baseline
        reached = _format(mean_interval(share)) if np.isfinite(share).all() else _count_reached(share)
        difference = "0" if is_baseline else _format(arm.bound_difference)
        lines.append(f"| {name} | {_format(arm.bound, 4)} | {difference} | {reached} |")
    return "\n".join(lines)


def conditions(
    results: Sequence[Result],
    compared: Mapping[str, Compared],
    training_samples: int,
    measure: str = "frechet_distance",
) -> str:
    """Says under which conditions the numbers of the tables were measured, and how to read them.

    Args:
      results: results of the baseline, one for each seed.
      compared: comparison of each arm with the baseline.
      training_samples: number of samples in each evaluation during training.
      measure: name of the distance.
    """
    evaluation = results[0]["evaluation"]
    counts, kernel, sampling = (evaluation[key] for key in (measure, "kernel_distance", "sampling"))
    held_out = METRICS[measure].held_out
    real = "images that no arm was trained on" if held_out else "images of the split trained on"
    memorise = [name for name, arm in compared.items() if arm.distance.mean < counts["floor"] and not held_out]
    lines = [
        f"Features: {evaluation['features']}. At the end {counts['examples']:,} samples against "
        f"{counts['reference_examples']:,} {real}. At these numbers copies of those images, "
        f"drawn at random, have a distance of {counts['copies']:.3g}, the least to be expected; fresh real images "
        f"would have {counts['floor']:.3g}. Kernel distances are on {kernel['examples']:,} of each. On the way "
        f"{training_samples:,} samples, where fresh real images would have {results[0]['floor']:.3g}. Sampling: "
        f"{sampling['solver']}, {sampling['steps']} steps, guidance {sampling['guidance']:g}. Equal steps; arms are "
        f"paired by seed (same first weights, same order of data). All intervals are 95 %, over seeds; `anything` "
        f"where {results[0]['arm']}'s own value may be 0. Over all evaluations a ratio is the geometric mean of each "
        f"one's."
    ]
    if memorise:
        lines += [
            "",
            f"Closer to the training images than fresh real images are, that is, memorising them: "
            f"{', '.join(memorise)}. Among these a smaller distance means that more is memorised, not that new images "
            f"are better.",
        ]
    return "\n".join(lines)


def _format(interval: Interval, digits: int = 3) -> str:
    if np.isinf([interval.low, interval.high]).all():
        return f"{interval.mean:.{digits}g} (anything)"
    return f"{interval.mean:.{digits}g} ({interval.low:.{digits}g} to {interval.high:.{digits}g})"


def _choose(ratio: Interval, below: str, above: str, unknown: str) -> str:
    """Chooses a word by whether the whole interval is below 1, the whole interval is above 1, or neither."""
    return below if ratio.high < 1 else above if ratio.low > 1 else unknown


def _overall_ratio(arm: Compared, confidence: float = 0.95) -> Interval:
    """Averages the ratio of the distances to the baseline's over all evaluations (geometric mean) and all seeds."""
    return geometric_mean(np.exp(np.log(arm.distance_ratio).mean(axis=1)), confidence)


def _count_reached(steps: Float[np.ndarray, " seed"]) -> str:
    return f"reached by {np.isfinite(steps).sum()} of {len(steps)}"
