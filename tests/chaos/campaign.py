"""A campaign: many cases, each a row of a file of JSON lines as soon as it is over, so that it can be stopped."""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from diffcurr.reporting.progress import Countdown, Line
from tests.chaos.running import ROOT, Place, mutant

PACKAGES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "optax", "grain", "numpy", "pillow", "safetensors")
MUTANTS = "self_test.jsonl"


@dataclasses.dataclass
class Fault:
    """A fault that is put into a copy of the program, and that the campaign must then report.

    Attributes:
      file, before, after: the text of a file that stands there once, and what takes its place.
      flags: of the campaign that must report it.
    """

    file: str
    before: str
    after: str
    flags: tuple[str, ...]


class Campaign:
    """The rows of one campaign: OUT/NAME.jsonl; what its commands leave lies in OUT/NAME.

    Args:
      given: the command's flags.
      total: about how many cases there are, for the time that is left.
    """

    def __init__(self, given: argparse.Namespace, total: int):
        self.given, self.total = given, total
        out = pathlib.Path(given.out).absolute()
        self.folder = out / given.campaign
        self.folder.mkdir(parents=True, exist_ok=True)
        self.place = Place(pathlib.Path(given.source).absolute(), self.folder)
        self._file = out / f"{given.campaign}.jsonl"
        rows = rows_of(self._file)
        self._file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.rows = {row["case"]: row for row in rows if "case" in row}
        self._countdown = Countdown(Line(), given.campaign, "cases")
        self._countdown(len(self.rows), max(total, len(self.rows) + 1))
        self._write({"conditions": conditions(self.place.source) | {"seed": given.seed}})

    def due(self, case: str) -> bool:
        """Whether a case has no row yet, and is one of those that were asked for."""
        return case not in self.rows and re.search(self.given.only, case) is not None

    def add(self, case: str, kind: str, outcome: str, failure: str = "", **facts: Any) -> None:
        """Notes a case that is over.

        Args:
          kind: what was tried, in the words of the report's table.
          outcome: what became of it, likewise; of a failure "failed".
          failure: what went wrong; "" if nothing did.
        """
        row = {"case": case, "kind": kind, "outcome": "failed" if failure else outcome, "failure": failure} | facts
        self.rows[case] = row
        self._write(row)
        if failure:
            print(f"FAILED {case}: {failure}", flush=True)
        self._countdown(len(self.rows), max(self.total, len(self.rows)))

    def _write(self, row: dict[str, Any]) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def finish(self) -> int:
        """Says how many failed. Returns the exit code."""
        failed = [row for row in self.rows.values() if row["failure"]]
        print(f"{self.given.campaign}: {len(self.rows)} cases, {len(failed)} failed; rows in {self._file}", flush=True)
        return 1 if failed or not self.rows else 0


def rows_of(file: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, without a last one that was cut off; none if there is no file."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def conditions(source: pathlib.Path) -> dict[str, Any]:
    """What a campaign ran on."""
    git = ["git", "-C", str(source)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", "diffcurr"], capture_output=True, text=True).stdout.strip()
    return {
        "started": time.strftime("%Y-%m-%d %H:%M"),
        "commit": (commit or "none") + (" with changes" if changed else ""),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def main(
    name: str,
    doc: str | None,
    run: Callable[[argparse.Namespace], int],
    faults: Sequence[Fault],
    flags: Callable[[argparse.ArgumentParser], object],
) -> int:
    """The command line of a campaign. Returns its exit code: 1 if a case failed, or if a fault went unreported.

    Args:
      run: runs the campaign with the parsed flags.
      faults: those of --self_test.
      flags: adds the flags that it has beside the common ones.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of the rows, and of what the commands leave")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn at random")
    parser.add_argument("--source", default=ROOT, help="the source tree whose program is tried")
    parser.add_argument("--self_test", action="store_true", help="try programs with a fault: each must be reported")
    parser.add_argument("--only", default="", help="regular expression of the cases to try, such as '^picture'")
    flags(parser)
    given = parser.parse_args()
    given.campaign = name
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that its commands are ended too
    return run(given) if not given.self_test else _self_test(given, parser, run, faults)


def _self_test(
    given: argparse.Namespace,
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int],
    faults: Sequence[Fault],
) -> int:
    missed = 0
    for number, fault in enumerate(faults):
        failed: list[set[str]] = []  # of the program as it is, and of the one with the fault
        for name, after in {"sound": fault.before, "faulty": fault.after}.items():
            out = pathlib.Path(given.out).absolute() / "self_test" / f"{given.campaign}_{number}_{name}"
            shutil.rmtree(out, ignore_errors=True)
            source = mutant(out / "source", fault.file, fault.before, after)
            flags = parser.parse_args([f"--out={out}", f"--seed={given.seed}", f"--source={source}", *fault.flags])
            flags.campaign = given.campaign
            run(flags)
            failed.append({row["case"] for row in rows_of(out / f"{given.campaign}.jsonl") if row.get("failure")})
        reported = bool(failed[1] - failed[0])
        missed += not reported
        words = f"{fault.file}: {fault.before!r} -> {fault.after!r}"
        print(f"self-test: {words}: {'reported' if reported else 'NOT REPORTED'}", flush=True)
        with (pathlib.Path(given.out) / MUTANTS).open("a") as file:
            file.write(json.dumps({"campaign": given.campaign, "fault": words, "reported": reported}) + "\n")
    return 1 if missed else 0
