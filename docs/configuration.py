"""Writes docs/configuration.md from the docstrings of the parts: `python -m docs.configuration`."""

import inspect
import pathlib
import re
from typing import Any

from diffcurr import config as config_lib
from diffcurr import experiment, parts

del experiment  # imported for the tables that it fills in
PAGE = pathlib.Path(__file__).with_suffix(".md")

# The keys that belong to no part.
KEYS = {
    "seed": "the run's seed; all randomness follows from it",
    "steps": "optimizer steps in all",
    "batch_size": "examples in a step, over all devices and processes",
    "microbatches": "parts of a batch whose gradients are computed one after another, to save memory",
    "dtype": "compute dtype, `float32` or `bfloat16`; parameters are float32",
    "curriculum.clusters": "number of clusters N of noise levels",
    "curriculum.stratified": "draw one noise level from each of as many equal shares as there are examples",
    "ema.decay": "decay of the parameters' average, per step",
    "ema.rampup": "EDM's ramp-up: the average's half-life is at most this share of the steps so far; 0 for none",
    "mesh.data": "devices along the axis that only splits the batch; -1 takes what the others leave",
    "mesh.fsdp": "devices along the axis that splits batch and parameters",
    "mesh.tensor": "devices along the axis that splits layers",
    "sampling.samples": "samples that `--job=sample` draws, and that are drawn during training",
    "sampling.steps": "network evaluations of a sampler (with `heun` two a step, but at the last)",
    "sampling.last_step": "length of the last step in native time, where the process lets it be chosen; 0: its own",
    "sampling.guidance": "scale of classifier-free guidance; 1 is none",
    "sampling.guidance_interval": "the quantiles u between which samples are guided",
    "sampling.guidance_channels": "so many first channels are guided; 0 for all",
    "sampling.clip": "limit of the estimate of x0; 0 for none, as for latents",
    "analysis.images": "images whose relative entropy is measured, at most",
    "analysis.samples": "samples of that measurement",
    "analysis.convergence.intervals": "networks that are trained, each on its own range of noise levels",
    "analysis.convergence.seeds": "seeds of each",
    "analysis.convergence.steps": "optimizer steps of each",
    "analysis.convergence.batch_size": "examples in a step of each",
    "analysis.convergence.evaluate_every": "steps between evaluations of their losses",
    "analysis.convergence.share": "the share of the whole improvement, the steps to which are reported",
    "features.epochs": "passes over the data when `--job=features` trains a classifier",
    "evaluation.samples": "samples that `--job=evaluate` compares with the data",
    "evaluation.training_samples": "samples of each evaluation during training",
    "evaluation.features": "file of a classifier's or Inception's weights; if empty, the data set's shipped one",
    "compare.baseline": "the arm that the others are compared with",
    "compare.candidates": "arms from which the report's verdict is; all but the baseline if empty",
    "compare.seeds": "seeds of each arm",
    "compare.arms": "arms: {name: what of the config is different there}",
    "log_every": "steps between rows of `metrics.jsonl`; 0 for never",
    "checkpoint_every": "steps between checkpoints; 0 for the last alone",
    "sample_every": "steps between grids of samples; 0 for never",
    "evaluate_every": "steps between evaluations, into `evaluations.jsonl`; 0 for never",
}


def main() -> None:
    PAGE.write_text(page())


def page() -> str:
    """The whole page."""
    defaults = config_lib.flatten(config_lib.outline().to_dict())
    lines = [
        "# Configuration",
        "",
        "A file in `configs/` returns one `ml_collections.ConfigDict`, made from `diffcurr.config.outline()`. Every "
        "key is also a flag, `--config.KEY=VALUE`. A section with a `name` is a part: the keys beside the name are the "
        "settings of the class that it names, and `--config.SECTION=NAME` chooses another.",
        "",
        "This page is made from the docstrings of the parts by `python -m docs.configuration`.",
        "",
        "## Keys that belong to no part",
        "",
        "| key | default | meaning |",
        "|---|---|---|",
    ]
    for key, meaning in KEYS.items():
        lines.append(f"| `{key}` | {_value(defaults.get(key, {}))} | {meaning} |")
    for section, table in parts.TABLES.items():
        lines += ["", f"## {section}", ""]
        settings = {name: _rows(section, part) for name, part in table.items()}
        common = [row for row in next(iter(settings.values())) if all(row in rows for rows in settings.values())]
        if common and len(table) > 1:
            lines += ["Settings of all of them:", "", *_table(common)]
        for name, part in table.items():
            rows = [row for row in settings[name] if row not in common or len(table) == 1]
            lines += [f"### `{name}`", "", summary(part), "", *_table(rows)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def summary(part: Any) -> str:
    """What a class's docstring says before its settings."""
    text = inspect.cleandoc(part.__doc__ or "")
    before = re.split(r"\n(?:Attributes|Class attributes|Called with|Args):?", text)[0].strip()
    return before.replace("\n\n", "\n").replace("\n", " ")


def descriptions(part: Any) -> dict[str, str]:
    """Setting -> what it means, from the docstrings of the class, of its bases and of its constructor."""
    found: dict[str, str] = {}
    for text in (*(one.__doc__ for one in reversed(part.__mro__)), part.__init__.__doc__):
        block = re.search(
            r"^ *(?:Attributes|Args):\n(.*?)(?:\n\n|\Z)", inspect.cleandoc(text or "") + "\n", re.S | re.M
        )
        if not block:
            continue
        for names, meaning in re.findall(r"^  (\w[\w, ]*): (.*?)(?=^  \w[\w, ]*: |\Z)", block[1] + "\n", re.S | re.M):
            for name in names.split(", "):
                found[name] = " ".join(meaning.split()).removesuffix(".")
    return found


def _rows(section: str, part: Any) -> list[str]:
    """A row for each setting of a part."""
    described, rows = descriptions(part), []
    for key, default in parts.settings_of(part).items():
        inner = f"{section}.{key}"
        if inner in parts.TABLES:
            name = parts.section_of(inner, default)["name"]
            rows.append(f"| `{key}` | `{name}` | {described[key]}: a part, see [{inner}](#{inner.replace('.', '')}) |")
        else:
            rows.append(f"| `{key}` | {_value(default)} | {described[key]} |")
    return rows


def _table(rows: list[str]) -> list[str]:
    return ["| setting | default | meaning |", "|---|---|---|", *rows, ""] if rows else []


def _value(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "must be given"
    return f"`{value!r}`" if value not in ("", (), {}) else ""


if __name__ == "__main__":
    main()
