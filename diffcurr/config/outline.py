"""Every key of a config with its default, and what a config becomes from it."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from diffcurr import parts
from diffcurr.config.renamed import RENAMED
from diffcurr.errors import UserError

OUTLINE: dict[str, Any] = {
    "seed": 0,
    "steps": 4000,
    "batch_size": 64,
    "microbatches": 1,
    "dtype": "float32",
    "dataset": {"name": "digits"},
    "codec": {"name": "identity"},
    "process": {"name": "ddpm"},
    "network": {"name": "dit"},
    "conditioning": {"name": "none"},
    "curriculum": {
        "name": "patience",
        "clusters": 20,
        "clustering": {"name": "uniform"},
        "stratified": False,
    },
    "optimizer": {"name": "adam"},
    "ema": {"decay": 0.9999, "rampup": 0.0},
    "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
    "sampling": {
        "samples": 64,
        "solver": {"name": "ddim"},
        "steps": 50,
        "last_step": 0.0,
        "guidance": 1.0,
        "guidance_interval": (0.0, 1.0),
        "guidance_channels": 0,
        "clip": 1.0,
    },
    "analysis": {
        "images": 60_000,
        "samples": 1000,
        "convergence": {
            "intervals": 10,
            "seeds": 5,
            "steps": 500,
            "batch_size": 64,
            "evaluate_every": 10,
            "share": 0.9,
        },
    },
    "features": {"epochs": 10},
    "evaluation": {
        "samples": 10_000,
        "training_samples": 1000,
        "features": "",
        "metrics": {"frechet_distance": {}, "kernel_distance": {}, "precision_recall": {}},
    },
    # Arms are free: {name: what of the config is different there}.
    "compare": {"baseline": "vanilla", "candidates": (), "seeds": 5, "arms": {}},
    "log_every": 100,
    "checkpoint_every": 1000,
    "sample_every": 1000,
    "evaluate_every": 0,
}


def outline() -> ConfigDict:
    """Every key with its default (docs/configuration.md); of parts, the name alone.

    It is locked, so that a misspelt key is an error where it is written, except in the sections of parts, whose keys
    are checked when the part is built.
    """
    config = ConfigDict(copy.deepcopy(OUTLINE)).lock()
    for section in sections(OUTLINE):
        config[section].unlock()
    config.compare.arms.unlock()
    return config


def sections(config: Mapping[str, Any]) -> list[str]:
    """The sections of a config that hold parts, as `config[section]` takes them."""
    found = [key for key, value in config.items() if isinstance(value, Mapping) and "name" in value]
    return [*found, "curriculum.clustering", "sampling.solver", "evaluation.metrics"]


def replace_sections(plain: dict[str, Any], function: Callable[[str, Any], Any]) -> None:
    """Puts function(section, value) in the place of each section of a config that holds parts."""
    for section in sections(OUTLINE):
        *outer, key = section.split(".")
        holder = plain[outer[0]] if outer else plain
        holder[key] = function(section, holder[key])


def complete(config: ConfigDict | Mapping[str, Any]) -> ConfigDict:
    """The config with every setting of every part that it names, locked.

    Raises:
      UserError: if a key is missing or unknown, or there is no part of a name.
    """
    plain = config.to_dict() if isinstance(config, ConfigDict) else copy.deepcopy(dict(config))
    _check_outline(plain, OUTLINE)
    replace_sections(plain, parts.complete)
    return ConfigDict(plain).lock()


def _check_outline(given: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> None:
    for key in known:
        if key not in given:
            raise UserError(f"config key {prefix + key!r} is missing: start the config from diffcurr.config.outline()")
    for key, value in given.items():
        path = prefix + key
        if key not in known:
            new = RENAMED.get(path)
            if "name" in known and (not new or new[0].startswith(path + ".")):  # a setting of the part, which knows it
                continue
            raise UserError(
                f"config key {path!r} is now {' and '.join(new)!r}"
                if new
                else f"config key {path!r} is unknown{parts.closest(path, {prefix + k for k in known})}"
            )
        if isinstance(known[key], Mapping) and path not in ("compare.arms", "evaluation.metrics"):
            if isinstance(value, str) and "name" in known[key]:
                continue
            if not isinstance(value, Mapping):
                raise UserError(f"config key {path!r} = {value!r}: must be a section")
            _check_outline(value, known[key], path + ".")


def needs_curve(config: ConfigDict) -> bool:
    """Whether the clusters of a completed config follow from a curve that has to be measured."""
    return parts.choose("curriculum.clustering", config.curriculum.clustering.name).needs_curve


def own_keys(section: str) -> tuple[str, ...]:
    """The keys of a part's section that are not the part's."""
    return tuple(key for key in OUTLINE[section] if key != "name")


def changed(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """A completed config with other values.

    Another part starts from its own defaults, except for settings that both parts have from a common base class, such
    as the learning rate of optimizers or the folder of data sets: those are kept.

    Args:
      changes: nested; the name of a part may stand for its section: {"optimizer": "adamw"}.

    Raises:
      UserError: for a key that there is not, or a part of an unknown name.
    """
    plain = config.to_dict()
    _change(plain, changes, "")
    return complete(plain)


def _change(plain: dict[str, Any], changes: Mapping[str, Any], prefix: str) -> None:
    for key, value in changes.items():
        section = prefix + key
        if section in parts.TABLES and not isinstance(parts.TABLES[section], parts.Several):
            if not isinstance(value, str | Mapping):
                raise UserError(f"config key {section!r} = {value!r}: choose one of {', '.join(parts.TABLES[section])}")
            given = {"name": value} if isinstance(value, str) else dict(value)
            before = plain.get(key, {})
            if given.get("name", before.get("name")) != before.get("name"):
                own = own_keys(section) if section in OUTLINE else ()
                shared = parts.shared_settings(section, before["name"], given["name"]) if before else set()
                plain[key] = {name: value for name, value in before.items() if name in own or name in shared}
            _change(plain[key], given, section + ".")
        elif isinstance(value, Mapping) and isinstance(plain.get(key), dict):
            _change(plain[key], value, section + ".")
        else:
            if prefix == "" and key not in plain:
                _check_outline(plain | {key: value}, OUTLINE)
            _check_type(section, value, plain.get(key))
            plain[key] = value


def _check_type(key: str, value: Any, before: Any) -> None:
    """Raises UserError if a value is not of the type of the one that it takes the place of."""
    if isinstance(before, Mapping) and not isinstance(value, Mapping):
        raise UserError(f"config key {key!r} = {value!r}: must be a section")
    kinds: tuple[type, ...] = (type(before),)
    if isinstance(before, float):
        kinds = (float, int)
    elif isinstance(before, (tuple, list)):
        kinds = (tuple, list)
    if before is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        raise UserError(f"config key {key!r} = {value!r}: must be of type {kinds[0].__name__}, such as {before!r}")


AT_LEAST: dict[str, int] = {
    "seed": 0,
    "steps": 1,
    "batch_size": 1,
    "microbatches": 1,
    "log_every": 0,
    "checkpoint_every": 0,
    "sample_every": 0,
    "evaluate_every": 0,
    "sampling.samples": 1,
    "features.epochs": 1,
    "analysis.images": 8,
    "analysis.samples": 8,
    "ema.rampup": 0,
}
"""The least value of numbers that belong to no part."""


def check_numbers(config: ConfigDict) -> None:
    """Checks the values that belong to no part.

    Raises:
      UserError: naming the value and what it must be.
    """
    for key, least in AT_LEAST.items():
        section, _, name = key.rpartition(".")
        value = (config[section] if section else config)[name]
        if value < least:
            raise UserError(f"{key} = {value}: must be at least {least}" + (" (0 for never)" if "every" in key else ""))
    if config.seed >= 2**32:
        raise UserError(f"seed = {config.seed}: must be below 2^32, which is all that JAX tells apart")
    if not 0.0 <= config.ema.decay < 1.0:
        raise UserError(f"ema.decay = {config.ema.decay}: must lie in [0, 1)")
    if config.dtype not in ("float32", "bfloat16"):
        raise UserError(f"dtype = {config.dtype!r}: choose float32 or bfloat16")
