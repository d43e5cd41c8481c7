"""Where examples come from: arrays in memory, or TFDS builders, prepared once as array_record files.

A source is anything with `len` and integer indexing that gives {"image": [H, W, C], "label": int}; reading one never
imports TensorFlow. Only preparing a TFDS data set does.
"""

import contextlib
import hashlib
import importlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlparse

import grain
import numpy as np
from etils import epath
from jaxtyping import Int

from diffcurr import atomic_file
from diffcurr.data.on_threads import each
from diffcurr.errors import UserError, first_line
from diffcurr.tensorflow_cpu import import_tensorflow

Source: TypeAlias = grain.sources.RandomAccessDataSource
"""`len` and integer indexing; here each item is {"image": [H, W, C], "label": int}."""


class BadExample(UserError):
    """An example that cannot be read; the message names its file and the reason."""


def identity(source: Source) -> dict[str, Any]:
    """What tells the data of a source from other data, as JSON values, to be compared when a run continues.

    It has at least "examples", their number. Sources of this project add a short hash of each thing that could differ
    (names, sizes, labels, ...), so that a message can say which does; a guest's may do so in a method `identity`.
    """
    own = source.identity() if hasattr(source, "identity") else {}
    return {"examples": len(source)} | own


def name_of(source: Source, index: int) -> str:
    """The name of an example in messages: what the source's own method `name_of` says, or its number."""
    name: str = source.name_of(index) if hasattr(source, "name_of") else f"example {index}"
    return name


def skipped(source: Source) -> int:
    """How many examples could not be read and are left out, where the source counts them in `skipped`."""
    return getattr(source, "skipped", 0)


def fingerprint(*parts: bytes) -> str:
    """A short hash of some bytes; where one part ends and the next begins counts too."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()[:16]


class ArraySource:
    """Images and labels held in memory."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self._images[index], "label": self._labels[index]}

    def __repr__(self) -> str:
        return f"ArraySource({len(self)} images of shape {self._images.shape[1:]})"

    def identity(self) -> dict[str, Any]:
        """Hashes at most 1,000 of the images, evenly spaced."""
        some = np.linspace(0, len(self) - 1, min(len(self), 1000)).astype(int)
        images, labels = np.asarray(self._images[some]), np.asarray(self._labels)
        kind = f"{images.dtype.str} {images.shape[1:]}".encode()
        return {"images": fingerprint(kind, images.tobytes()), "labels": fingerprint(labels.astype("<i8").tobytes())}


class Part:
    """Some examples of a source."""

    def __init__(self, source: Source, indices: np.ndarray):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[int(self._indices[index])]

    def __repr__(self) -> str:
        return f"Part({len(self)} of {self._source!r})"

    @property
    def classes(self) -> Any:
        """The names of the classes; None where the source has none."""
        return getattr(self._source, "classes", None)

    @property
    def skipped(self) -> int:
        """How many examples of the whole source could not be read and are left out."""
        return skipped(self._source)

    def name_of(self, index: int) -> str:
        """The name of an example in messages."""
        return name_of(self._source, int(self._indices[index]))

    @property
    def labels(self) -> Int[np.ndarray, " example"]:
        """The labels of these examples; only if the source knows those of all."""
        labels: Int[np.ndarray, " example"] = self._source.labels[self._indices]
        return labels

    def captions(self, of: Iterable[int] | None = None) -> list[str]:
        """See `captions.Captioned`; only if the source is one."""
        indices = self._indices if of is None else self._indices[np.array([*of], int)]
        return self._source.captions(indices.tolist())

    def identity(self) -> dict[str, Any]:
        chosen = fingerprint(np.asarray(self._indices).astype("<i8").tobytes())
        return identity(self._source) | {"examples": len(self), "part": chosen}


class Prepared:
    """A split that TFDS has prepared."""

    def __init__(self, source: Source, identity: dict[str, Any], builder: Any):
        self._source, self._identity, self._builder = source, identity, builder

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[index]

    def __repr__(self) -> str:
        return repr(self._source)

    def identity(self) -> dict[str, Any]:
        return self._identity

    def fields(self, *names: str) -> list[dict[str, Any]]:
        """Some fields of every example, small ones, as JSON values; pictures are not decoded.

        They are read once, and kept in a file beside the shards, since reading them is reading everything.
        """
        import tensorflow_datasets as tfds

        kept = self._builder.data_path / f"fields-{fingerprint(repr((self._identity, names)).encode())}.json"
        with contextlib.suppress(OSError, ValueError):
            found: list[dict[str, Any]] = json.loads(kept.read_text())
            return found
        images = [
            name for name, feature in self._builder.info.features.items() if isinstance(feature, tfds.features.Image)
        ]
        undecoded = {name: tfds.decode.SkipDecoding() for name in images}
        raw = self._builder.as_data_source(split=self._identity["split"], decoders=undecoded)

        def read(index: int) -> dict[str, Any]:
            example = raw[index]
            return {name: _plain(example[name]) for name in names}

        found = list(each(read, range(len(raw)), f"reading {', '.join(names)} of {self._identity['name']}"))
        with contextlib.suppress(OSError), atomic_file.replacing(kept) as temporary:  # a folder may be read-only
            temporary.write_text(json.dumps(found))
        return found


