"""Every key of a config with its default, and what a config becomes from it."""

import copy
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import RequiredValueError

from diffcurr import parts, ranges
from diffcurr.config.keys import KEYS, NAMES
from diffcurr.config.plain import unflatten
from diffcurr.config.renamed import RENAMED
from diffcurr.errors import UserError, first_line

OUTLINE: dict[str, Any] = unflatten(
    {f"{section}.name": name for section, name in NAMES.items()} | {key: one.default for key, one in KEYS.items()}
)

OPEN = tuple(key for key, one in KEYS.items() if one.kind is Mapping)
"""Sections that may hold any keys."""
SECTIONS = (*NAMES, "evaluation.metrics")
"""Sections that hold parts, as `config[section]` takes them."""


def outline() -> ConfigDict:
    """Every key with its default (docs/configuration.md); of parts, the name alone.

    It is locked, so that a misspelt key is an error where it is written, except in the sections of parts, whose keys
    are checked when the part is built.
    """
    config = ConfigDict(copy.deepcopy(OUTLINE)).lock()
    for section in {*SECTIONS, *OPEN}:
        config[section].unlock()
    return config


def replace_sections(plain: dict[str, Any], function: Callable[[str, Any], Any]) -> None:
    """Puts function(section, value) in the place of each section of a config that holds parts."""
    for section in SECTIONS:
        *outer, key = section.split(".")
        holder = plain[outer[0]] if outer else plain
        holder[key] = function(section, holder[key])


def complete(config: ConfigDict | Mapping[str, Any]) -> ConfigDict:
    """The config with every setting of every part that it names, locked.

    Raises:
      UserError: if a key is missing or unknown, or there is no part of a name.
    """
    try:
        plain = config.to_dict() if isinstance(config, ConfigDict) else copy.deepcopy(dict(config))
    except (RequiredValueError, RecursionError) as error:  # a placeholder that nothing was put into, or a circle
        raise UserError(f"config: {first_line(error)}") from error
    _check_outline(plain, OUTLINE)
    replace_sections(plain, parts.complete)
    completed = ConfigDict(plain).lock()
    try:
        completed.to_json()
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"config: cannot be written as JSON, as a workdir keeps it: {first_line(error)}") from error
    return completed


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
        if isinstance(known[key], Mapping) and path not in OPEN:
            if isinstance(value, str) and "name" in known[key]:
                continue
            if not isinstance(value, Mapping):
                raise UserError(f"config key {path!r} = {value!r}: must be a section")
            _check_outline(value, known[key], path + ".")


def needs_curve(config: ConfigDict) -> str:
    """The curve that the clusters of a completed config follow from, and that has to be measured; "" for none."""
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
            _change(plain.setdefault(key, {}), given, section + ".")
        elif isinstance(value, Mapping) and isinstance(plain.get(key), dict):
            _change(plain[key], value, section + ".")
        else:
            if prefix == "" and key not in plain:
                _check_outline(plain | {key: value}, OUTLINE)
            _check_section(section, value, plain.get(key))
            plain[key] = value


def _check_section(key: str, value: Any, before: Any) -> None:
    """Raises UserError if a value takes the place of a section."""
    if isinstance(before, Mapping) and not isinstance(value, Mapping):
        raise UserError(f"config key {key!r} = {value!r}: must be a section")


def check_keys(config: ConfigDict) -> None:
    """Checks the values that belong to no part.

    Raises:
      UserError: naming the key, its value and what it must be.
    """
    plain = config.to_dict()
    values = {key: functools.reduce(operator.getitem, key.split("."), plain) for key in KEYS}
    try:
        ranges.check({key: one.kind for key, one in KEYS.items()}, values)
    except ValueError as error:
        raise UserError(str(error)) from error
