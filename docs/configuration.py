"""Writes docs/configuration.md from the docstrings of the parts: `python -m docs.configuration`."""

import inspect
import pathlib
import re
from typing import Any

from diffcurr import config as config_lib
from diffcurr import experiment, parts, ranges

del experiment  # imported for the tables that it fills in
PAGE = pathlib.Path(__file__).with_suffix(".md")


def main() -> None:
    PAGE.write_text(page())


def page() -> str:
    """The whole page."""
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
        "| key | default | may be | meaning |",
        "|---|---|---|---|",
    ]
    for key, one in config_lib.KEYS.items():
        lines.append(f"| `{key}` | {_value(one.default)} | {ranges.describe(one.kind)} | {one.meaning} |")
    for section, registered in parts.TABLES.items():
        table = {
            name: part for name, part in registered.items() if part.__module__.startswith("diffcurr.")
        }  # no guests
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
    described, kinds, rows = descriptions(part), parts.kinds_of(part), []
    for key, default in parts.settings_of(part).items():
        inner = f"{section}.{key}"
        if inner in parts.TABLES:
            given = default is inspect.Parameter.empty
            name = "must be given" if given else f"`{parts.section_of(inner, default)['name']}`"
            rows.append(f"| `{key}` | {name} | a part: [{inner}](#{inner.replace('.', '')}) | {described[key]} |")
        else:
            rows.append(f"| `{key}` | {_value(default)} | {ranges.describe(kinds[key])} | {described[key]} |")
    return rows


def _table(rows: list[str]) -> list[str]:
    return ["| setting | default | may be | meaning |", "|---|---|---|---|", *rows, ""] if rows else []


def _value(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "must be given"
    return f"`{value!r}`" if value not in ("", (), {}) else ""


if __name__ == "__main__":
    main()
