"""Ways in which a file is damaged: what a full disk, a crash, a bad sector or a slip of the hand leave."""

import os
import pathlib
import shutil
from collections.abc import Callable

import numpy as np

Way = Callable[[pathlib.Path], None]


def half(path: pathlib.Path) -> None:
    """Cut to half its length."""
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: pathlib.Path) -> None:
    """Cut to nothing."""
    os.truncate(path, 0)


def bit(path: pathlib.Path) -> None:
    """The lowest bit of the byte in the middle is flipped; of an empty file, a byte is added."""
    content = bytearray(path.read_bytes() or b"\0")
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def removed(path: pathlib.Path) -> None:
    """Not there."""
    path.unlink()


def noise(path: pathlib.Path) -> None:
    """Random bytes, as many as there were."""
    size = max(16, path.stat().st_size)
    path.write_bytes(np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes())


def nulls(path: pathlib.Path) -> None:
    """NUL bytes, as many as there were: what a file system leaves of a file that was not yet written at a crash."""
    path.write_bytes(bytes(max(16, path.stat().st_size)))


def torn(path: pathlib.Path) -> None:
    """Without the second half of the last line."""
    content = path.read_bytes()
    last = len(content.rstrip(b"\n")) - content.rstrip(b"\n").rfind(b"\n") - 1
    path.write_bytes(content.rstrip(b"\n")[: -max(1, last // 2)])


def folder(path: pathlib.Path) -> None:
    """A folder in its place."""
    path.unlink()
    path.mkdir()


def plain_file(path: pathlib.Path) -> None:
    """A file in the place of a folder."""
    shutil.rmtree(path)
    path.write_text("a file\n")


FIVE: dict[str, Way] = {"cut to half": half, "emptied": emptied, "a bit": bit, "removed": removed, "noise": noise}
ALL: dict[str, Way] = FIVE | {"NUL bytes": nulls, "a torn last line": torn, "a folder": folder}
