"""JAX's cache of compiled programs on disk: a run that starts again reads its train step instead of compiling it."""

import os
from types import TracebackType
from typing import Any

import jax
from etils import epath

from diffcurr.errors import UserError, first_line

HIT, COMPILED = "/jax/compilation_cache/cache_hits", "/jax/core/compile/backend_compile_duration"


def use(folder: str) -> None:
    """Reads compiled programs from a folder, and writes new ones there.

    Args:
      folder: made if it is not there; "" for no cache, whatever the environment says.

    Raises:
      UserError: if it cannot be made or written.
    """
    path = epath.Path(os.path.expanduser(folder)) if folder else None
    if path is not None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            if "://" not in os.fspath(path) and not os.access(path, os.W_OK):
                raise PermissionError("it is read-only")
        except OSError as error:
            raise UserError(
                f"--compilation_cache={folder}: cannot be written ({first_line(error)}); name another folder, or none: "
                f"--compilation_cache="
            ) from error
    jax.config.update("jax_compilation_cache_dir", None if path is None else os.fspath(path))


class Watch:
    """A context that sees where a program comes from.

    Attributes:
      from_cache: whether it was read from the cache; False too where it was not compiled.
    """

    def __init__(self, program: str):
        """
        Args:
          program: the name of the function that is compiled.
        """
        self.from_cache = False
        self._program, self._hit = program, False

    def __enter__(self) -> "Watch":
        jax.monitoring.register_event_listener(self._see)
        jax.monitoring.register_event_duration_secs_listener(self._see_end)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        jax.monitoring.unregister_event_listener(self._see)
        jax.monitoring.unregister_event_duration_listener(self._see_end)

    def _see(self, event: str, **_: Any) -> None:
        self._hit |= event == HIT

    def _see_end(self, event: str, duration_secs: float, **about: Any) -> None:
        del duration_secs
        if event == COMPILED:  # whose own hit, if it was one, came just before
            if self._program in str(about.get("fun_name")):
                self.from_cache = self._hit
            self._hit = False
