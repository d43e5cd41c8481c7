"""Files of a run are damaged before it goes on: the damage is noticed or changes nothing; never another result.

    python -m tests.chaos.damage --out=FOLDER [--count=0] [--full=12]

A run of 12 steps with two checkpoints goes on to step 18. Every file of its newest checkpoint is damaged in five ways:
either what is restored is that checkpoint, bit for bit, or a WARNING says that the one before it is taken. A warm
process restores all of these; for every so many of them (--full) the command itself goes on, to the same end. Then
every other file that a run reads or writes (tests/chaos/sides.py).
"""

import argparse
import pathlib
import shutil
import sys

from tests.chaos import campaign as campaign_lib
from tests.chaos import sides
from tests.chaos.campaign import Campaign, Fault
from tests.chaos.extended import FIRST, GO_ON, LAST, base, same_end
from tests.chaos.ways import FIVE
from tests.chaos.worker import Worker

FAULTS = (
    Fault(
        "diffcurr/training/checkpoint.py",
        "except Exception as error:  # whatever a d",
        "except KeyError as error:  # ",
        ("--count=12", "--full=0", "--sides=0"),
    ),
    Fault(
        "diffcurr/training/checkpoint.py",
        "sorted(self._manager.all_steps(), reverse=True)",
        "sorted(self._manager.all_steps())",
        ("--count=3", "--full=0", "--sides=0"),
    ),
    Fault(
        "diffcurr/main.py",
        "except UserError as error:\n        print",
        "except KeyError as error:\n        print",
        ("--count=1", "--full=0", "--sides=3"),
    ),
)


def restored(campaign: Campaign, count: int) -> list[tuple[str, str]]:
    """Damages every file of the newest checkpoint in each way and restores. Returns the cases as (file, way)."""
    run, _, _ = base(campaign)
    newest = run / "checkpoints" / str(LAST)
    files = sorted(str(path.relative_to(newest)) for path in newest.rglob("*") if path.is_file())
    cases = [(file, way) for way in FIVE for file in files][: count or None]
    worker = Worker(campaign.place, "tests.chaos.restoring", str(run))
    good: dict[int, str] = {}
    for step in (FIRST, LAST):
        folder = copied(run, campaign.folder / "restored")
        for other in {FIRST, LAST} - {step}:
            shutil.rmtree(folder / str(other))
        found = worker.ask(str(folder), 120)
        assert found and found["step"] == step and not found["said"], found
        good[step] = found["hash"]
    for file, way in cases:
        case = f"newest checkpoint, restored: {file}, {way}"
        if not campaign.due(case):
            continue
        folder = copied(run, campaign.folder / "restored")
        FIVE[way](folder / str(LAST) / file)
        found = worker.ask(str(folder), 120)
        outcome, failure = "", ""
        if found is None:
            failure = f"the process that restores died, or took more than 120 s (see {worker.log})"
        elif found["error"]:
            failure = found["error"]
        elif found["step"] not in good or found["hash"] != good[found["step"]]:
            failure = f"another state, of step {found['step']}"
        elif "Traceback" in found["said"]:
            failure = f"step {found['step']}, as it should be, but with a traceback: {found['said'][-200:]!r}"
        elif found["step"] == LAST:
            outcome = "not read: the same state"
        else:
            outcome = "WARNING, the checkpoint before"
            if f"WARNING: falling back to checkpoint {FIRST}" not in found["said"]:
                failure = f"the checkpoint before is taken without a word: {found['said'][:500]!r}"
        kind = f"newest checkpoint, restored: {way}"
        campaign.add(
            case, kind, outcome, failure, seconds=found and found["seconds"], said=found and found["said"][:500]
        )
    worker.close()
    return cases


def copied(run: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """A fresh copy of a run's checkpoints, in a folder of their own."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run / "checkpoints", folder / "checkpoints")
    return folder / "checkpoints"


def commanded(campaign: Campaign, cases: list[tuple[str, str]], number: int) -> None:
    """The command itself for some of these cases, evenly chosen: the end must be that of the undamaged run."""
    run, expected, _ = base(campaign)
    for index in range(min(number, len(cases))):
        file, way = cases[index * len(cases) // number]
        case = f"newest checkpoint, gone on from: {file}, {way}"
        if not campaign.due(case):
            continue
        workdir = campaign.folder / "commanded" / "run"
        shutil.rmtree(workdir.parent, ignore_errors=True)
        shutil.copytree(run, workdir)
        FIVE[way](workdir / "checkpoints" / str(LAST) / file)
        ended = campaign.place.start(workdir, *GO_ON).end()
        outcome, failure = same_end(ended, workdir, expected)
        campaign.add(case, "newest checkpoint, gone on from", outcome, failure, seconds=round(ended.seconds, 1))


def run(given: argparse.Namespace) -> int:
    """The campaign. Returns the exit code."""
    campaign = Campaign(given, total=350 if not given.count else given.count + given.full + (given.sides or 0))
    cases = restored(campaign, given.count)
    commanded(campaign, cases, given.full)
    sides.run(campaign, given.sides)
    return campaign.finish()


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Those of this campaign alone."""
    parser.add_argument("--count", type=int, default=0, help="damages of the checkpoint's files; 0 for all")
    parser.add_argument("--full", type=int, default=12, help="of these, how many with the whole command")
    parser.add_argument("--sides", type=int, default=None, help="damages of other files; all if not given")


if __name__ == "__main__":
    sys.exit(campaign_lib.main("damage", __doc__, run, FAULTS, add_flags))
