"""The folder of a run: claimed by one run at a time, and by one config for good."""

import contextlib
import fcntl
import json
import os
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TextIO

import jax
from etils import epath
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr import config as config_lib
from diffcurr.errors import UserError, first_line
from diffcurr.training import distributed
from diffcurr.training.storage import storage_error

CONFIG_FILE = "config.json"
CHANGES_FILE = "changes.jsonl"  # what of the config was allowed to change, and when
DATA_FILE = "data.json"
CLASSES_FILE = "classes.json"
SAVED_FILE = "saved.json"
LOCK_FILE = ".lock"
WRITTEN = (".json", ".jsonl", ".png", ".npz", ".md", ".safetensors")  # ends of the names of files that a run writes
DATA = "data"  # stands for the examples in --allow_change


def check_config(
    workdir: epath.Path, config: ConfigDict, allowed: Sequence[str] | None = None
) -> dict[str, tuple[Any, Any]]:
    """Compares a config with the one that a workdir was made with, if it was.

    Args:
      allowed: keys that may differ, or sections of them; None where nothing may, whatever the user says.

    Returns:
      {key: (value there, value here)} of what differs and is allowed to.

    Raises:
      UserError: listing the keys that differ and are not allowed to, or if the workdir's config cannot be read.
    """
    known = config_lib.flatten(config_lib.to_json(config))
    for key in allowed or ():
        if key != DATA and key not in known and not any(one.startswith(key + ".") for one in known):
            raise UserError(f"--allow_change={key}: the config has no such key")
    if not (workdir / CONFIG_FILE).exists():
        return {}
    changed = config_lib.differences(config_lib.to_json(_read_config(workdir / CONFIG_FILE)), config)
    sections = allowed or ()
    may = {key: both for key, both in changed.items() if any(key == a or key.startswith(a + ".") for a in sections)}
    rest = {key: both for key, both in changed.items() if key not in may}
    if rest:
        listed = ", ".join(f"{key}: {old!r} there, {new!r} here" for key, (old, new) in rest.items())
        change = f", or go on with the change: {' '.join(f'--allow_change={key}' for key in rest)}"
        raise UserError(
            f"workdir {workdir} was made with another config ({listed}): choose another with --workdir, or give the "
            f"same config{'' if allowed is None else change}"
        )
    return may