def _plain(value: Any) -> Any:
    """A field as TFDS reads it, as JSON values; bytes are text."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray | list):
        return [_plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def open_tfds(name: str, split: str, data_dir: str, *, module: str = "", unused: str = "") -> Prepared:
    """A split of a TFDS builder, which is prepared as array_record files first if it is not there.

    Args:
      module: defines the builder, if TFDS does not.
      unused: what is in the URLs of files that the builder knows of and does not fetch.

    Raises:
      UserError: if TFDS is not installed, the data set is neither prepared nor can its files be had, or there is no
        such split.
    """
    try:
        import tensorflow_datasets as tfds  # only here: it costs a second, and a bare installation lacks it
    except ModuleNotFoundError as error:
        raise UserError(f"data set {name} needs {error.name}: pip install 'diffcurr[tfds]'") from error

    if module:
        importlib.import_module(module)  # makes the name known to TFDS
    folder = epath.Path(data_dir).expanduser() if data_dir else None
    builder = tfds.builder(name, data_dir=folder, file_format="array_record")
    if not builder.data_path.exists():
        prepare(builder, unused)
    there = [part.split("[")[0] for part in split.split("+")]
    if not set(there) <= set(builder.info.splits):
        raise UserError(f"dataset.split = {split!r}: {name} has {', '.join(sorted(builder.info.splits))}")
    stored = [builder.info.splits[part] for part in there]
    shards = fingerprint(*(repr((one.num_bytes, list(one.shard_lengths))).encode() for one in stored))
    known = {"name": name, "version": str(builder.info.version), "split": split, "shards": shards}
    try:
        source = builder.as_data_source(split=split)
    except ValueError as error:  # a malformed slice
        raise UserError(f"dataset.split = {split!r}: {first_line(error)}") from error
    return Prepared(source, known, builder)


def prepare(builder: Any, unused: str = "") -> None:
    """Downloads (or takes from the manual folder) and prepares a TFDS data set, once. Imports TensorFlow.

    Args:
      unused: see `open_tfds`.

    Raises:
      UserError: within about ten seconds, if a file is neither in the manual folder nor its host reachable: which
        file, where from, where to put it.
    """
    root = epath.Path(builder.data_path).parents[2 if builder.builder_config else 1]
    manual_dir = root / "downloads" / "manual"
    wanted = [(url, file) for url, file in builder.url_infos.items() if not unused or unused not in url]
    missing = [(url, file) for url, file in wanted if not (manual_dir / str(file.filename)).exists()]
    files = "; ".join(f"{file.filename} (from {url})" for url, file in missing or wanted)
    remedy = f"Fetch {files} elsewhere, put it into {manual_dir}, and run again."
    if command := getattr(builder, "FETCHED_BY", ""):
        remedy = f"{remedy[:-1]}; or run {command.format(root)} first."
    unreachable = _unreachable([url for url, _ in missing])
    if unreachable:
        raise UserError(
            f"data set {builder.name} is not prepared in {builder.data_path}, and {', '.join(unreachable)} cannot be "
            f"reached. {remedy}"
        )
    import_tensorflow()
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    print(f"preparing data set {builder.name} in {builder.data_path} (once)", file=sys.stderr, flush=True)
    # TFDS complains about a manual folder that does not exist.
    config = tfds.download.DownloadConfig(manual_dir=manual_dir if manual_dir.exists() else None)
    try:
        builder.download_and_prepare(file_format="array_record", download_config=config)
    except (OSError, tfds.download.DownloadError, NonMatchingChecksumError) as error:
        raise UserError(
            f"data set {builder.name} could not be prepared: {' '.join(str(error).split())}. {remedy}"
        ) from error


def _unreachable(urls: Sequence[str], seconds: float = 10.0) -> list[str]:
    """The hosts among these URLs to which no TCP connection can be opened, all tried at once."""
    hosts = {(u.hostname or "", u.port or (443 if u.scheme == "https" else 80)) for u in map(urlparse, urls)}
    if any(os.environ.get(name) for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")):
        return []  # a proxy fetches: a direct connection says nothing
    reached: set[str] = set()

    def connect(host: str, port: int) -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except OSError:
            return
        reached.add(host)

    # Name resolution has no timeout of its own, so each attempt runs in a thread that may be left behind.
    threads = [threading.Thread(target=connect, args=address, daemon=True) for address in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    return sorted({host for host, _ in hosts} - reached)
