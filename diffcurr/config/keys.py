"""The keys of a config that belong to no part: what each is by default, may be, and means."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import annotated_types as at
from annotated_types import Interval

from diffcurr import ranges


class Key(NamedTuple):
    """One key.

    Attributes:
      default: value of the key in `outline()`.
      kind: the annotation that says what it may be (`diffcurr.ranges`).
      meaning: a line for docs/configuration.md.
    """

    default: Any
    kind: Any
    meaning: str


WIDEST = 0.28  # training.power_average's, which imports JAX
Axis = Annotated[int, Interval(ge=-1, le=2**20)]
Analyzed = Annotated[int, Interval(ge=8, le=10**8)]

KEYS: dict[str, Key] = {
    "seed": Key(0, ranges.Seed, "the run's seed; all randomness follows from it"),
    "steps": Key(4000, ranges.Steps, "optimizer steps in all"),
    "batch_size": Key(64, ranges.Size, "examples in a step, over all devices and processes"),
    "microbatches": Key(
        1, ranges.Size, "parts of a batch whose gradients are computed one after another, to save memory"
    ),
    "dtype": Key(
        "float32", Annotated[str, ranges.OneOf(("float32", "bfloat16"))], "compute dtype; parameters are float32"
    ),
    "curriculum.clusters": Key(20, ranges.Few, "number of clusters N of noise levels"),
    "curriculum.stratified": Key(
        False, bool, "draw one noise level from each of as many equal shares as there are examples"
    ),
    "curriculum.unbiased": Key(
        False,
        bool,
        "divide each loss by the weight of its cluster: weights then change the variance of the gradient alone",
    ),
    "ema.decay": Key(0.9999, ranges.ShareBelowOne, "decay of the parameters' average, per step"),
    "ema.rampup": Key(
        0.0,
        ranges.NotNegative,
        "EDM's ramp-up: the average's half-life is at most this share of the steps so far; 0 for none",
    ),
    "ema.widths": Key(
        (),
        Sequence[Annotated[float, Interval(gt=0, le=WIDEST)]],
        "relative widths of further averages of the parameters, of power-function profiles (EDM2), such as (0.05, "
        "0.10): of two, `load_run(..., ema_width=...)` makes any other after training; each takes the memory of the "
        "parameters, and is stored at every checkpoint in the folder `averages`",
    ),
    "ema.snapshots": Key(
        "float16",
        Annotated[str, ranges.OneOf(("float16", "float32"))],
        "dtype of what is stored there: 2 or 4 bytes for each parameter and width",
    ),
    "mesh.data": Key(-1, Axis, "devices along the axis that only splits the batch; -1 takes what the others leave"),
    "mesh.fsdp": Key(1, Axis, "devices along the axis that splits batch and parameters"),
    "mesh.tensor": Key(1, Axis, "devices along the axis that splits layers"),
    "sampling.samples": Key(64, ranges.Number, "samples of `--job=sample`, and of each grid during training"),
    "sampling.steps": Key(
        50, ranges.Steps, "steps of the sampler; each evaluates the network once, with `heun` twice but for the last"
    ),
    "sampling.last_step": Key(
        0.0,
        ranges.ShareBelowOne,
        "length of the last step in native time, where the process lets it be chosen; or 0",
    ),
    "sampling.spacing": Key(
        "process",
        Annotated[str, ranges.OneOf(("process", "log_snr"))],
        "the noise levels of a sampler: as the process's authors space them, or evenly in log-SNR",
    ),
    "sampling.guidance": Key(1.0, ranges.NotNegative, "scale of classifier-free guidance; 1 is none"),
    "sampling.guidance_interval": Key((0.0, 1.0), ranges.Quantiles, "the quantiles u between which samples are guided"),
    "sampling.guidance_channels": Key(0, ranges.Channels, "so many first channels are guided; 0 for all"),
    "sampling.clip": Key(1.0, ranges.NotNegative, "limit of the estimate of x0; 0 for none, as for latents"),
    "sampling.temperature": Key(
        1.0, ranges.Positive, "of tokens: logits are divided by it; below 1, likely tokens become more so"
    ),
    "sampling.top_k": Key(0, ranges.Classes, "of tokens: only so many of the likeliest are drawn; 0 for all"),
    "sampling.top_p": Key(
        1.0,
        Annotated[float, Interval(gt=0, le=1)],
        "of tokens: only the likeliest that together reach this probability are drawn",
    ),
    "analysis.images": Key(60_000, Analyzed, "images whose relative entropy is measured, at most"),
    "analysis.samples": Key(1000, Analyzed, "samples of that measurement"),
    "analysis.block": Key(
        65_536,
        ranges.Number,
        "images that each process holds at a time; networks are trained on the first ones",
    ),
    "analysis.convergence.intervals": Key(
        10, ranges.Few, "networks that are trained, each on its own range of noise levels"
    ),
    "analysis.convergence.seeds": Key(5, ranges.Few, "seeds of each"),
    "analysis.convergence.steps": Key(500, ranges.Steps, "optimizer steps of each"),
    "analysis.convergence.batch_size": Key(64, ranges.Size, "examples in a step of each"),
    "analysis.convergence.evaluate_every": Key(10, ranges.Steps, "steps between evaluations of their losses"),
    "analysis.convergence.share": Key(
        0.9,
        Annotated[float, Interval(gt=0, lt=1)],
        "the share of the whole improvement, the steps to which are reported",
    ),
    "features.epochs": Key(10, ranges.Few, "passes over the data when `--job=features` trains a classifier"),
    "evaluation.samples": Key(10_000, ranges.Number, "samples that `--job=evaluate` compares with the data"),
    "evaluation.training_samples": Key(1000, ranges.Number, "samples of each evaluation during training"),
    "evaluation.features": Key(
        "", str, "file of a classifier's or Inception's weights; if empty, the data set's shipped one"
    ),
    "evaluation.reference": Key(
        "", str, "file of published statistics (EDM's, ADM's) to compare with; if empty, the data set's split"
    ),
    "evaluation.pipeline": Key(
        "data",
        Annotated[str, ranges.OneOf(("data", "nearest", "edm", "adm", "clean"))],
        "how samples become the pixels that Inception sees; `data` rounds to the grid of the data's own",
    ),
    "evaluation.metrics": Key(
        {"frechet_distance": {}, "kernel_distance": {}, "precision_recall": {}}, Mapping, "what is measured: see below"
    ),
    "evaluation.denoising.images": Key(
        1000,
        Annotated[int, Interval(ge=0, le=10**8)],
        "held-out images on which the denoising error, or bits per token, is measured",
    ),
    "evaluation.denoising.log_snr": Key(
        (-8.0, 8.0), Annotated[Sequence[float], at.Len(2, 2)], "log-SNR between which it is measured"
    ),
    "evaluation.denoising.levels": Key(17, Annotated[int, Interval(ge=2, le=1000)], "number of noise levels there"),
    "compare.measure": Key("frechet_distance", str, "the Fréchet distance that decides, one of `evaluation.metrics`"),
    "compare.grids": Key(
        {}, Mapping, "further settings of `sampling` with which every arm is evaluated at the end: {name: what differs}"
    ),
    "encode.shard": Key(4096, ranges.Size, "examples in a file of `--job=encode`"),
    "encode.dtype": Key(
        "float32",
        Annotated[str, ranges.OneOf(("float32", "float16"))],
        "of stored latents; float16 takes half the space, and rounds by more than a usual standard deviation",
    ),
    "compare.baseline": Key("vanilla", str, "the arm that the others are compared with"),
    "compare.candidates": Key(
        (), Sequence[str], "arms from which the report's verdict is; all but the baseline if empty"
    ),
    "compare.seeds": Key(5, Annotated[int, Interval(ge=2, le=1000)], "seeds of each arm; an interval needs two"),
    "compare.arms": Key({}, Mapping, "arms: {name: what of the config is different there}"),
    "probe.images": Key(
        10_000,
        Annotated[int, Interval(ge=2, le=10**8)],
        "pictures that `--job=probe` fits a linear classifier to, and tests it on, at most",
    ),
    "log_every": Key(100, ranges.StepsOrNever, "steps between rows of `metrics.jsonl`; 0 for never"),
    "checkpoint_every": Key(1000, ranges.StepsOrNever, "steps between checkpoints; 0 for the last alone"),
    "sample_every": Key(1000, ranges.StepsOrNever, "steps between grids of samples; 0 for never"),
    "evaluate_every": Key(0, ranges.StepsOrNever, "steps between evaluations, into `evaluations.jsonl`; 0 for never"),
}

NAMES: dict[str, str] = {
    "dataset": "digits",
    "task": "diffusion",
    "codec": "identity",
    "process": "ddpm",
    "network": "dit",
    "conditioning": "none",
    "curriculum": "patience",
    "curriculum.clustering": "uniform",
    "curriculum.stages": "none",
    "optimizer": "adam",
    "sampling.solver": "ddim",
    "alignment": "none",
    "encode.features": "none",
}
"""Section of a part -> the name of the one in `outline()`."""