def check_told(workdir: epath.Path, identity: Mapping[str, Any]) -> None:
    """Compares the text encoder and the codec's weights with those that a workdir was trained with.

    Args:
      identity: `Experiment.told_by`.

    Raises:
      UserError: naming what differs.
    """
    file = workdir / DATA_FILE
    before = _read_json(file) if identity and file.exists() else {}
    for name, value in identity.items():
        if name in before and before[name] != value:
            raise UserError(
                f"workdir {workdir} was trained with another {name} ({before[name]} there, {value} here): give the "
                f"weights that it was trained with"
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


def make_writable(folder: epath.Path, flag: str = "--workdir") -> None:
    """Makes the folder of a job's results, if need be, and tries it before the job computes them; in all processes.

    Args:
      flag: what names the folder on the command line.

    Raises:
      UserError: if it cannot be written.
    """

    def tried() -> None:
        probe = folder / f".{uuid.uuid4().hex}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except (OSError, ImportError) as error:  # gs:// needs a package that a bare installation lacks
            raise _cannot_be_written(folder, flag, error) from error

    distributed.on_primary(tried)


def _cannot_be_written(folder: epath.Path, flag: str, error: Exception) -> UserError:
    return UserError(f"{flag}={folder}: cannot be written ({first_line(error)}): name another folder")


def _check_files(workdir: epath.Path) -> None:
    """
    Raises:
      UserError: if a folder lies where the run will write a file, which would end it on the way.
    """
    for path in workdir.iterdir():
        if path.suffix in WRITTEN and path.is_dir():
            raise UserError(f"{path}: is a folder, where a run writes a file: move it, or choose another --workdir")


class Workdir:
    """A context in which this process owns the folder; the claim ends with the process, however that ends.

    Process 0 claims it for all. Folders on an object store (gs://) have no locks: there the claim is not made. A folder
    in which nothing was kept is removed again, so that a run that fails at its start leaves none behind.
    """

    def __init__(self, path: epath.PathLike, config: ConfigDict, allowed: Sequence[str] = ()):
        """
        Args:
          allowed: keys of the config that may differ from those that the folder was made with; `data` stands for the
            examples.
        """
        self.path = epath.Path(path)
        self.changed: dict[str, tuple[Any, Any]] = {}
        self._config, self._allowed = config, allowed
        self._lock: TextIO | None = None
        self._made: list[epath.Path] = []  # folders, the innermost first
        self._to_keep: dict[str, Mapping[Any, Any]] = {}  # file -> values, beside the config

    def __enter__(self) -> "Workdir":
        check_path(self.path)
        self.changed = check_config(self.path, self._config, self._allowed)
        distributed.on_primary(self._enter)
        return self

    def _enter(self) -> None:
        try:
            self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            _check_files(self.path)
            if "://" not in os.fspath(self.path):
                self._claim()
            self.changed = check_config(self.path, self._config, self._allowed)  # which now is nobody else's
        except (OSError, ImportError) as error:  # gs:// needs a package that a bare installation lacks
            self._release()
            raise _cannot_be_written(self.path, "--workdir", error) from error
        except UserError:
            self._release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _claim(self) -> None:
        while True:
            self._lock = open(self.path / LOCK_FILE, "a+")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.seek(0)
                owner = self._lock.read().strip()
                self._lock.close()
                self._lock = None
                raise UserError(
                    f"workdir {self.path} is in use by a run that is still active ({owner}): wait for it, stop it, or "
                    f"choose another with --workdir"
                ) from None
            if self._is_ours():  # and not a file that its last owner has just removed
                break
            self._lock.close()
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        self._lock.flush()

    def _is_ours(self) -> bool:
        assert self._lock is not None
        try:
            return os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.path / LOCK_FILE))
        except FileNotFoundError:
            return False

    def check(self) -> None:
        """
        Raises:
          UserError: if the folder is not the one that was claimed, so that what is written there now would mislead.
        """
        if self._lock is not None and not self._is_ours():
            raise UserError(
                f"workdir {self.path} was moved, removed or replaced during the run: what was saved is where it went; "
                f"name that with --workdir, and the same command goes on"
            )

    def check_state(self, state: Any, state_of: Callable[[ConfigDict], Any]) -> None:
        """Checks that what may change leaves the state its shape, so that the checkpoints can be read.

        Args:
          state: shapes of the state.
          state_of: gives the shapes of the state of a config.

        Raises:
          UserError: naming the keys.
        """
        if not self.changed:
            return
        if "ema.widths" in self.changed:
            raise UserError(
                "--allow_change=ema.widths: the averages that were kept are of other widths; start another run with "
                "--workdir"
            )
        both = [jax.tree_util.tree_leaves_with_path(one) for one in (state_of(read_config(self.path)), state)]
        before, after = ([(path, x.shape, x.dtype) for path, x in leaves] for leaves in both)
        if before != after:
            raise UserError(
                f"--allow_change={', '.join(self.changed)}: the state would have another shape, so its checkpoints "
                f"could not be read; start another run with --workdir"
            )

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Turns an error of writing to the folder into one line."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            self.check()
            if cause := storage_error(error, os.fspath(self.path)):
                raise UserError(
                    f"workdir {self.path}: cannot be written ({cause}); once it can, the same command goes on from the "
                    f"last checkpoint"
                ) from error
            raise

    def keep(self, step: int) -> None:
        """Makes the folder this config's for good: to be called once the run is known to work.

        Args:
          step: number of steps taken so far, for the record of what was changed.
        """
        if jax.process_index() != 0:
            return
        for file, values in self._to_keep.items():
            _write_json(self.path / file, values)
        _write_json(self.path / CONFIG_FILE, config_lib.to_json(self._config))
        if self.changed:
            with (self.path / CHANGES_FILE).open("a") as file:
                for key, (before, after) in self.changed.items():
                    file.write(json.dumps({"step": step, "key": key, "before": before, "after": after}) + "\n")
        self.changed, self._made = {}, []

    def check_data(self, identity: Mapping[str, Any], classes: Sequence[str] | None) -> None:
        """Compares the examples with those that the folder was made with; `keep` remembers them.

        Args:
          identity: what the examples are, JSON values.
          classes: the name of each class, where there are names.

        Raises:
          UserError: naming what differs, unless `data` may change.
        """
        self._to_keep[DATA_FILE] = identity
        if classes is not None:
            self._to_keep[CLASSES_FILE] = dict(enumerate(classes))
        file = self.path / DATA_FILE
        if not file.exists():
            return
        before = _read_json(file)
        differs = [name for name in identity if name in before and before[name] != identity[name]]
        if not differs:
            return
        if DATA not in self._allowed:
            listed = ", ".join(f"{name}: {before[name]} there, {identity[name]} here" for name in differs)
            raise UserError(
                f"workdir {self.path} was trained on other data ({listed}): give the same dataset.data_dir, choose "
                f"another --workdir, or go on with these: --allow_change={DATA}"
            )
        self.changed |= {f"{DATA}.{name}": (before[name], identity[name]) for name in differs}

    def has_saved(self) -> bool:
        """Whether a run here has saved a checkpoint, which may be gone."""
        return (self.path / SAVED_FILE).exists()

    def note_saved(self, step: int) -> None:
        """Remembers that there is a checkpoint."""
        if not self.has_saved():
            _write_json(self.path / SAVED_FILE, {"first_saved_step": step})

    def _release(self) -> None:
        if self._lock is None:
            return
        if self._made and self._is_ours() and os.listdir(self.path) == [LOCK_FILE]:
            (self.path / LOCK_FILE).unlink()
            for folder in self._made:
                if os.listdir(folder):
                    break
                folder.rmdir()
        self._lock.close()
        self._lock = None


def read_config(workdir: epath.PathLike) -> ConfigDict:
    """The config that a workdir was made with, completed.

    Raises:
      UserError: if it holds none, or one that cannot be read or names a part that there is no longer.
    """
    file = epath.Path(workdir) / CONFIG_FILE
    if not file.exists():
        raise UserError(f"workdir {workdir} holds no {CONFIG_FILE}: is it a workdir of --job=train?")
    return _read_config(file)


def _read_config(file: epath.Path) -> ConfigDict:
    found = _read_json(file)
    try:
        config = config_lib.upgrade(found)
        config_lib.check_keys(config)
        return config
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # its parts are of other types than were written
        raise UserError(f"{file}: is no config that diffcurr wrote ({first_line(error)}): bring that back") from error


def _read_json(file: epath.Path) -> dict[str, Any]:
    """
    Raises:
      UserError: if the file holds no JSON object.
    """
    try:
        if "://" not in os.fspath(file) and not stat.S_ISREG(os.stat(file).st_mode):
            raise OSError("no regular file")  # to read from a pipe would wait forever
        found = json.loads(file.read_text())
    except (ValueError, OSError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise UserError(f"{file}: cannot be read ({first_line(error)}): bring back the file that was there") from error
    if not isinstance(found, dict) or not found:
        raise UserError(f"{file}: holds no JSON object with keys: bring back the file that was there")
    return found


def _write_json(file: epath.Path, values: Mapping[Any, Any]) -> None:
    with atomic_file.replacing(file) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")
