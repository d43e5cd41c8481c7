"""A run of 12 steps that goes on to step 18, and how its end is judged after something of it was damaged."""

import json
import pathlib
import shutil
from collections.abc import Collection

from tests.chaos.campaign import Campaign
from tests.chaos.running import Ended, contents, differences, end_of

LOG, FIRST, LAST, GOAL = 2, 6, 12, 18
FLAGS = (
    f"--config.log_every={LOG}",
    f"--config.checkpoint_every={FIRST}",
    f"--config.sample_every={FIRST}",
    f"--config.evaluate_every={FIRST}",
    "--config.curriculum.clustering=relative_entropy",
    "--config.analysis.images=200",
    "--config.analysis.samples=64",
)
GO_ON = (*FLAGS, f"--config.steps={GOAL}")


def base(campaign: Campaign) -> tuple[pathlib.Path, dict[str, str], float]:
    """(a run of 12 steps, the end of the one that goes on from it undamaged, the seconds that this takes)."""
    folder, known = campaign.folder / "base", campaign.folder / "base" / "seconds.json"
    if known.exists():
        return folder / "run", end_of(folder / "whole"), json.loads(known.read_text())
    shutil.rmtree(folder, ignore_errors=True)
    place = campaign.place
    for workdir, steps in (("run", LAST), ("whole", GOAL)):
        made = place.start(folder / workdir, *FLAGS, f"--config.steps={steps}").end()
        if made.code != 0:
            raise SystemExit(f"an undamaged run fails: {made.words}")
    shutil.copytree(folder / "run", folder / "parts")
    ended = place.start(folder / "parts", *GO_ON).end()
    end = end_of(folder / "whole")
    different = differences(end_of(folder / "parts"), end) if ended.code == 0 else [ended.words]
    if campaign.due("undamaged"):
        failure = f"an undamaged run that goes on differs: {different[:5]}" if different else ""
        campaign.add("undamaged", "undamaged", "identical end", failure)
    known.write_text(json.dumps(ended.seconds))
    return folder / "run", end, ended.seconds


def same_end(
    ended: Ended, workdir: pathlib.Path, expected: dict[str, str], lost: Collection[str] = ()
) -> tuple[str, str]:
    """(outcome, failure) of a command that should end with 0 and as expected.

    Args:
      lost: names of the end, such as an earlier row of a damaged log, that may be other than expected.
    """
    warned = [line for line in ended.lines if line.startswith("WARNING: ")]
    if ended.code != 0 or "Traceback" in ended.err:
        return "", f"not an end with 0 and without a traceback: {ended.words}"
    try:
        different = differences(end_of(workdir), expected)
    except Exception as error:  # whatever a damaged file makes a library raise
        return "", f"its end cannot be read: {type(error).__name__}: {error}"
    outcome = "identical end" if not different else "identical but for what was damaged"
    different = [name for name in different if name not in lost]
    if different:
        return "", f"another end: {len(different)} differ, such as {different[:5]}; warned: {warned}"
    words = "WARNING, " if warned else "a library's words, " if ended.lines else ""
    return words + outcome, ""


def unchanged(before: dict[str, str], workdir: pathlib.Path) -> str:
    """What a refused command wrote or changed; "" if nothing. The lock is only a claim, not a result."""
    found = contents(workdir, but=(".lock",))
    return ", ".join(sorted(name for name in found | before if found.get(name) != before.get(name))[:5])
