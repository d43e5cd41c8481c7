"""If these fail, a run that is started again compiles its train step again, or ends with other bits for a cache."""

import json
import pathlib
import re
import subprocess
from collections.abc import Callable

import jax
import pytest

from diffcurr.errors import UserError
from diffcurr.training import compilation_cache

FLAGS = ("--config.steps=6", "--config.log_every=3", "--config.checkpoint_every=0")
COMPILED = re.compile(r"compiled in [^(\n]*( \(read from the compilation cache\))?\n")


def entries(cache: pathlib.Path) -> set[str]:
    return {path.name for path in cache.iterdir() if not path.name.endswith("-atime")}


def test_a_second_start_compiles_nothing(
    start: Callable[..., "subprocess.Popen[str]"], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the bits of a run are those of one without a cache, whose step was compiled there and then."""
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # also what takes no time to compile
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")
    cache, ends, written = tmp_path / "cache", [], []
    for name, flag in (("first", cache), ("second", cache), ("without", "")):
        process = start(tmp_path / name, *FLAGS, f"--compilation_cache={flag}")
        out, err = process.communicate(timeout=250)
        assert process.returncode == 0, err
        read = COMPILED.search(out)
        assert read is not None and bool(read[1]) == (name == "second"), out
        ends.append(json.loads((tmp_path / name / "checkpoints" / "6" / "integrity" / "metadata").read_text())["state"])
        written.append(entries(cache))
    assert written[0] and written[0] == written[1] == written[2]
    assert ends[0] == ends[1] == ends[2]


def test_a_folder_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    before = jax.config.jax_compilation_cache_dir
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match="--compilation_cache=.*file/cache: cannot be written .*: --compilation_cache=$"
    ):
        compilation_cache.use(str(tmp_path / "file" / "cache"))
    assert jax.config.jax_compilation_cache_dir == before
