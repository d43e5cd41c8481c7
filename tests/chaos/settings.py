"""Wrong settings, made from the declared ranges themselves: each is refused, in one line with the key and the value.

    python -m tests.chaos.settings --out=FOLDER [--count=0] [--commands=40]

For every setting of every part and every key of the outline, values that are below, above, at an exclusive bound, not
finite, of another type, empty, or wrong within a sequence (tests/chaos/wrong.py). A warm process gives each to
`from_config`, as a config file would; that must raise UserError before anything is compiled or written. Some are given
as flags of the command, which must end with code 2 and one line of error within 15 seconds, and write nothing.
"""

import argparse
import shutil
import sys
from typing import Any

import numpy as np

from tests.chaos import campaign as campaign_lib
from tests.chaos.campaign import Campaign, Fault
from tests.chaos.data import make_latents, make_pictures
from tests.chaos.running import contents
from tests.chaos.worker import Worker, empty

SECONDS = 15.0
# A flag is a text, so that a value of another type may read as one of the right type.
AS_FLAGS = ("below", "above", "at an exclusive bound", "NaN", "infinite", "no choice", "fraction for an integer")
FAULTS = (
    Fault(
        "diffcurr/ranges.py",
        "return _of_type(value, base) and all(",
        "return True or all(",
        ("--count=30", "--commands=0"),
    ),
    Fault(
        "diffcurr/ranges.py",
        "abs(value) <= FLOAT_MAX  # false for NaN",
        "not abs(value) > FLOAT_MAX",
        ("--count=0", "--commands=0"),
    ),
    Fault("diffcurr/ranges.py", "{name} = {shown(value)}", "{name}", ("--count=30", "--commands=0")),
)


def tried(campaign: Campaign, worker: Worker, number: int, one: list[Any]) -> None:
    """One wrong value in the warm process."""
    section, part, _, what, value, path = one
    case = f"from_config: {part} {path} = {value}, {what}"
    if not campaign.due(case):
        return
    answer = worker.ask(number, SECONDS)
    failure = f"the process died or took more than {SECONDS:.0f} s" if answer is None else answer["failure"]
    if not failure and not empty(campaign.place):
        failure = "something was written"
    facts = {"said": answer["said"][:300], "seconds": answer.get("seconds")} if answer else {}
    campaign.add(case, what, "one line with key and value", failure, section=section, **facts)


def commanded(campaign: Campaign, one: list[Any]) -> None:
    """One wrong value as a flag."""
    section, part, _, what, value, path = one
    value = value.strip("'")
    case = f"command: {part} {path} = {value}, {what}"
    if not campaign.due(case):
        return
    folder = campaign.folder / "command"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    chosen = [f"--config.{section}={part}"] if part and section != "evaluation.metrics" else []
    command = ("-m", "diffcurr.main", "--config=digits:ddpm", *chosen, f"--config.{path}={value}", "--workdir=run")
    ended = campaign.place.python(campaign.folder / "said", *command, cwd=folder).end()
    failure = ended.refusal(SECONDS)
    if not failure and path.rpartition(".")[2] not in ended.lines[0]:
        failure = f"does not name the key: {ended.lines[0]}"
    if not failure and contents(folder):
        failure = f"wrote {', '.join(contents(folder))}"
    said = ended.lines[0][:300] if ended.lines else ""
    campaign.add(case, "as a flag", "error line, code 2", failure, said=said, seconds=round(ended.seconds, 1))


def run(given: argparse.Namespace) -> int:
    """The campaign. Returns the exit code."""
    campaign = Campaign(given, total=given.count or 1000)
    pictures, latents = campaign.folder / "pictures", campaign.folder / "latents"
    for folder, make in ((pictures, make_pictures), (latents, make_latents)):
        shutil.rmtree(folder, ignore_errors=True)
        make(folder)
    worker = Worker(campaign.place, "tests.chaos.checking", str(pictures), str(latents))
    listed = worker.ask("cases", 60)
    if listed is None:
        raise SystemExit(f"the cases cannot be listed: see {worker.log}")
    everything = listed["cases"]
    rng = np.random.default_rng(given.seed)
    chosen = sorted(rng.permutation(len(everything))[: given.count or None])
    campaign.total = len(chosen) + given.commands
    for number in chosen:
        tried(campaign, worker, int(number), everything[number])
    worker.close()
    flags = [one for one in everything if one[3] in AS_FLAGS]
    for number in sorted(rng.permutation(len(flags))[: given.commands]):
        commanded(campaign, flags[number])
    return campaign.finish()


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Those of this campaign alone."""
    parser.add_argument("--count", type=int, default=0, help="wrong values for from_config, drawn at random; 0 for all")
    parser.add_argument("--commands", type=int, default=40, help="wrong values as flags of the command")


if __name__ == "__main__":
    sys.exit(campaign_lib.main("settings", __doc__, run, FAULTS, add_flags))
