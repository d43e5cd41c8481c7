"""Configs of other runs and versions: what was renamed, and what differs."""

import copy
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from diffcurr import parts
from diffcurr.config.outline import OUTLINE, complete, own_keys, replace_sections
from diffcurr.config.plain import flatten, to_json, unflatten, without
from diffcurr.config.renamed import RENAMED

NO_LARGEST_LEVEL = 1e30
SPEED_BEFORE = (("density", "about", "tau"), ("weighting", "over", "below"))  # it was not as published
# A finished or interrupted run may be continued with other values of these: they do not change what is trained.
FREE_KEYS = (
    "log_every",
    "checkpoint_every",
    "sample_every",
    "evaluate_every",
    "mesh",
    "sampling",
    "dataset.data_dir",
    "dataset.threads",
    "conditioning.store",
    "conditioning.encoder.folder",  # what it holds is compared beside the data
    "dataset.on_bad_file",  # what it changes of the data is seen in these
    "ema.snapshots",
    "analysis.block",
    "analysis.convergence",
    "features",
    "evaluation",
    "compare",
    "encode",
    "probe",
)


def upgrade(old: Mapping[str, Any]) -> ConfigDict:
    """A config that this or an older version wrote, with the keys of this one, completed.

    Args:
      old: JSON values, nested or flattened.

    Raises:
      UserError: if it names a part that there is no longer.
    """
    flat: dict[str, Any] = {}
    for key, value in flatten(old).items():
        if key == "class_conditional":
            value = "class" if value else "none"
        if key == "process.weighting_gamma" and not value:
            continue  # it stood for the usual value
        if key.endswith(".churn"):  # until 0.2 no largest level was written as infinity, which JSON does not have
            value = [NO_LARGEST_LEVEL if one == float("inf") else one for one in value]
        for new in RENAMED.get(key, (key,)):
            flat[new] = value
    for part, setting, before in SPEED_BEFORE:
        if flat.get(f"process.{part}.name") == "speed":
            flat.setdefault(f"process.{part}.{setting}", before)
    nested = _merged(copy.deepcopy(OUTLINE), unflatten(flat))
    metrics = unflatten(flatten(old)).get("evaluation", {}).get("metrics")
    if metrics is not None:  # those and no others
        nested["evaluation"] = nested["evaluation"] | {"metrics": metrics}
    replace_sections(nested, _known)
    return complete({key: value for key, value in nested.items() if key in OUTLINE})


def _merged(default: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(default)
    for key, value in given.items():
        inner = default.get(key)
        both[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return both


def _known(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the part of a section has, of those that a config gives."""
    if isinstance(parts.TABLES[section], parts.Several):
        return dict(settings)
    known = parts.settings_of(parts.choose(section, settings["name"]))
    own = own_keys(section) if section in OUTLINE else ()
    kept = {key: value for key, value in settings.items() if key == "name" or key in own or key in known}
    for key, default in known.items():
        inner = f"{section}.{key}"
        if key in kept and inner in parts.TABLES:
            given = dict(kept[key])
            named = {} if "name" in given else {"name": parts.section_of(inner, default)["name"]}
            kept[key] = _known(inner, named | given)
    return kept


def differences(
    old: Mapping[str, Any], new: ConfigDict, free: tuple[str, ...] = FREE_KEYS
) -> dict[str, tuple[Any, Any]]:
    """The keys, the free ones aside, whose values differ between two configs: {key: (old, new)}.

    `steps` is free too where the learning rate does not depend on it: a run may be made longer. So is `analysis`
    where no cluster depends on it.

    Args:
      old: JSON values that this or an older version wrote, nested or flattened.
      new: completed.
    """
    endless = getattr(parts.choose("optimizer", new.optimizer.name), "endless", ())
    free += ("steps",) if new.optimizer.get("schedule") in endless else ()
    clustering = parts.choose("curriculum.clustering", new.curriculum.clustering.name)
    free += () if "analysis" in clustering.measured_by else ("analysis",)
    before, after = without(to_json(upgrade(old)), free), without(to_json(new), free)
    return {k: (before.get(k), after.get(k)) for k in sorted(before | after) if before.get(k) != after.get(k)}
