"""Result files appear whole or not at all."""

import contextlib
import uuid
from collections.abc import Iterator

from etils import epath


@contextlib.contextmanager
def replacing(path: epath.PathLike) -> Iterator[epath.Path]:
    """Yields a temporary path beside `path`, of the same suffix; on success it is renamed over `path`, else removed.

    The folder must be there: to make one would bring back a workdir that was moved away.
    """
    path = epath.Path(path)
    # Not the process's id: on several machines that share the folder, two may have the same.
    temporary = path.parent / f".{path.stem}.{uuid.uuid4().hex[:12]}{path.suffix}"
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
