"""What the campaigns found, as Markdown for docs/reliability.md: counts by kind, failures, and conditions.

python -m tests.chaos.report --out=FOLDER > docs/reliability.md
"""

import argparse
import collections
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tests.chaos.campaign import MUTANTS, rows_of

TITLES = {
    "kills": "Killed runs",
    "damage": "Damaged files",
    "settings": "Wrong settings",
    "files": "Malformed files",
}


def shown(text: str, most: int = 400) -> str:
    """Words on one line, without the folders and the name of the machine that they come from."""
    text = re.sub(r"(events\.out\.tfevents)\.[\w.-]+", r"\1.*", text)
    text = re.sub(r"/[^\s'\"]*/site-packages/", "", " ".join(text.split()))
    return re.sub(r"(?<![\w.])/(?:[^\s'\"/]+/)+", ".../", text)[:most]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def section(name: str, rows: list[dict[str, Any]]) -> str:
    """One campaign."""
    # A case that was tried again has several rows; a campaign that was stopped and started has several conditions.
    cases = list({row["case"]: row for row in rows if "case" in row}.values())
    failed = [row for row in cases if row["failure"]]
    kinds: dict[str, collections.Counter[str]] = {}
    for row in cases:
        kinds.setdefault(row["kind"], collections.Counter())[row["outcome"]] += 1
    counts = [
        (kind, sum(found.values()), ", ".join(f"{outcome}: {number}" for outcome, number in sorted(found.items())))
        for kind, found in kinds.items()
    ]
    parts = [
        f"## {TITLES[name]}",
        f"{len(cases):,} cases, {len(failed)} failed.",
        table(("what was tried", "cases", "what became of them"), counts),
    ]
    if name == "kills":
        parts.append(killed(cases))
    if failed:
        listed = (f"* `{shown(row['case'])}`: {shown(row['failure'])}" for row in failed)
        parts.append("Failed:\n\n" + "\n".join(listed))
    parts.append("Conditions: " + "; ".join(conditions(rows)) + ".")
    return "\n\n".join(parts)


def killed(cases: list[dict[str, Any]]) -> str:
    """Where the kills hit, and what they left."""
    places: dict[str, collections.Counter[str]] = {}
    for row in cases:
        for kill in row.get("kills", ()):
            places.setdefault(kill["phase"], collections.Counter())[row["kind"]] += 1
    kinds = ("one process", "two processes")
    rows = [(phase, *(found[kind] for kind in kinds)) for phase, found in places.items()]
    whole = [("all", *(sum(found[kind] for found in places.values()) for kind in kinds))]
    lingered = sum(row.get("lingered", 0) for row in cases)
    warnings = sum(row.get("warnings", 0) for row in cases)
    litter = sum(len(row.get("litter", ())) for row in cases)
    words = (
        f"Of the processes whose partner was killed, {lingered} had to be killed too. {warnings} WARNING lines came "
        f"when runs went on; {litter} half-made files were left behind at the end."
    )
    return table(("where the kills hit", *kinds), [*rows, *whole]) + "\n\n" + words


def conditions(rows: list[dict[str, Any]]) -> list[str]:
    """What a campaign ran on, each of its starts."""
    found = []
    for row in rows:
        if "conditions" in row:
            one = row["conditions"]
            packages = ", ".join(f"{name} {version}" for name, version in one["packages"].items())
            found.append(
                f"commit {one['commit']}, seed {one['seed']}, Python {one['python']}, {packages}, {one['machine']} "
                f"with {one['cores']} cores"
            )
    return list(dict.fromkeys(found))


def page(out: pathlib.Path) -> str:
    """The whole page."""
    parts = [
        "# What a run survives",
        "Written by `python -m tests.chaos.report`; the campaigns are in `tests/chaos`, each with its command.",
    ]
    parts += [section(name, rows) for name in TITLES if (rows := rows_of(out / f"{name}.jsonl"))]
    faults = {(row["campaign"], row["fault"]): row for row in rows_of(out / MUTANTS)}.values()  # the last of each
    if faults:
        found = [(row["campaign"], f"`{row['fault']}`", "yes" if row["reported"] else "NO") for row in faults]
        words = "Each campaign was tried on programs with a fault, made for this: it must report them."
        parts += ["## Faults on purpose", words, table(("campaign", "fault", "reported"), found)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of the campaigns' rows")
    print(page(pathlib.Path(parser.parse_args().out).absolute()), end="")
