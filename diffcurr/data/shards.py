"""Latents on disk: array_record shards, a record beside each, and the manifest of the whole.

A stored example is the bytes of an array [mirror, height, width, channel], then its other fields (label, captions) as
JSON. The captions are in a file of their own too, so that all can be had without reading latents.
Mirror 1, where there is one, is the latent of the mirrored image. The channels are the means and, behind them, the
standard deviations where the codec has them. Values are little-endian.
"""

import dataclasses
import functools
import hashlib
import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import annotated_types as at
import numpy as np
from etils import epath
from jaxtyping import Float

from diffcurr import atomic_file, ranges
from diffcurr.config import flatten
from diffcurr.data import captions
from diffcurr.data.sources import BadExample
from diffcurr.errors import UserError, first_line

MANIFEST = "manifest.json"
CAPTIONS = "captions.json"
VERSION = 1
DTYPES = {"float32": "<f4", "float16": "<f2"}
FINISH = "run --job=encode again to finish it"
_OPTIONS = "group_size:1,uncompressed"  # single examples are read; latents hardly become smaller

Natural = Annotated[int, at.Ge(1)]
Shape = Annotated[Sequence[Natural], at.Len(3, 3)]
Stored = tuple[Float[np.ndarray, "mirror height width channel"], Mapping[str, Any]]
"""(means and standard deviations, the other fields of the example)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents(ranges.Checked):
    """What the shards of a folder hold, as JSON values. It decides every byte of them, up to rounding of the codec.

    Attributes:
      examples: how many examples there are.
      shard: how many of them each shard holds, the last one aside.
      latent_shape: (height, width, channels) of a latent.
      image_shape: shape of the images that were encoded.
      num_classes: number of labels; 0 for none.
      classes: the names of the classes, where they have some.
      has_std: whether standard deviations are stored behind the means.
      mirrored: whether the latents of mirrored images are stored too.
      dtype: dtype of the stored values.
      codec: identity of the codec.
      source: identity of the examples, and the settings of their data set.
      skipped: number of examples that could not be read and were left out.
      captioned: whether examples have captions.
    """

    examples: Natural
    shard: Natural
    latent_shape: Shape
    image_shape: Shape
    num_classes: Annotated[int, at.Ge(0)]
    classes: Sequence[str] | None
    has_std: bool
    mirrored: bool
    dtype: Annotated[str, ranges.OneOf(DTYPES)]
    codec: Mapping[str, Any]
    source: Mapping[str, Any]
    skipped: Annotated[int, at.Ge(0)]
    version: Annotated[int, ranges.OneOf((VERSION,))] = VERSION
    captioned: bool = False

    def plain(self) -> dict[str, Any]:
        """The contents as JSON values; without captions these are as before there were any."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "captioned" or value}

    @property
    def number(self) -> int:
        """Number of shards."""
        return -(-self.examples // self.shard)

    def numbers(self, index: int) -> range:
        """The numbers of the examples of a shard."""
        return range(index * self.shard, min((index + 1) * self.shard, self.examples))

    @property
    def stored_shape(self) -> tuple[int, int, int, int]:
        """The shape of a stored array."""
        height, width, channels = self.latent_shape
        return 1 + self.mirrored, height, width, channels * (1 + self.has_std)

    def pack(self, array: Float[np.ndarray, "mirror height width channel"], fields: Mapping[str, Any]) -> bytes:
        """The bytes of an example.

        Raises:
          BadExample: if a value is not finite, or cannot be a standard deviation.
        """
        with np.errstate(over="ignore"):  # such values are found below
            values = array.astype(DTYPES[self.dtype])
        if not np.isfinite(values).all():
            if not np.isfinite(array).all():
                raise BadExample("is encoded to values that are not finite")
            raise BadExample(f"is encoded to {np.abs(array).max():g}, too large for {self.dtype}: set encode.dtype")
        if self.has_std and array[..., self.latent_shape[2] :].min() < 0:
            raise BadExample("is encoded to standard deviations below 0")
        return values.tobytes() + json.dumps(fields, sort_keys=True).encode()

    def unpack(self, record: bytes) -> Stored:
        """An example from its bytes.

        Raises:
          BadExample: if they are not those of an example, or a value is not finite.
        """
        length = int(np.prod(self.stored_shape)) * np.dtype(DTYPES[self.dtype]).itemsize
        try:
            values = np.frombuffer(record[:length], DTYPES[self.dtype]).reshape(self.stored_shape)
            fields = json.loads(record[length:])
        except ValueError as error:
            raise BadExample(f"is no example: {first_line(error)}") from error
        if not np.isfinite(values).all():
            raise BadExample("holds values that are not finite")
        return values, fields


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of each channel, of latents as they are drawn; float64."""

    count: int
    mean: Float[np.ndarray, " channel"]
    squares: Float[np.ndarray, " channel"]

    @classmethod
    def of(cls, array: Float[np.ndarray, "mirror height width channel"], channels: int) -> "Moments":
        """The moments of a stored array: a draw varies by its standard deviation around its mean."""
        values = np.ascontiguousarray(array.reshape(-1, array.shape[-1]).T, np.float64)
        mean = values[:channels].mean(axis=1)
        values[:channels] -= mean[:, None]
        squares = np.einsum("cn,cn->c", values, values)
        return cls(
            values.shape[1], mean, squares[:channels] + squares[channels:] if len(values) > channels else squares
        )

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "Moments":
        """Inverse of `plain`."""
        return cls(int(values["count"]), np.array(values["mean"], float), np.array(values["squares"], float))

    def plain(self) -> dict[str, Any]:
        """The moments as JSON values, exactly."""
        return {"count": self.count, "mean": self.mean.tolist(), "squares": self.squares.tolist()}

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of the union (Chan et al. 1979)."""
        count, apart = self.count + other.count, other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        return Moments(count, mean, self.squares + other.squares + apart**2 * (self.count * other.count / count))


def shard_file(folder: epath.Path, index: int) -> epath.Path:
    """The file of a shard; its record has the same name and ends with .json."""
    return folder / f"shard-{index:05d}.array_record"


def write(
    folder: epath.Path, contents: Contents, index: int, examples: Iterator[Stored], name_of: Callable[[int], str]
) -> None:
    """Writes a shard, and its record last.

    Args:
      examples: what is stored of each example of the shard.
      name_of: the name of an example, for a message.

    Raises:
      UserError: if the folder cannot be written, or a value cannot be stored.
    """
    from array_record.python.array_record_module import ArrayRecordWriter  # only here: there is none for Windows

    path, numbers = shard_file(folder, index), contents.numbers(index)
    moments, told = None, []
    try:
        with atomic_file.replacing(path) as temporary:
            writer = ArrayRecordWriter(str(temporary), _OPTIONS)
            for number, (array, fields) in zip(numbers, examples, strict=True):
                try:
                    writer.write(contents.pack(array, fields))
                except BadExample as error:
                    raise BadExample(f"{name_of(number)} {error}") from error
                told += [list(fields[captions.ALL])] if contents.captioned else []
                seen = Moments.of(array.astype(DTYPES[contents.dtype]), contents.latent_shape[2])
                moments = seen if moments is None else moments + seen
            writer.close()
            size, sha256 = _fingerprint(temporary)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} cannot be written: {first_line(error)}") from error
    assert moments is not None
    record = {"examples": len(numbers), "bytes": size, "sha256": sha256, "moments": moments.plain()}
    record |= {captions.ALL: told} if contents.captioned else {}
    _write_json(path.with_suffix(".json"), record | {"contents": contents.plain()})


