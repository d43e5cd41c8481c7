import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import tiny
from data.lopsided import Lopsided, Strokes

from diffcurr.codecs import CODECS
from diffcurr.data.datasets import DATASETS

ROOT = pathlib.Path(__file__).parents[2]
TINY = [
    "--config=configs/digits.py:ddpm",
    *tiny.FLAGS,
    "--config.curriculum.patience=20",
    "--config.sample_every=0",
]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def lopsided_parts() -> Iterator[None]:
    """The data set and the codec of data/lopsided.py are parts like any other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CODECS, "lopsided", Lopsided)
        patch.setitem(DATASETS, "strokes", Strokes)
        yield


@pytest.fixture
def start() -> Start:
    """Starts `python -m diffcurr.main` on one device with a tiny network; further flags as arguments."""
    running: list[subprocess.Popen[str]] = []

    def start(workdir: pathlib.Path, *flags: str, tiny: bool = True) -> "subprocess.Popen[str]":
        environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
        process = subprocess.Popen(
            [sys.executable, "-m", "diffcurr.main", *(TINY if tiny else []), f"--workdir={workdir}", *flags],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start  # type: ignore[misc]
    for process in running:
        process.kill()
        process.communicate()
