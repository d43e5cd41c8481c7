"""The one pattern of every exchangeable part: a class, registered in a table under the name that a config gives.

A section of a config, such as `process`, holds `name` and beside it the settings of the class of that name: the
arguments of its constructor. A part may contain parts: `process.weighting` is a section inside `process`. The table of
a section is a plain dict, so a guest registers a part in one line, `NETWORKS["mine"] = Mine`.
"""

import dataclasses
import difflib
import inspect
from collections.abc import Mapping
from typing import Any, TypeAlias

from ml_collections import ConfigDict

from diffcurr import ranges
from diffcurr.errors import UserError, concerning

Settings: TypeAlias = Mapping[str, Any] | ConfigDict  # which is no Mapping

TABLES: dict[str, dict[str, Any]] = {}
"""Section of the config -> name -> class. `diffcurr.experiment.tables` fills it in."""


FROM_SPEC = ("shape", "condition", "learn_variance", "dtype", "rngs")
"""What a network's `from_spec` is given beside its settings."""


OWN_PART = "; your own parts are known once the file that registers them is loaded (diffcurr.config.load)"


class Several(dict[str, Any]):
    """A table whose section holds any number of parts, each by its name: {"first": {settings}, "second": {}}."""


def choose(section: str, name: object) -> Any:
    """The class that `section.name` names.

    Raises:
      UserError: if there is none; the message lists those that there are.
    """
    table = TABLES[section]
    if not isinstance(name, str) or name not in table:
        key = section if isinstance(table, Several) else f"{section}.name"
        raise UserError(f"{key} = {name!r}: choose one of {', '.join(table)}{OWN_PART}")
    return table[name]


def settings_of(part: Any) -> dict[str, Any]:
    """The settings of a class with their defaults; `inspect.Parameter.empty` where there is none.

    They are the keyword arguments of its `from_spec`, if it has one, and of its constructor, without those that it
    lists in DERIVED: those follow from other parts, and the caller of `build` passes them.
    """
    found: dict[str, inspect.Parameter] = {}
    makers = [part.from_spec, part.__init__] if hasattr(part, "from_spec") else [part.__init__]
    for make in makers:
        parameters = dict(inspect.signature(make).parameters)
        parameters.pop("self", None)
        variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        found |= {name: one for name, one in parameters.items() if one.kind not in variadic}
        if len(found) == len(parameters):  # it takes no others
            break
    derived = {*getattr(part, "DERIVED", ()), *(FROM_SPEC if hasattr(part, "from_spec") else ())}
    return {name: one.default for name, one in found.items() if name not in derived}


def kinds_of(part: Any) -> dict[str, Any]:
    """Setting -> its annotation, which says what it may be (`diffcurr.ranges`)."""
    from_spec = ranges.kinds_of(part.from_spec) if hasattr(part, "from_spec") else {}
    return from_spec | ranges.kinds_of(part)


def shared_settings(section: str, one: str, other: str) -> set[str]:
    """The settings that two parts have from a common base class, without the parts inside them."""
    bases = set(choose(section, one).__mro__) & set(choose(section, other).__mro__)
    names = {one.name for base in bases if dataclasses.is_dataclass(base) for one in dataclasses.fields(base)}
    return {name for name in names if f"{section}.{name}" not in TABLES}


def complete(section: str, given: Any) -> dict[str, Any]:
    """A section with every setting of the part that it names, the default where none is given.

    Args:
      given: the section, a mapping with `name`, or the name alone; keys that are not the part's are kept.

    Raises:
      UserError: if there is no part of that name.
    """
    settings = {"name": given} if isinstance(given, str) else _section(section, given)
    if isinstance(TABLES[section], Several):
        several = {name: _section(f"{section}.{name}", one) for name, one in settings.items()}
        return {name: _filled(section, choose(section, name), one) for name, one in several.items()}
    if "name" not in settings:
        raise UserError(f"config key '{section}.name' is missing: choose one of {', '.join(TABLES[section])}")
    return _filled(section, choose(section, settings["name"]), settings)


def _filled(section: str, part: Any, settings: Any) -> dict[str, Any]:
    filled = dict(settings)
    for key, default in settings_of(part).items():
        inner = f"{section}.{key}"
        if inner in TABLES:
            inside = filled.get(key, {})
            inside = {"name": inside} if isinstance(inside, str) else _section(inner, inside)
            if "name" not in inside and default is inspect.Parameter.empty:
                raise UserError(f"config key '{inner}.name' is missing: choose one of {', '.join(TABLES[inner])}")
            filled[key] = complete(inner, inside if "name" in inside else section_of(inner, default) | inside)
        elif key not in filled and default is not inspect.Parameter.empty:
            filled[key] = default
    return filled


def _section(key: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping | ConfigDict):
        raise UserError(f"config key {key!r} = {ranges.shown(given)}: must be a section")
    return dict(given)


def section_of(section: str, part: Any) -> dict[str, Any]:
    """The section that names the part which is a default."""
    names = [name for name, one in TABLES[section].items() if type(part) is one]
    if not names:
        raise UserError(f"{section}: the default {type(part).__name__} is in no table; register it under a name")
    return {"name": names[0]} | {key: getattr(part, key) for key in settings_of(type(part))}


def build(section: str, given: Settings, **derived: Any) -> Any:
    """The part that a section names, made with the settings beside the name.

    Args:
      given: the section, a mapping with `name`, or the name alone.
      derived: arguments that follow from other parts of the config, and so may not be set.

    Raises:
      UserError: for a name or a key that there is not, or a value that the part refuses.
    """
    given = {"name": given} if isinstance(given, str) else given
    part = choose(section, given.get("name"))
    arguments = check(section, part, {key: value for key, value in given.items() if key != "name"})
    with concerning(section):
        return getattr(part, "from_spec", part)(**arguments, **derived)


def build_several(section: str, given: Settings, **derived: Any) -> dict[str, Any]:
    """Every part of a section that may hold several, by name."""
    made = {}
    for name, settings in given.items():
        part = choose(section, name)
        arguments = check(f"{section}.{name}", part, settings)
        with concerning(f"{section}.{name}"):
            made[name] = part(**arguments, **derived)
    return made


def check(section: str, part: Any, arguments: Settings) -> dict[str, Any]:
    """Arguments that the part's settings may be, with the parts inside it built.

    Raises:
      UserError: for a name that there is not, or a value that the setting may not have.
    """
    known = settings_of(part)
    for key in arguments:
        if key in getattr(part, "DERIVED", ()):
            raise UserError(f"config key '{section}.{key}' follows from other settings: remove it")
        if key not in known:
            raise UserError(f"config key '{section}.{key}' is unknown{closest(key, known)}{_owners(section, key)}")
    inner = {key: f"{section}.{key}" for key in arguments if f"{section}.{key}" in TABLES}
    with concerning(section):
        ranges.check(kinds_of(part), {key: value for key, value in arguments.items() if key not in inner})
    return {key: build(inner[key], value) if key in inner else value for key, value in arguments.items()}


def _owners(section: str, key: str) -> str:
    """The end of a message about a key that other parts of the same section have."""
    owners = [name for name, one in TABLES.get(section, {}).items() if key in settings_of(one)]
    return f"; {section}.name = {' or '.join(map(repr, owners))} has it" if owners else ""


def closest(key: str, known: Mapping[str, Any] | set[str]) -> str:
    """The end of a message about an unknown key: the most similar one, or all."""
    close = difflib.get_close_matches(key, list(known), n=1)
    return f": did you mean {close[0]!r}?" if close else f": there are {', '.join(sorted(known)) or 'none'}"
