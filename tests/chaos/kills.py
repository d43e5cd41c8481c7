"""Runs are killed anywhere and started again; each must end with the bits of one that was never killed.

    python -m tests.chaos.kills --out=FOLDER [--count=100] [--pairs=20]

A kill is SIGKILL to the whole process group, at a time drawn uniformly over the time of a whole run: imports, compile,
steps, saves, samples, evaluations. A run is killed up to five times, then the same command goes on until it ends by
itself. Every fourth run has an empty compilation cache of its own. Of runs in two processes, one or both are killed;
one that is left must end by itself within PATIENCE seconds, or it is killed and counted as one that lingered.
"""

import argparse
import json
import math
import pathlib
import re
import shutil
import sys
import time
from typing import Any

import numpy as np

from tests.chaos import campaign as campaign_lib
from tests.chaos.campaign import Campaign, Fault
from tests.chaos.running import Ended, Place, Running, differences, end_of
from tests.tiny import free_port

LOG, SAVE, SAMPLE, EVALUATE, STEPS = 2, 6, 8, 12, 48
FLAGS = (
    f"--config.steps={STEPS}",
    f"--config.log_every={LOG}",
    f"--config.checkpoint_every={SAVE}",
    f"--config.sample_every={SAMPLE}",
    f"--config.evaluate_every={EVALUATE}",
)
PATIENCE = 75.0  # seconds: 60 that a process waits for the others to come, and some
MOST_KILLS = 5  # of a run
FEW = ("--count=4", "--pairs=0")
FAULTS = (
    Fault("diffcurr/jobs/train.py", "batches.set_state(", "str(", ("--count=4", "--pairs=0")),
    Fault(
        "diffcurr/jobs/train.py",
        "MetricWriter(workdir, step",
        "MetricWriter(workdir, 10**9",
        ("--count=4", "--pairs=0"),
    ),
)


