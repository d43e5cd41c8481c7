"""Every file beside the checkpoints that a run reads or writes is damaged: its logs, its claim, its curve, its caches,
and the user's data. A run then ends as if nothing were, perhaps with a WARNING, or it is refused in one line.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator

from tests.chaos.campaign import Campaign
from tests.chaos.data import make_pictures, zipped
from tests.chaos.extended import FLAGS, GO_ON, LAST, base, same_end, unchanged
from tests.chaos.running import Ended, contents, end_of, pixels_of, steps_in
from tests.chaos.ways import ALL, FIVE, plain_file

TEXTS = (".json", ".jsonl")
SECONDS = 15.0  # within which a run is refused, beside the time of a whole run, most of which is compiling
EVALUATE = (*FLAGS, f"--config.steps={LAST}", "--job=evaluate")
PICTURES = (
    "--config.dataset=imagenet64",
    "--config.network.patch_size=16",
    "--config.batch_size=8",
    "--config.sample_every=0",
    "--config.log_every=2",
    "--config.checkpoint_every=2",
)


@dataclasses.dataclass
class Case:
    """Damage, a command, and what is to become of it.

    Attributes:
      path: what is damaged, in the case's folder, which holds a copy of `source`.
      judge: (end of the command, folder, content of the run's folder before) -> (outcome, failure).
    """

    kind: str
    path: str
    way: str
    source: pathlib.Path
    flags: Callable[[pathlib.Path], list[str]]
    judge: Callable[[Ended, pathlib.Path, dict[str, str]], tuple[str, str]]


def run(campaign: Campaign, most: int | None) -> None:
    """Tries every case, or the first so many."""
    if most == 0:
        return
    for index, case in enumerate(cases(campaign)):
        name = f"{case.kind}: {case.path}, {case.way}"
        if (most is not None and index >= most) or not campaign.due(name):
            continue
        folder = campaign.folder / "side"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(case.source, folder)
        shutil.copytree(campaign.place.folder / "home", folder / "home", dirs_exist_ok=True)
        (ALL | {"a file": plain_file})[case.way](folder / case.path)
        before = contents(folder / "run", but=(".lock",))
        ended = campaign.place.start(folder / "run", *case.flags(folder), changes={"HOME": str(folder / "home")}).end()
        outcome, failure = case.judge(ended, folder, before)
        campaign.add(name, case.kind, outcome, failure, seconds=round(ended.seconds, 1), said=ended.lines[:3])


def cases(campaign: Campaign) -> Iterator[Case]:
    """All of them."""
    made, expected, whole = base(campaign)
    limit, source = SECONDS + whole, made.parent / "alone"
    if not source.exists():
        shutil.copytree(made, source / "run")
    cached = [str(p.relative_to(campaign.place.folder)) for p in campaign.place.folder.glob("home/.cache/diffcurr/*")]

    def refused(ended: Ended, folder: pathlib.Path, before: dict[str, str]) -> tuple[str, str]:
        changed = unchanged(before, folder / "run")
        return "error line", ended.refusal(limit) or (changed and f"refused, but wrote or changed {changed}")

    def gone_on(ended: Ended, folder: pathlib.Path, before: dict[str, str], path: str) -> tuple[str, str]:
        if ended.code == 2:
            return refused(ended, folder, before)
        rows = {"run/metrics.jsonl": "row", "run/evaluations.jsonl": "evaluation"}
        lost = [f"samples {pathlib.Path(path).name}"]
        if path in rows:  # rows that are written again must be right: those after the checkpoint
            lost = [name for name in expected if name.startswith(f"{rows[path]} ") and int(name.split()[-1]) <= LAST]
        return same_end(ended, folder / "run", expected, lost)

    def evaluated(ended: Ended, folder: pathlib.Path, before: dict[str, str]) -> tuple[str, str]:
        if ended.code == 2:
            return refused(ended, folder, before)
        if ended.code != 0 or "Traceback" in ended.err:
            return "", f"not an end with 0 and without a traceback: {ended.words}"
        same = (folder / "run" / "evaluation.json").read_text() == evaluation(campaign, source)
        return "identical evaluation", "" if same else "another evaluation.json"

    files = sorted(
        str(p.relative_to(source)) for p in source.rglob("*") if p.is_file() and "checkpoints" not in p.parts
    )
    for path in [*files, *cached]:
        kind = "feature cache, train" if path in cached else f"run's {path.removeprefix('run/')}"
        for way in ways_for(path):
            yield Case(
                kind.partition(".tfevents")[0],
                path,
                way,
                source,
                lambda folder: list(GO_ON),
                functools.partial(gone_on, path=path),
            )
    for path in ("run/samples", "run/checkpoints"):
        yield Case(
            "run's folders",
            path,
            "a file",
            source,
            lambda folder: list(GO_ON),
            functools.partial(gone_on, path=""),
        )
    for path in ("run/config.json", "run/relative_entropy.npz", *cached):
        for way in [*FIVE, "a folder"]:
            yield Case("job evaluate", path, way, source, lambda folder: list(EVALUATE), evaluated)
    yield from data_cases(campaign, limit)


def ways_for(path: str) -> list[str]:
    """The ways that make sense for a file: only texts have lines."""
    return [way for way in ALL if way != "a torn last line" or path.endswith(TEXTS)]


def evaluation(campaign: Campaign, source: pathlib.Path) -> str:
    """The evaluation.json of the undamaged run."""
    folder = campaign.folder / "evaluated"
    if not (folder / "run" / "evaluation.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        ended = campaign.place.start(folder / "run", *EVALUATE).end()
        if ended.code != 0:
            raise SystemExit(f"an undamaged run is not evaluated: {ended.words}")
    return (folder / "run" / "evaluation.json").read_text()


def data_cases(campaign: Campaign, limit: float) -> Iterator[Case]:
    """The user's own pictures, in a folder and in a zip, damaged between two parts of a run."""
    source = campaign.folder / "pictures"
    ends = {}
    if not (source / "whole_zip").exists():
        shutil.rmtree(source, ignore_errors=True)
        make_pictures(source / "data")
        zipped(source / "data")
    for data in ("data", "data.zip"):
        for name, steps in (("run", 4), ("whole", 8)):
            workdir = source / f"{name}_{data[-3:]}"
            if not workdir.exists():
                flags = (*PICTURES, f"--config.dataset.data_dir={source / data}", f"--config.steps={steps}")
                ended = campaign.place.start(workdir, *flags).end()
                if ended.code != 0:
                    raise SystemExit(f"a run on undamaged pictures fails: {ended.words}")
        ends[data] = end_of(source / f"whole_{data[-3:]}")

    def judged(ended: Ended, folder: pathlib.Path, before: dict[str, str], data: str, path: str) -> tuple[str, str]:
        if ended.code == 2:
            changed = unchanged(before, folder / "run")
            # An older checkpoint makes room for a newer one.
            gone = max(steps_in(source / f"run_{data[-3:]}")) > max(steps_in(folder / "run"), default=0)
            outcome = "error line on the way" if changed else "error line"
            return outcome, ended.refusal(limit) or ("lost its newest checkpoint" if gone else "")
        outcome, failure = same_end(ended, folder / "run", ends[data])
        if failure.startswith("another end") and readable(folder / path):
            return "other data, which can be read", ""
        return outcome, failure

    for data, path in (
        ("data", "data/dataset.json"),
        ("data", "data/00.png"),
        ("data", "data/20.png"),
        ("data.zip", "data.zip"),
    ):
        together = campaign.folder / f"pictures_{data[-3:]}"
        if not together.exists():
            shutil.copytree(source / f"run_{data[-3:]}", together / "run")
            if data == "data":
                shutil.copytree(source / data, together / data)
            else:
                shutil.copy(source / data, together / data)
        for way in ways_for(path):
            yield Case(
                "the user's data",
                path,
                way,
                together,
                functools.partial(with_data, data),
                functools.partial(judged, data=data, path=path),
            )


def with_data(data: str, folder: pathlib.Path) -> list[str]:
    """The flags of a run that goes on with the data in a folder."""
    return [*PICTURES, f"--config.dataset.data_dir={folder / data}", "--config.steps=8"]


def readable(path: pathlib.Path) -> bool:
    """Whether a damaged file of data still is one, so that nobody can know that it was another."""
    if path.suffix == ".png":
        return path.is_file() and pixels_of(path) != ""
    try:
        return all(isinstance(label, int) for _, label in json.loads(path.read_text())["labels"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
