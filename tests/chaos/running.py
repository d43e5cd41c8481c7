"""What the campaigns share: how a run is started and ended, the tiny config, what two ends of a run are compared by."""

import atexit
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from absl import logging
from PIL import Image

from diffcurr.reporting.writers import EVALUATIONS, METRICS, read_rows
from tests.jobs.test_resume import TIMING
from tests.tiny import FLAGS, saved_state

ROOT = pathlib.Path(__file__).parents[2]
TINY = [
    "--config=digits:ddpm",
    *FLAGS,
    "--config.curriculum.patience=4",
    "--config.evaluation.training_samples=140",
    "--config.evaluation.samples=140",
    "--config.evaluation.metrics.frechet_distance.resamples=2",
]
"""Flags of a run of seconds, in which each cluster gets its turn and samples can be evaluated."""

logging.set_verbosity(logging.ERROR)  # Orbax speaks of files that a part of a checkpoint does not have

NOTHING: Mapping[str, str] = {}
HOURS = 900.0  # seconds after which a run that should end by itself counts as one that hangs


@dataclasses.dataclass
class Running:
    """A command under way, the leader of a process group of its own; what it says goes to NAME.out and NAME.err."""

    process: "subprocess.Popen[bytes]"
    path: pathlib.Path
    began: float

    def kill(self) -> None:
        """Kills the whole group, which cannot be caught, and waits for the end of its leader."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self, seconds: float) -> bool:
        """Whether it ended by itself within so many seconds."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, seconds: float = HOURS) -> "Ended":
        """What became of it; it is killed if it takes longer."""
        by_itself = self.wait(seconds)
        took = time.monotonic() - self.began
        self.kill()
        atexit.unregister(self.kill)
        out, err = (self.path.with_suffix(end).read_text(errors="replace") for end in (".out", ".err"))
        return Ended(self.process.returncode if by_itself else None, out, err, took)


@dataclasses.dataclass
class Ended:
    """What became of a command; `code` is None if it had to be killed."""

    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        """What it said on standard error, line by line."""
        return [line for line in self.err.splitlines() if line.strip()]

    @property
    def words(self) -> str:
        """Its code and the end of what it said, for a report of a failure."""
        return f"exit code {self.code} after {self.seconds:.0f} s; stderr ends: {' / '.join(self.lines[-3:])[-600:]}"

    def refusal(self, seconds: float) -> str:
        """What is wrong with this end, if it should be one error line and code 2 in time; "" if nothing is."""
        if self.code is None:
            return f"did not end within {self.seconds:.0f} s: {self.words}"
        if self.code != 2 or len(self.lines) != 1 or not self.lines[0].startswith("error: "):
            return f"not one error line and code 2: {self.words}"
        return "" if self.seconds <= seconds else f"took {self.seconds:.0f} s of {seconds:.0f}: {self.lines[0]}"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where commands run: the source tree, and a folder that holds their caches, so that the user's stay untouched."""

    source: pathlib.Path
    folder: pathlib.Path

    def environment(self, changes: Mapping[str, str] = NOTHING) -> dict[str, str]:
        """That of a command: one CPU device, caches in the folder; JAX_COMPILATION_CACHE_DIR="" is none of programs."""
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        found = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"} | {
            "HOME": str(home),
            "MPLCONFIGDIR": str(self.folder / "matplotlib"),
            "PYTHONPATH": f"{self.source}:{ROOT}",  # the program from there, the workers of campaigns from here
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }
        return {key: value for key, value in (found | dict(changes)).items() if value}

    def python(
        self, log: pathlib.Path, *arguments: str, cwd: pathlib.Path | None = None, changes: Mapping[str, str] = NOTHING
    ) -> Running:
        """Starts Python there; `log` names its files of output, `changes` are to its environment."""
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = self.environment(changes)
        with log.with_suffix(".out").open("wb") as out, log.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=cwd or self.source,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        running = Running(process, log, time.monotonic())
        atexit.register(running.kill)  # a campaign that is stopped leaves nothing behind
        return running

    def start(
        self, workdir: pathlib.Path, *flags: str, name: str = "said", changes: Mapping[str, str] = NOTHING
    ) -> Running:
        """Starts `python -m diffcurr.main` with the tiny config; what it says is written beside the workdir."""
        command = ("-m", "diffcurr.main", *TINY, f"--workdir={workdir}", *flags)
        return self.python(workdir.with_name(f"{workdir.name}_{name}"), *command, changes=changes)


def steps_in(workdir: pathlib.Path) -> list[int]:
    """The steps of a workdir's checkpoints."""
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*") if path.name.isdigit())


def arrays_of(checkpoint: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays in a checkpoint's folder by name, on the host, whatever devices they were saved from."""
    state = saved_state(checkpoint)
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(state)}


def end_of(workdir: pathlib.Path) -> dict[str, str]:
    """All by which two ends of a run are compared: of the last checkpoint each array and each JSON item, and of the
    whole run each row (without timings), each evaluation and the pixels of each grid of samples.
    """
    step = max(steps_in(workdir))
    checkpoint = workdir / "checkpoints" / str(step)
    found = {"step": str(step)}
    for name, array in arrays_of(checkpoint).items():
        found[f"array {name}"] = f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    for file in checkpoint.glob("*/metadata"):
        found[f"item {file.parent.name}"] = file.read_text()
    for kind, log in (("row", METRICS), ("evaluation", EVALUATIONS)):
        for row in read_rows(workdir, log):
            name, values = f"{kind} {row['step']}", {key: value for key, value in row.items() if key not in TIMING}
            found[name] = found.get(name, "") + json.dumps(values)  # a step that is there twice is another end
    for file in (workdir / "samples").glob("[0-9]*.png"):
        found[f"samples {file.name}"] = pixels_of(file)
    return found


def pixels_of(picture: pathlib.Path) -> str:
    """A hash of a picture's pixels; "" if it cannot be read."""
    try:
        with Image.open(picture) as image:
            return hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()
    except (OSError, SyntaxError, ValueError):
        return ""


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """The names under which two ends differ."""
    return sorted(name for name in found | expected if found.get(name) != expected.get(name))


def contents(folder: pathlib.Path, but: Sequence[str] = ()) -> dict[str, str]:
    """File below a folder -> a hash of its content; folders, links and pipes by their kind alone."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name not in but:
            plain = path.is_file() and not path.is_symlink()
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest() if plain else "other"
    return found


def mutant(folder: pathlib.Path, file: str, before: str, after: str) -> pathlib.Path:
    """A copy of the source tree with a fault, by which a campaign shows that it reports one.

    Raises:
      ValueError: if the text that the fault takes the place of does not stand in the file just once.
    """
    text = (ROOT / file).read_text()
    if text.count(before) != 1:
        raise ValueError(f"{file}: {before!r} stands there {text.count(before)} times: the fault needs a new place")
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("diffcurr", "configs"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / file).write_text(text.replace(before, after))
    return folder
