"""The folder of a run: claimed by one run at a time, and by one config for good."""

import fcntl
import json
import os
from types import TracebackType
from typing import TextIO

import jax
from etils import epath
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr import config as config_lib
from diffcurr.errors import UserError

CONFIG_FILE = "config.json"


def check_config(workdir: epath.Path, config: ConfigDict) -> None:
    """Compares a config with the one that a workdir was made with, if it was.

    Raises:
      UserError: listing the keys that differ.
    """
    file = workdir / CONFIG_FILE
    if not file.exists():
        return
    changed = config_lib.differences(json.loads(file.read_text()), config)
    if changed:
        listed = ", ".join(f"{key}: {old!r} there, {new!r} here" for key, (old, new) in changed.items())
        raise UserError(
            f"workdir {workdir} was made with another config ({listed}): "
            f"choose another with --workdir, or give the same config"
        )


def check_path(workdir: epath.Path) -> None:
    """
    Raises:
      UserError: if the absolute path has a character that the checkpoint library reads as a pattern.
    """
    absolute = os.fspath(workdir) if "://" in os.fspath(workdir) else os.path.abspath(workdir)
    found = sorted(set(absolute) & set("[]*?"))
    if found:
        raise UserError(
            f"workdir {absolute}: its path has {' and '.join(found)}, with which no checkpoint could be read again; "
            f"choose another with --workdir"
        )


def cannot_be_written(workdir: epath.Path, error: Exception) -> UserError:
    """The error of a folder that cannot be written, to be raised."""
    return UserError(f"workdir {workdir} cannot be written ({error}): choose another with --workdir")


class Workdir:
    """A context in which this process owns the folder; the claim ends with the process, however that ends.

    Process 0 claims it for all. Folders on an object store (gs://) have no locks: there the claim is not made.
    """

    def __init__(self, path: epath.PathLike, config: ConfigDict):
        self.path = epath.Path(path)
        self._config = config
        self._lock: TextIO | None = None

    def __enter__(self) -> "Workdir":
        check_path(self.path)
        if jax.process_index() != 0:
            return self
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if "://" not in os.fspath(self.path):
                self._claim()
            check_config(self.path, self._config)
            with atomic_file.replacing(self.path / CONFIG_FILE) as temporary:
                temporary.write_text(json.dumps(config_lib.to_json(self._config), indent=2) + "\n")
        except (OSError, ImportError) as error:  # gs:// needs a package that a bare installation lacks
            self._release()
            raise cannot_be_written(self.path, error) from error
        except UserError:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _claim(self) -> None:
        self._lock = open(self.path / ".lock", "a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            owner = self._lock.read().strip()
            raise UserError(
                f"workdir {self.path} is in use by a run that is still active ({owner}): wait for it, stop it, or "
                f"choose another with --workdir"
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        self._lock.flush()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def read_config(workdir: epath.PathLike) -> ConfigDict:
    """The config that a workdir was made with, completed.

    Raises:
      UserError: if it holds none, or one that names a part that there is no longer.
    """
    file = epath.Path(workdir) / CONFIG_FILE
    if not file.exists():
        raise UserError(f"workdir {workdir} holds no {CONFIG_FILE}: is it a workdir of --job=train?")
    return config_lib.upgrade(json.loads(file.read_text()))
