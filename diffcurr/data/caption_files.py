"""Captions that lie beside the user's pictures, in the layouts that public tools leave. No picture is decoded.

Where a picture has no caption, a caption no picture, or one is empty or cannot be read, the functions raise an error
that names the file and the remedy.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from etils import epath

from diffcurr.data import captions
from diffcurr.data.listing import Listing
from diffcurr.data.on_threads import each
from diffcurr.data.sources import BadExample
from diffcurr.data.storage import shown
from diffcurr.errors import UserError, first_line

METADATA = "metadata.jsonl"
Texts: TypeAlias = list[tuple[str, ...]]
"""The captions of each example of a listing."""


def beside(listing: Listing) -> Texts:
    """The captions in text files: each line of `a.txt` is a caption of `a.png`.

    Raises:
      BadExample: see above.
    """
    texts = {name for name in listing.files if name.lower().endswith(".txt")}
    wanted = [f"{name.rpartition('.')[0]}.txt" for name in listing.names]
    if lonely := sorted(texts - set(wanted)):
        raise listing.refuse(lonely[0], f"is a caption without its picture{_more(lonely)}: remove it, or add that")
    if bare := [(name, text) for name, text in zip(listing.names, wanted, strict=True) if text not in texts]:
        raise listing.refuse(bare[0][0], f"has no caption{_more(bare)}: add {shown(bare[0][1])}, or remove the picture")

    def read(name: str) -> tuple[str, ...]:
        try:
            lines = [line for line in _decoded(listing.read(name)).splitlines() if line.strip()]
            return tuple(captions.cleaned(line) for line in lines or [""])
        except BadExample as error:
            raise listing.refuse(name, error) from error
        except ValueError as error:
            raise listing.refuse(name, f"holds {error}: write one, or remove the file and its picture") from error

    return list(each(read, wanted, "reading captions"))


def in_metadata(listing: Listing) -> Texts:
    """The captions in the lines {"file_name": "a.png", "text": "a caption"} of `metadata.jsonl` (HF's imagefolder).

    It lies in the folder of the pictures, or in one around that; names are from there on.

    Raises:
      BadExample: see above.
    """
    parts = listing.prefix.split("/")[:-1]
    around = ["".join(f"{part}/" for part in parts[:depth]) for depth in range(len(parts), -1, -1)]
    files = set(listing.storage.names)
    found = [folder for folder in around if folder + METADATA in files]
    if not found:
        raise listing.refuse(METADATA, "is not there: add it, or choose another dataset.captions")
    folder, file = found[0], found[0] + METADATA
    texts: dict[str, tuple[str, ...]] = {}
    try:
        lines = _decoded(listing.storage.read(file)).split("\n")
    except BadExample as error:
        raise listing.storage.refuse_file(file, error) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            name, text = _entry(line)
            if folder + name in texts:
                raise ValueError(f"names {shown(name)} twice: keep one of its lines")
            if folder + name not in files:
                raise ValueError(f"names {shown(name)}, which is not there: add it, or remove the line")
            texts[folder + name] = (_cleaned(text),)
        except ValueError as error:
            raise listing.storage.refuse_file(file, f"line {number} {error}") from error
    if bare := [name for name in listing.names if listing.prefix + name not in texts]:
        raise listing.refuse(bare[0], f"has no line in {METADATA}{_more(bare)}: add one, or remove the picture")
    return [texts[listing.prefix + name] for name in listing.names]


FORMATS: dict[str, Callable[[Listing], Texts]] = {"txt": beside, "jsonl": in_metadata}
"""`dataset.captions` in a config -> how the captions are read."""


def annotated(listing: Listing, path: str) -> Texts:
    """The captions in COCO's file of annotations, several for each picture.

    It is {"images": [{"id", "file_name"}, ...], "annotations": [{"image_id", "caption"}, ...]}.

    Raises:
      UserError: see above.
    """
    try:
        content = json.loads(_decoded(epath.Path(path).expanduser().read_bytes()))
        images = [(one["id"], one["file_name"]) for one in content["images"]]
        said = [(one["image_id"], one["caption"]) for one in content["annotations"]]
        if not all(isinstance(text, str) for _, text in (*images, *said)):
            raise TypeError("a name or a caption is no text")
        return _matched(listing, images, said)
    except (KeyError, TypeError, RecursionError) as error:
        what = 'is no JSON of {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}'
        raise _bad_annotations(path, f"{what}: give captions_train2017.json of COCO, or one like it") from error
    except json.JSONDecodeError as error:
        raise _bad_annotations(path, f"is no JSON ({first_line(error)}): copy the file again") from error
    except OSError as error:
        what = f"cannot be read ({error.strerror or first_line(error)})"
        raise _bad_annotations(
            path, f"{what}: give the path of captions_train2017.json of COCO, or one like it"
        ) from error
    except (BadExample, ValueError) as error:
        raise _bad_annotations(path, error) from error


def _matched(listing: Listing, images: Sequence[tuple[Any, Any]], said: Sequence[tuple[Any, Any]]) -> Texts:
    """Raises ValueError, TypeError."""
    names: dict[Any, str] = {}
    texts: dict[str, list[str]] = {}
    there = set(listing.names)
    for number, name in images:
        if number in names or name in texts:
            what = f"the id {number}" if number in names else shown(name)
            raise ValueError(f"names {what} twice in its images: keep one of them")
        if name not in there:
            raise ValueError(
                f"names {shown(name)}, which is not in dataset.data_dir: add it, or give the annotations of this folder"
            )
        names[number], texts[name] = name, []
    for number, text in said:
        if number not in names:
            raise ValueError(f"annotates image_id {number!r:.100}, which is none of its images: remove that annotation")
        try:
            texts[names[number]].append(captions.cleaned(text))
        except ValueError as error:
            raise ValueError(f"has {error} of {shown(names[number])}: remove that annotation") from error
    if bare := [name for name in listing.names if not texts.get(name)]:
        raise ValueError(f"annotates no caption of {shown(bare[0])}{_more(bare)}: remove the picture, or add one")
    return [tuple(texts[name]) for name in listing.names]


def _bad_annotations(path: str, problem: object) -> UserError:
    return UserError(f"dataset.annotations = {shown(path)}: {problem}")


def _entry(line: str) -> tuple[str, str]:
    """(file name, text) of a line of metadata.jsonl. Raises ValueError."""
    form = '{"file_name": "a.png", "text": "a caption"}'
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON object ({first_line(error)}): write {form}") from error
    if not isinstance(entry, dict):
        raise ValueError(f"is no JSON object: write {form}")
    if unknown := sorted(set(entry) - {"file_name", "text"}):
        raise ValueError(f"has the key {shown(unknown[0])}: only file_name and text are read; remove it")
    if not all(isinstance(entry.get(key), str) for key in ("file_name", "text")):
        raise ValueError(f"has no file_name or no text: write {form}")
    return entry["file_name"], entry["text"]


def _cleaned(text: str) -> str:
    try:
        return captions.cleaned(text)
    except ValueError as error:
        raise ValueError(f"has {error}: write one, or remove the line and its picture") from error


def _decoded(content: bytes) -> str:
    """The text of a file, which may begin with the mark that Windows writes. Raises BadExample."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadExample(f"is no UTF-8 ({first_line(error)}): save it as UTF-8") from error


def _more(names: Sequence[object]) -> str:
    return f", and {len(names) - 1:,} more" if len(names) > 1 else ""
