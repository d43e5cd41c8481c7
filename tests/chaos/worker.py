"""A process that is kept warm and answers many questions: a line of JSON for each line of JSON."""

import json
import os
import pathlib
import select
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.chaos.running import Place

STARTING = 300.0  # seconds in which it imports and prepares


class Worker:
    """The asking side. A worker that dies or takes too long is started again for the next question.

    Args:
      module: of this package, run with `arguments`; it calls `serve`.
    """

    def __init__(self, place: Place, module: str, *arguments: str):
        self._place, self._command = place, [sys.executable, "-m", module, *arguments]
        self._process: subprocess.Popen[str] | None = None
        self.log = place.folder / f"{module.rpartition('.')[2]}.err"

    def _start(self) -> "subprocess.Popen[str]":
        cwd = self._place.folder / "empty"
        cwd.mkdir(exist_ok=True)
        process = subprocess.Popen(
            self._command,
            cwd=cwd,
            env=self._place.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("a"),
            text=True,
        )
        self._process = process
        if self._answer(process, STARTING) is None:
            raise SystemExit(f"the worker {self._command[2]} does not start: see {self.log}")
        return process

    def _answer(self, process: "subprocess.Popen[str]", seconds: float) -> dict[str, Any] | None:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        line = process.stdout.readline() if ready else ""
        if not line:
            self.close()
            return None
        return dict(json.loads(line))

    def ask(self, question: Any, seconds: float) -> dict[str, Any] | None:
        """The answer; None if the worker died or did not answer in time."""
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        return self._answer(process, seconds)

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def serve(answer: Callable[[Any], dict[str, Any]]) -> None:
    """The answering side: prints one line when ready and one for each question; all other output goes to stderr."""
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=lines, flush=True)
    for question in sys.stdin:
        print(json.dumps(answer(json.loads(question))), file=lines, flush=True)


def empty(place: Place) -> bool:
    """Whether the folder in which workers run is as empty as it was."""
    return not list(pathlib.Path(place.folder / "empty").iterdir())
