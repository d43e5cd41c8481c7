"""What a run logs, in Weights & Biases too: `--wandb=PROJECT`, with the extra `wandb`."""

import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from diffcurr import atomic_file
from diffcurr.errors import UserError, first_line
from diffcurr.reporting.writers import Row, scalars

FILE = "wandb.json"  # in a workdir: the project and the id of its run there
STEP = "step"


def require(project: str) -> None:
    """
    Raises:
      UserError: if the package is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise UserError(
            f"--wandb={project}: needs the package wandb ({first_line(error)}): pip install 'diffcurr[wandb]', or "
            f"'.[wandb]' from a checkout"
        ) from error
    del wandb


class WandbRun:
    """The run of a workdir in a project: rows, pictures of samples, and the config.

    Its id is kept in the workdir, so that a run that is continued is one run there too. Rows that were logged before a
    crash are not logged again: what is repeated is the same. Rows from before there was an id are logged first.
    """

    def __init__(self, workdir: epath.PathLike, project: str, config: Mapping[str, Any]):
        """
        Args:
          config: the whole config, JSON values.

        Raises:
          UserError: if the workdir is another project's, or the run cannot be opened.
        """
        import wandb  # only here: it is an extra

        self._wandb, workdir = wandb, epath.Path(workdir)
        file = workdir / FILE
        self._is_new = not file.exists()
        known = {"project": project, "id": secrets.token_hex(4)} if self._is_new else json.loads(file.read_text())
        if known["project"] != project:
            raise UserError(
                f"--wandb={project}: the run of this workdir is in the project {known['project']}: give that, or move "
                f"{file} away for a new run"
            )
        try:
            self._run = wandb.init(
                project=project,
                id=known["id"],
                resume="allow",
                name=workdir.absolute().name,
                config=dict(config),
                dir=None if "://" in os.fspath(workdir) else os.fspath(workdir),
                settings=wandb.Settings(console="off"),  # else it takes standard output, and the status line with it
            )
        except Exception as error:  # whatever a server, a login or a proxy may give
            raise UserError(
                f"--wandb={project}: {first_line(error)}: log in with `wandb login`, or set WANDB_MODE=offline"
            ) from error
        # Rows come one interval late, evaluations at once: the steps of W&B, which only rise, would drop some.
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)
        if self._is_new:
            with atomic_file.replacing(file) as temporary:
                temporary.write_text(json.dumps(known, indent=2) + "\n")
        self._logged: dict[str, int] = {}

    def begin(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Takes note of what was logged before.

        Args:
          rows: file -> all rows of the workdir, with those that will be dropped and written again.
        """
        for file, found in rows.items():
            for row in found if self._is_new else ():
                self.write(row["step"], {name: value for name, value in row.items() if name != "step"}, file)
            self._logged[file] = max((row["step"] for row in found), default=0)

    def write(self, step: int, values: Mapping[str, Any], file: str) -> None:
        """Logs a row, unless it was."""
        if step > self._logged.get(file, 0):
            self._run.log({**scalars(values), STEP: step})

    def picture(self, step: int, path: epath.Path) -> None:
        """Logs a grid of samples."""
        self._run.log({path.parent.name: self._wandb.Image(os.fspath(path)), STEP: step})

    def close(self) -> None:
        """Waits for what was logged to be sent, or written where it is offline; a run that is failing is shown so."""
        self._run.finish(exit_code=int(sys.exception() is not None))