class Processes:
    """A run in one process or in two, as a campaign sees it."""

    def __init__(self, place: Place, workdir: pathlib.Path, number: int, changes: dict[str, str]):
        self.workdir = workdir
        joined = (f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={number}")
        self.running: list[Running] = []
        for index in range(number):
            flags = (*joined, f"--process_id={index}") if number > 1 else ()
            self.running.append(place.start(workdir, *FLAGS, *flags, name=f"said_{index}", changes=changes))

    def over(self) -> bool:
        """Whether any of them has ended."""
        return any(one.process.poll() is not None for one in self.running)

    def end(self, seconds: float) -> list[Ended]:
        """What became of each."""
        deadline = time.monotonic() + seconds
        return [one.end(max(0.1, deadline - time.monotonic())) for one in self.running]

    def where(self) -> dict[str, Any]:
        """What the run was doing: its last line, step and phase."""
        lines = self.running[0].path.with_suffix(".out").read_text(errors="replace").splitlines()
        last = lines[-1] if lines else ""
        steps = [int(found[1]) for line in lines if (found := re.match(r"step (\d+)/", line))]
        step = steps[-1] if steps else None
        sampled = step is not None and (self.workdir / "samples" / f"{step:08d}.png").exists()
        if not lines:
            phase = "starting"
        elif list(self.workdir.glob("checkpoints/*.orbax-checkpoint-tmp")):
            phase = "saving"
        elif step is None:
            phase = {"compiling": "compiling", "compiled": "training"}.get(last.partition(" ")[0], "opening")
        elif step % EVALUATE == 0 and sampled == (step % SAMPLE == 0) and last.startswith(f"step {step}/"):
            phase = "evaluating"
        elif step % SAMPLE == 0 and not sampled:
            phase = "sampling"
        else:
            phase = "closing" if step == STEPS else "training"
        return {"phase": phase, "step": step, "line": last[:120]}


def reference(campaign: Campaign, processes: int) -> tuple[dict[str, str], float]:
    """(the end of a run that is never killed and compiles all, seconds of one with a warm cache).

    A second run fills the cache and a third one reads it; both must end with the same bits.
    """
    folder = campaign.folder / f"reference_{processes}"
    known = folder / "seconds.json"
    if known.exists():
        return end_of(folder / "whole"), json.loads(known.read_text())
    shutil.rmtree(folder, ignore_errors=True)
    end: dict[str, str] = {}
    seconds = math.nan
    for name, cache in (("whole", {"JAX_COMPILATION_CACHE_DIR": ""}), ("fills the cache", {}), ("reads it", {})):
        ended = Processes(campaign.place, folder / name, processes, cache).end(900)
        if any(one.code != 0 for one in ended):
            raise SystemExit(f"a run that is never killed fails: {[one.words for one in ended]}")
        found = end_of(folder / name)
        end, seconds = end or found, max(one.seconds for one in ended)
        failure = f"differs in {differences(found, end)[:5]}" if found != end else ""
        case = f"reference, {processes} process(es): {name}"
        if campaign.due(case):
            campaign.add(case, "never killed", "identical end", failure, seconds=round(seconds, 1))
    known.write_text(json.dumps(seconds))
    return end, seconds


def trial(campaign: Campaign, case: str, processes: int, rng: np.random.Generator, own_cache: bool) -> dict[str, Any]:
    """Kills a run some times, lets it end, and compares. Returns the facts of the row, with `failure`."""
    expected, whole = reference(campaign, processes)
    folder = campaign.folder / re.sub(r"\W+", "_", case)
    shutil.rmtree(folder, ignore_errors=True)
    workdir, began = folder / "run", time.monotonic()
    changes = {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")} if own_cache else {}
    facts: dict[str, Any] = {"kills": [], "lingered": 0, "warnings": 0}
    for _ in range(int(rng.integers(1, MOST_KILLS + 1))):
        after = float(rng.uniform(0.0, whole * (1.5 if own_cache and not facts["kills"] else 1.0)))
        victims = ([0], [1], [0, 1])[int(rng.integers(3))] if processes == 2 else [0]
        run = Processes(campaign.place, workdir, processes, changes)
        deadline = time.monotonic() + after
        while time.monotonic() < deadline and not run.over():
            time.sleep(0.002)
        if run.over():
            ended = run.end(PATIENCE)
            if any(one.code != 0 for one in ended):
                return facts | {"failure": f"ended with an error by itself: {[one.words for one in ended]}"}
            break
        where = run.where()
        for victim in victims:
            run.running[victim].kill()
        facts["kills"].append({"after": round(after, 2), "victims": victims} | where)
        ended = run.end(PATIENCE)
        facts["lingered"] += sum(one.code is None for one in ended)
    ended = Processes(campaign.place, workdir, processes, changes).end(600)
    facts["warnings"] = sum(line.startswith("WARNING") for one in ended for line in one.lines)
    facts["seconds"] = round(time.monotonic() - began, 1)
    if any(one.code != 0 for one in ended):
        return facts | {"failure": f"does not go on: {[one.words for one in ended]}"}
    different = differences(end_of(workdir), expected)
    facts["litter"] = [str(path.relative_to(workdir)) for path in workdir.rglob("*") if is_litter(path)]
    if different:
        return facts | {"failure": f"another end: {len(different)} differ, such as {different[:5]}"}
    shutil.rmtree(folder)
    return facts | {"failure": ""}


def is_litter(path: pathlib.Path) -> bool:
    """Whether a file is one that a process left half made."""
    return ".orbax-checkpoint-tmp" in path.name or bool(re.match(r"\..*\.\d+\.\w+$", path.name))


def run(given: argparse.Namespace) -> int:
    """The campaign. Returns the exit code."""
    campaign = Campaign(given, total=math.ceil((given.count + given.pairs) / 3) + 6)
    for processes, number in ((1, given.count), (2, given.pairs)):
        kind = "one process" if processes == 1 else "two processes"
        for index in range(10 * number):
            if sum(len(row["kills"]) for row in campaign.rows.values() if row["kind"] == kind) >= number:
                break
            case = f"{kind}, run {index}"
            if campaign.due(case):
                rng = np.random.default_rng([given.seed, processes, index])
                facts = trial(campaign, case, processes, rng, own_cache=processes == 1 and index % 4 == 3)
                campaign.add(case, kind, "identical end", **facts)
    return campaign.finish()


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Those of this campaign alone."""
    parser.add_argument("--count", type=int, default=100, help="kills of runs in one process")
    parser.add_argument("--pairs", type=int, default=20, help="kills of runs in two processes")


if __name__ == "__main__":
    sys.exit(campaign_lib.main("kills", __doc__, run, FAULTS, add_flags))
