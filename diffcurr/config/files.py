"""Config files: the user's, or the packaged ones by their names."""

import contextlib
import importlib.util
import inspect
import os
import pathlib
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from diffcurr import ranges
from diffcurr.errors import UserError, first_line

MOVED = {f"imagenet256_{kind}_{size}_2": f"imagenet256:{kind}_{size}_2" for kind in ("dit", "sit") for size in "sbl"}
MOVED |= {f"imagenet256_{kind}_xl_2": f"imagenet256:{kind}_xl_2" for kind in ("dit", "sit")}
MOVED |= {"ffhq256_dit_b_2": "ffhq256"}
"""Former name of a config -> where it is now."""


def _folder() -> pathlib.Path:
    """The project's configs: inside the package where it is installed, beside it in a checkout."""
    package = pathlib.Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def split_name(name: str) -> tuple[pathlib.Path, str]:
    """(file, variant) of FILE.py[:VARIANT], or of the name of a packaged config, NAME[:VARIANT].

    Raises:
      UserError: if there is no such file.
    """
    path, _, variant = name.partition(":")
    file = pathlib.Path(path)
    if file.suffix != ".py" and len(file.parts) == 1:
        file = _folder() / f"{path}.py"
    if file.exists() and not file.is_file():
        raise UserError(f"--config={path}: is no regular file; give a Python file with get_config()")
    if not file.exists():
        if file.stem in MOVED:
            raise UserError(f"--config={name}: is now --config={MOVED[file.stem]}")
        known = ", ".join(sorted(one.stem for one in _folder().glob("*.py") if one.stem != "__init__"))
        raise UserError(f"--config={path}: there is no such file; give a path or one of {known}")
    return file, variant


def run_name(name: str) -> str:
    """The name of a config's run, for its folder: NAME or NAME_VARIANT."""
    file, variant = split_name(name)
    return file.stem + (f"_{variant}" if variant else "")


def load(name: str) -> ConfigDict:
    """The config that a file's `get_config` returns.

    Args:
      name: FILE.py or the name of a packaged config; behind a colon, the argument of its `get_config`.

    Raises:
      UserError: if there is no such file, it takes no such argument, or it fails: with the line at which it does.
    """
    file, variant = split_name(name)
    spec = importlib.util.spec_from_file_location(f"diffcurr_config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={name}: {os.fspath(file)} is no Python file: its name must end with .py")
    module = importlib.util.module_from_spec(spec)
    with _blaming(name, file):
        spec.loader.exec_module(module)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise UserError(f"--config={name}: {os.fspath(file)} has no get_config()")
    if variant and not inspect.signature(get_config).parameters:
        raise UserError(f"--config={name}: {os.fspath(file)} has no variants")
    with _blaming(name, file):
        config = get_config(variant) if variant else get_config()
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"--config={name}: get_config() of {os.fspath(file)} returns no ConfigDict, but {ranges.shown(config)}"
        )
    return config


@contextlib.contextmanager
def _blaming(name: str, file: pathlib.Path) -> Iterator[None]:
    """Turns whatever a config file raises into one line that names the file and, where it is one, the line."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, UserError | ValueError) and not isinstance(error, UnicodeError):
            raise UserError(f"--config={name}: {first_line(error)}{_line_of(error, file)}") from error
        what = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else first_line(error)}"
        raise UserError(f"--config={name}: {what}{_line_of(error, file)}") from error


def _line_of(error: BaseException, file: pathlib.Path) -> str:
    """Where in a config file an error was raised, for the end of a message."""

    def is_there(name: str | None) -> bool:
        return name is not None and os.path.abspath(name) == os.path.abspath(file)

    if isinstance(error, SyntaxError) and is_there(error.filename):
        return f" ({file}, line {error.lineno})"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if is_there(frame.filename)]
    return f" ({file}, line {lines[-1]})" if lines else f" ({file})"


def variant_of(name: str, table: Mapping[str, Any]) -> Any:
    """The entry of a config's table of variants.

    Raises:
      UserError: for another name.
    """
    if name not in table:
        raise UserError(f"variant {name!r}: choose one of {', '.join(table)}")
    return table[name]