def check_contents(folder: epath.Path, contents: Contents) -> None:
    """Reads no latents.

    Raises:
      UserError: if the folder holds shards of other contents: with what differs.
    """
    now = flatten(_plain(contents.plain()))
    for path in sorted(folder.glob("shard-*.json")):
        there = flatten(_record(path).get("contents", {}))
        if words := differences(there, now, "now"):
            raise UserError(
                f"{folder} holds latents of something else: {words}: give another folder by --out, or remove this one"
            )


def differences(there: Mapping[str, Any], given: Mapping[str, Any], where: str) -> str:
    """What differs between the values that were stored and those that are given, in words; "" if nothing does.

    Args:
      where: a word for the place of the given ones.
    """
    differ = (key for key in sorted({*there, *given}) if there.get(key) != given.get(key))
    return ", ".join(
        f"{key} is {ranges.shown(there.get(key))} there and {ranges.shown(given.get(key))} {where}" for key in differ
    )


def prepare(folder: epath.Path, *, whole: bool) -> None:
    """Makes the folder, and removes what a run that was killed has left half written; and the manifest, if not whole.

    Raises:
      UserError: if it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".shard-*"):
            path.unlink()
        if not whole:
            (folder / MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error}): give another folder by --out") from error


def is_written(folder: epath.Path, index: int) -> bool:
    """Whether a shard is there, with the bytes that were written."""
    path = shard_file(folder, index)
    record = _record(path.with_suffix(".json"))
    return path.exists() and (record.get("bytes"), record.get("sha256")) == _fingerprint(path)


def finish(folder: epath.Path, contents: Contents) -> dict[str, Any]:
    """Writes the captions and, last, the manifest, once all shards are there, and returns it.

    Raises:
      UserError: if one is not there.
    """
    records = [_record(shard_file(folder, index).with_suffix(".json")) for index in range(contents.number)]
    missing = [index for index, one in enumerate(records) if not one]
    if missing:
        raise UserError(f"{folder}: shard {missing[0]} is missing: all processes must write to one folder")
    whole = functools.reduce(operator.add, (Moments.from_plain(one["moments"]) for one in records))
    statistics = {"mean": whole.mean.tolist(), "std": np.sqrt(whole.squares / whole.count).tolist()}
    shards = [{key: one[key] for key in ("examples", "bytes", "sha256")} for one in records]
    manifest = contents.plain() | {"statistics": statistics, "shards": shards}
    if contents.captioned:
        _write_json(folder / CAPTIONS, [texts for one in records for texts in one[captions.ALL]])
    _write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: epath.Path) -> tuple[Contents, list[dict[str, Any]]]:
    """(contents, {"examples", "bytes", "sha256"} of each shard) of a folder. Reads no latents.

    Raises:
      UserError: if it has no manifest, or one that is damaged.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder: --job=encode makes one of a data set's latents")
    if not path.exists():
        some = any(True for _ in folder.glob("shard-*"))
        what = f"has shards, but no {MANIFEST}: {FINISH}" if some else f"has no {MANIFEST}: give one of --job=encode"
        raise UserError(f"{folder} {what}")
    try:
        manifest = json.loads(path.read_text())
        shards = manifest.pop("shards")
        manifest.pop("statistics")
        contents = Contents(**manifest)
        known = [(int(one["examples"]), int(one["bytes"]), str(one["sha256"])) for one in shards]
        if [one[0] for one in known] != [len(contents.numbers(index)) for index in range(contents.number)]:
            raise ValueError(f"its shards do not hold {contents.examples} examples")
    except (ValueError, TypeError, AttributeError, LookupError, OSError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
        raise UserError(f"{path} is damaged ({what}): remove it and {FINISH}") from error
    return contents, shards


def read_captions(folder: epath.Path, contents: Contents) -> list[tuple[str, ...]]:
    """The captions of each example of a folder. Reads no latents.

    Raises:
      UserError: if they are missing or damaged.
    """
    path = folder / CAPTIONS
    try:
        found = [tuple(texts) for texts in json.loads(path.read_text())]
        if len(found) != contents.examples:
            raise ValueError(f"it has captions of {len(found):,} examples instead of {contents.examples:,}")
        for texts in found:
            captions.check(texts)
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"{path} is missing or damaged ({first_line(error)}): {FINISH}") from error
    return found


def _fingerprint(path: epath.Path) -> tuple[int, str]:
    """(size, SHA-256) of a file."""
    with path.open("rb") as file:
        return path.stat().length, hashlib.file_digest(file, "sha256").hexdigest()


def _record(path: epath.Path) -> dict[str, Any]:
    """A shard's record; {} if there is none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _plain(values: Any) -> Any:
    return json.loads(json.dumps(values))


def _write_json(path: epath.Path, values: Any) -> None:
    with atomic_file.replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n")
