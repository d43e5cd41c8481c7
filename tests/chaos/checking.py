"""A worker that gives configs with one wrong value to `from_config`: `python -m tests.chaos.checking PICTURES LATENTS`.

The arguments are folders of sound data, which some data sets need.

The question "cases" is answered with all of them; the question of a case's number, with what became of it.
"""

import contextlib
import copy
import functools
import inspect
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from diffcurr import config as config_lib
from diffcurr import experiment, parts, ranges
from diffcurr.errors import UserError
from tests.chaos.worker import serve
from tests.chaos.wrong import wrong_values

# What a part may need of the others, to be tried in turn until the config without a wrong value is taken.
SURROUNDINGS: list[dict[str, Any]] = [
    {},
    {"process": "flow", "sampling": {"solver": "heun"}},
    {"process": "edm", "sampling": {"solver": "heun"}},
    {"conditioning": "none", "sampling": {"guidance": 1.0}},
    {"conditioning": "none", "sampling": {"guidance": 1.0, "clip": 0.0}},
    {"sampling": {"clip": 0.0}},
    {"dataset": {"data_dir": sys.argv[1]}},
    {"dataset": {"data_dir": sys.argv[2]}, "sampling": {"clip": 0.0}},
    {"dataset": {"data_dir": sys.argv[2]}, "conditioning": "none", "sampling": {"guidance": 1.0, "clip": 0.0}},
    {"process": "flow", "sampling": {"solver": "sde"}},
    {"curriculum": {"clusters": 3, "clustering": {"name": "edges", "at": (0.0, 0.2, 0.5, 1.0)}}},
]
OUTLINE = "the outline"


class Case(NamedTuple):
    """One wrong value: of a part's setting, or of a key of the outline."""

    section: str
    part: str
    key: str
    what: str
    value: Any

    @property
    def path(self) -> str:
        """Where the value stands in a config."""
        if self.section == OUTLINE:
            return self.key
        inside = f".{self.part}" if isinstance(parts.TABLES[self.section], parts.Several) else ""
        return f"{self.section}{inside}.{self.key}"


def cases() -> Iterator[Case]:
    """Every wrong value of every setting; a setting that declares no kind is a case of its own, with no value."""
    for key, one in config_lib.KEYS.items():
        yield from _cases_of(OUTLINE, "", key, one.kind)
    for section, table in parts.TABLES.items():
        if not isinstance(table, parts.Several):
            named = (("no choice", "no such part"), ("number for a text", 3), ("None", None), ("a list", ["dit"]))
            yield from (Case(section, next(iter(table)), "name", what, value) for what, value in named)
        for name, part in table.items():
            kinds = parts.kinds_of(part)
            for key in parts.settings_of(part):
                if f"{section}.{key}" not in parts.TABLES:
                    yield from _cases_of(section, name, key, kinds.get(key, inspect.Parameter.empty))


def _cases_of(section: str, part: str, key: str, kind: Any) -> Iterator[Case]:
    try:
        for what, value in wrong_values(kind):
            yield Case(section, part, key, what, value)
    except LookupError as error:
        yield Case(section, part, key, str(error), None)


@functools.cache
def right_config(section: str, part: str) -> Any:
    """A config of that part that is taken, as plain values.

    Raises:
      UserError: if there is none, the message of the last that was tried.
    """
    plain = config_lib.complete(config_lib.load("digits:ddpm"))
    chosen: Any = {} if section == OUTLINE else {part: {}} if section == "evaluation.metrics" else {"name": part}
    refused: UserError | None = None
    for around in SURROUNDINGS:
        try:
            config = config_lib.changed(plain, around)
            if section != OUTLINE:
                named = _given(around, section)
                named = named if named.get("name", part) == part else {}
                config = config_lib.changed(config, config_lib.unflatten({section: named | chosen}))
            experiment.from_config(config)
            return config.to_dict()
        except UserError as error:
            refused = refused or error
    raise refused or UserError("no config was tried")


def _given(around: dict[str, Any], section: str) -> dict[str, Any]:
    """What a surrounding says of a section."""
    found: Any = around
    for name in section.split("."):
        found = found.get(name, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}


def tried(case: Case) -> dict[str, Any]:
    """What becomes of a case."""
    answer: dict[str, Any] = {"failure": "", "said": ""}
    try:
        plain = copy.deepcopy(right_config(case.section, case.part))
    except UserError as error:
        return answer | {"failure": f"the config without the wrong value is refused: {error}"}
    *outer, key = case.path.split(".")
    functools.reduce(lambda holder, name: holder[name], outer, plain)[key] = case.value
    compiled, began = COMPILED[0], time.monotonic()
    try:
        experiment.from_config(plain)
    except UserError as error:
        said = answer["said"] = str(error)
        if "\n" in said:
            answer["failure"] = f"more than one line: {said!r}"
        elif key not in said:
            answer["failure"] = f"does not name the key: {said}"
        elif not any(word in said for word in shown(case.value)):
            answer["failure"] = f"does not show the value: {said}"
    except BaseException as error:
        answer["failure"] = f"{type(error).__name__}: {error}"[:500]
    else:
        answer["failure"] = "taken without a word"
    if COMPILED[0] != compiled:
        answer["failure"] = answer["failure"] or "a program was compiled before it was refused"
    return answer | {"seconds": round(time.monotonic() - began, 2)}


def shown(value: Any) -> list[str]:
    """Ways to write a value in a message; a long one may be cut off."""
    forms = [value, list(value), tuple(value)] if isinstance(value, list | tuple) else [value]
    return [repr(form)[:40] for form in forms] + [ranges.shown(form) for form in forms]


COMPILED = [0]


def _listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
    del duration_secs, kwargs
    COMPILED[0] += event == "/jax/core/compile/backend_compile_duration"


def main() -> None:
    """Serves."""
    jax.monitoring.register_event_duration_secs_listener(_listen)
    everything = list(cases())

    def answer(question: Any) -> dict[str, Any]:
        if question != "cases":
            with contextlib.redirect_stdout(None):
                return tried(everything[question])
        return {"cases": [[*one[:4], repr(one.value)[:80], one.path] for one in everything]}

    serve(answer)


if __name__ == "__main__":
    main()
