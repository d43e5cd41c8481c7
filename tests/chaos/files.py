"""Malformed files are given to the command: one line of error that names the file, and nothing else happens.

    python -m tests.chaos.files --out=FOLDER [--count=0]

Config files (also with the line at which they fail), the files of a run that goes on, the user's pictures, latents and
labels, and the features of an evaluation; see tests/chaos/malformed.py and tests/chaos/binaries.py. The command must
end with code 2 within 15 seconds and write nothing. Some files are sound, and must be taken.
"""

import argparse
import pathlib
import re
import shutil
import sys
from collections.abc import Callable

import numpy as np

from tests.chaos import binaries, malformed
from tests.chaos import campaign as campaign_lib
from tests.chaos.campaign import Campaign, Fault
from tests.chaos.data import make_latents, make_pictures, zipped
from tests.chaos.extended import unchanged
from tests.chaos.malformed import Case
from tests.chaos.running import TINY, Ended, contents

SECONDS = 15.0
RUN = ("--config.steps=4", "--config.log_every=2", "--config.checkpoint_every=2", "--config.sample_every=0")
GO_ON = (*TINY, *RUN, "--config.steps=6")
PICTURES = (*TINY, *RUN, "--config.dataset=imagenet64", "--config.network.patch_size=16", "--config.batch_size=8")
LATENTS = (
    "--config=digits:ddpm", "--config.dataset=ffhq256_latents", "--config.conditioning=none",
    "--config.sampling.clip=0.0", "--config.sampling.guidance=1.0", "--config.network.patch_size=16",
    "--config.network.hidden_size=8", "--config.network.depth=1", "--config.network.num_heads=1",
    "--config.batch_size=4", *RUN,
)  # fmt: skip
COMMANDS: dict[str, Callable[[str], tuple[str, ...]]] = {
    "config file": lambda file: (*TINY[1:], f"--config={file}", *RUN, "--config.steps=1"),
    "a run's config": lambda file: GO_ON,
    "a run's metrics": lambda file: GO_ON,
    "a run's evaluations": lambda file: GO_ON,
    "labels": lambda file: (*PICTURES, "--config.dataset.data_dir=data"),
    "picture": lambda file: (*PICTURES, "--config.dataset.data_dir=data"),
    "zip of pictures": lambda file: (*PICTURES, "--config.dataset.data_dir=data.zip"),
    "latent": lambda file: (*LATENTS, "--config.dataset.data_dir=data"),
    "features": lambda file: (*TINY, *RUN, "--job=evaluate", f"--config.evaluation.features={file}"),
}
"""Group of a case -> the flags of its command, given the file; all run in the case's folder, with the workdir run."""
FAULTS = (
    Fault("diffcurr/main.py", "except UserError as error:\n        print", "except KeyError as error:\n        print",
          ("--count=2",)),
    Fault("diffcurr/main.py", 'print(f"error: {error}", file=sys.stderr)', 'print("error: no", file=sys.stderr)',
          ("--count=2",)),
    Fault("diffcurr/main.py", "sys.exit(2)", "sys.exit(1)", ("--count=2",)),
)  # fmt: skip


def prepare(campaign: Campaign, folder: pathlib.Path, group: str) -> None:
    """Makes the folder of a case, with sound files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if group.startswith("a run's") or group == "features":
        run = campaign.folder / "base" / "run"
        if not (run / "checkpoints" / "4").exists():
            made = campaign.place.start(run, *RUN).end()
            if made.code != 0:
                raise SystemExit(f"a sound run fails: {made.words}")
        shutil.copytree(run, folder / "run")
    elif group == "latent":
        make_latents(folder / "data")
    elif group != "config file":
        make_pictures(folder / "data")
        if group == "zip of pictures":
            zipped(folder / "data")
            shutil.rmtree(folder / "data")


def tried(campaign: Campaign, case: Case) -> None:
    """Gives the file to the command."""
    name = f"{case.group}: {case.name}"
    if not campaign.due(name):
        return
    folder = campaign.folder / "case"
    prepare(campaign, folder, case.group)
    case.make(folder / case.file)
    before = contents(folder, but=(".lock",))
    flags = (*COMMANDS[case.group](case.file), "--workdir=run")
    ended = campaign.place.python(campaign.folder / "said", "-m", "diffcurr.main", *flags, cwd=folder).end(300)
    failure, outcome = judged(case, ended), "error line"
    if ended.code == 0 and not failure:
        outcome = "taken"
    elif not failure and (changed := unchanged(before, folder)):
        failure = f"refused, but wrote or changed {changed}"
    said = ended.lines[0][:300] if ended.lines else ""
    campaign.add(name, case.group, outcome, failure, said=said, seconds=round(ended.seconds, 1))


def judged(case: Case, ended: Ended) -> str:
    """What is wrong with what a command said and how it ended; "" if nothing."""
    if ended.code == 0 and case.expect != "error":
        return f"taken, with a traceback: {ended.words}" if "Traceback" in ended.err else ""
    if case.expect == "good":
        return f"a sound file is refused: {ended.words}"
    if case.expect == "interrupted":  # nobody can tell it from the key
        return "" if ended.code == 130 and len(ended.lines) == 1 else f"not one line and code 130: {ended.words}"
    wrong = ended.refusal(SECONDS)
    if wrong:
        return wrong
    if pathlib.Path(case.file).name not in ended.lines[0]:
        return f"does not name {case.file}: {ended.lines[0]}"
    return "" if re.search(case.words, ended.lines[0]) else f"does not say {case.words}: {ended.lines[0]}"


def run(given: argparse.Namespace) -> int:
    """The campaign. Returns the exit code."""
    cases = [*malformed.cases(), *binaries.cases()]
    order = np.random.default_rng(given.seed).permutation(len(cases))[: given.count or None]
    campaign = Campaign(given, total=len(order))
    for index in sorted(order):
        tried(campaign, cases[index])
    return campaign.finish()


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Those of this campaign alone."""
    parser.add_argument("--count", type=int, default=0, help="files, drawn at random; 0 for all")


if __name__ == "__main__":
    sys.exit(campaign_lib.main("files", __doc__, run, FAULTS, add_flags))
