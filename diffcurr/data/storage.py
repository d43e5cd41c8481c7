"""Where the user's files lie: a folder or a zip. Files are read whole, within a limit, and only regular ones."""

import abc
import contextlib
import lzma
import os
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator

from etils import epath

from diffcurr.data.sources import BadExample
from diffcurr.errors import UserError, first_line

MOST_BYTES = 2**29
"""Bytes of one file, or of one entry of a zip when it is unpacked."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


def shown(name: str) -> str:
    """A file's name in a message, on one line whatever it holds."""
    return name if name.isprintable() else repr(name)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's data: hidden, or what a Mac puts into its zips."""
    return name.startswith(".") or name == "__MACOSX"


@contextlib.contextmanager
def _unread() -> Iterator[None]:
    """Turns an error of the file system into one about an example."""
    try:
        yield
    except OSError as error:
        raise BadExample(f"cannot be read: {error.strerror or first_line(error)}") from error


class Storage(abc.ABC):
    """Files by name, with "/" between folders; those of `is_hidden` are left out.

    Attributes:
      path: the folder or zip.
      unreadable: name -> why, of files that are there and cannot be read.
      names: names of all files, unreadable ones too, sorted.
    """

    path: epath.Path
    unreadable: dict[str, str]
    names: list[str]

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """The whole file.

        Raises:
          BadExample: if it cannot be read, or is larger than MOST_BYTES.
        """

    @abc.abstractmethod
    def size(self, name: str) -> int:
        """The size of a file in bytes.

        Raises:
          BadExample: if it is not there any more.
        """

    def refuse(self, message: str) -> UserError:
        """An error about the whole of it."""
        return UserError(f"dataset.data_dir = {shown(os.fspath(self.path))}: {message}")

    def place_of(self, name: str) -> str:
        """Where a file lies, for a message."""
        return f"{shown(str(self.path))}: {shown(name)}"

    def refuse_file(self, name: str, problem: object) -> BadExample:
        """An error about one file."""
        return BadExample(f"{self.place_of(name)} {problem}")

    def _check(self, name: str, size: int) -> None:
        if name in self.unreadable:
            raise BadExample(self.unreadable[name])
        if size > MOST_BYTES:
            raise BadExample(f"has {size:,} bytes: more than {MOST_BYTES:,} are not read")


def open_storage(data_dir: str) -> Storage:
    """The files of a folder, `gs://` too, or of a zip; `~` is the home directory.

    Raises:
      UserError: if there is neither, or it cannot be read.
    """
    path = epath.Path(data_dir).expanduser()
    try:
        if path.is_dir():
            return _Remote(path) if "://" in data_dir else _Folder(path)
        if path.exists():
            return _Zip(path)
    except (OSError, ValueError) as error:
        raise UserError(f"dataset.data_dir = {shown(data_dir)}: cannot be read: {first_line(error)}") from error
    raise UserError(f"dataset.data_dir = {shown(data_dir)}: there is nothing there; give a folder or a zip")


class _Folder(Storage):
    def __init__(self, path: epath.Path):
        self.path, self.unreadable = path, {}
        self._root = os.fspath(path)
        self.names = sorted(self._walk())

    def _walk(self) -> Iterator[str]:
        """The names of all files. Links to folders are followed, except to one that they lie in."""
        root = os.stat(self._root)
        waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ((root.st_dev, root.st_ino),))]
        while waiting:
            prefix, above = waiting.pop()
            with os.scandir(os.path.join(self._root, prefix)) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if is_hidden(entry.name):
                        continue
                    if entry.is_symlink() and not os.path.exists(entry.path):
                        self.unreadable[name] = "is a link to nothing"
                    elif entry.is_dir():
                        found = os.stat(entry.path)  # an entry's own has no inode on Windows
                        if (found.st_dev, found.st_ino) not in above:
                            waiting.append((f"{name}/", (*above, (found.st_dev, found.st_ino))))
                        continue
                    elif not entry.is_file():
                        self.unreadable[name] = "is no regular file"
                    yield name

    def read(self, name: str) -> bytes:
        path = os.path.join(self._root, name)
        with _unread():
            found = os.stat(path)
            self._check(name, found.st_size)
            if not stat.S_ISREG(found.st_mode):  # a pipe would wait for someone to write
                raise BadExample("is no regular file")
            with open(path, "rb") as file:
                return file.read(found.st_size)

    def size(self, name: str) -> int:
        with _unread():
            return os.stat(os.path.join(self._root, name)).st_size


class _Remote(Storage):
    def __init__(self, path: epath.Path):
        self.path, self.unreadable = path, {}
        found = ((epath.Path(folder), names) for folder, _, names in path.walk())
        names = (str((folder / name).relative_to(path)) for folder, names in found for name in names)
        self.names = sorted(name for name in names if not any(map(is_hidden, name.split("/"))))

    def read(self, name: str) -> bytes:
        self._check(name, self.size(name))
        with _unread():
            return (self.path / name).read_bytes()

    def size(self, name: str) -> int:
        with _unread():
            return int((self.path / name).stat().length)


class _Zip(Storage):
    def __init__(self, path: epath.Path):
        self.path, self.unreadable = path, {}
        if "://" not in os.fspath(path) and not os.path.isfile(path):
            raise self.refuse("neither a folder nor a zip, but no regular file")
        try:
            self._archive = zipfile.ZipFile(path.open("rb"))
        except _DAMAGE as error:
            raise self.refuse(f"neither a folder nor a zip that can be read: {first_line(error)}") from error
        self._lock = threading.Lock()  # one file handle serves every thread
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in self._archive.infolist():
            name = self._name(entry.filename)
            if entry.is_dir() or any(map(is_hidden, name.split("/"))):
                continue
            if name in self._entries:
                raise self.refuse(f"two entries are named {shown(name)}: zip the files again")
            self._entries[name] = entry
            if entry.flag_bits & 0x1:
                self.unreadable[name] = "is encrypted: unpack the zip, and give the folder"
            elif entry.compress_type not in _METHODS:
                self.unreadable[name] = (
                    f"is compressed by method {entry.compress_type}: unpack the zip, and give the folder"
                )
        self.names = sorted(self._entries)

    def _name(self, filename: str) -> str:
        """An entry's name; some programs on Windows put backslashes into it, others a leading "./"."""
        parts = filename.replace("\\", "/").split("/")
        if not parts[0] or parts[0].endswith(":") or ".." in parts:
            raise self.refuse(f"the entry {shown(filename)} lies outside of the zip: zip the files again")
        return "/".join(part for part in parts if part not in ("", "."))

    def read(self, name: str) -> bytes:
        entry = self._entries[name]
        self._check(name, entry.file_size)
        try:
            with self._lock, self._archive.open(entry) as file:
                content = file.read(entry.file_size)  # never more than it claims, whatever is packed
        except _DAMAGE as error:
            raise BadExample(f"cannot be unpacked: {first_line(error)}") from error
        if len(content) != entry.file_size:
            raise BadExample(f"is cut off: {len(content):,} of {entry.file_size:,} bytes")
        return content

    def size(self, name: str) -> int:
        return self._entries[name].file_size
