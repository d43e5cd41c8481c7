"""If a test here fails, a picture is trained with another's caption, or a bad file is found after hours."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from data.making import png, write

from diffcurr.data.datasets import CocoCaptions, PictureFolder
from diffcurr.data.sources import identity
from diffcurr.errors import UserError

NAMES = ("a.png", "b.jpg", "deep/c.PNG")
PICTURES = {name: png(np.full((8, 8, 3), 50 * index, np.uint8)) for index, name in enumerate(NAMES)}
LINES = [{"file_name": name, "text": f"the picture {name}"} for name in NAMES]
COCO: dict[str, list] = {
    "images": [{"id": 10 + index, "file_name": name, "height": 8} for index, name in enumerate(NAMES)],
    "annotations": [
        {"image_id": 10 + index % 3, "id": index, "caption": f"{NAMES[index % 3]}, said {index}. "}
        for index in range(6)
    ],
}


def lines(*entries: Any) -> bytes:
    return "\n".join(one if isinstance(one, str) else json.dumps(one) for one in entries).encode()


def texts(**changes: bytes | None) -> dict[str, bytes]:
    """Pictures beside text files, of which some are changed: name with __ for a slash and _ for the dot."""
    files = {"a.txt": b"a cat\n\n two  cats\n", "b.txt": "\N{BOM}ein Bär".encode(), "deep/c.txt": b"a dog"} | PICTURES
    for name, content in changes.items():
        name = name.replace("__", "/").replace("_", ".")
        files = files | {name: content} if content is not None else {k: v for k, v in files.items() if k != name}
    return files


def folder(path: pathlib.Path, files: dict[str, bytes], kind: str, as_zip: bool = False, **more: Any) -> PictureFolder:
    return PictureFolder(data_dir=str(write(path, files, as_zip)), size=8, classes=0, captions=kind, **more)


def refusal(dataset: PictureFolder | CocoCaptions) -> str:
    with pytest.raises(UserError) as caught:
        dataset.opened()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("around", ["", "all/", "train/"])
def test_text_files(as_zip: bool, around: str, tmp_path: pathlib.Path) -> None:
    files = {around + name: content for name, content in texts().items()}
    if around == "train/":
        files |= {"test/t.png": PICTURES["a.png"], "test/t.txt": b"unseen"}
    dataset = folder(tmp_path / "pictures", files, "txt", as_zip)
    source = dataset.opened()
    assert dataset.captioned and [source[index]["captions"] for index in range(3)] == [
        ("a cat", "two cats"),
        ("ein Bär",),
        ("a dog",),
    ]
    assert source.captions() == ["a cat", "a dog", "ein Bär", "two cats"] and source.captions([2]) == ["a dog"]
    if around == "train/":
        assert dataset.opened_held_out().captions() == ["unseen"]


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize(("pictures", "metadata"), [("", ""), ("images/", "images/"), ("images/", ""), ("train/", "")])
def test_metadata(as_zip: bool, pictures: str, metadata: str, tmp_path: pathlib.Path) -> None:
    """In the folder of the pictures, or in one around it; names are from there on."""
    entries = [one | {"file_name": pictures.removeprefix(metadata) + one["file_name"]} for one in LINES]
    files = {pictures + name: content for name, content in PICTURES.items()}
    if pictures == "train/":
        files["test/t.png"] = PICTURES["a.png"]
        entries.append({"file_name": "test/t.png", "text": "unseen"})
    files[f"{metadata}metadata.jsonl"] = lines(*entries, "")
    dataset = folder(tmp_path / "pictures", files, "jsonl", as_zip)
    source = dataset.opened()
    assert [source[index]["captions"] for index in range(3)] == [(one["text"],) for one in LINES]
    if pictures == "train/":
        assert dataset.opened_held_out().captions() == ["unseen"]


def test_without_captions_text_files_are_passed_over(tmp_path: pathlib.Path) -> None:
    files = texts() | {"readme.txt": b"\xff", "metadata.jsonl": b"{"}
    dataset = folder(tmp_path, files, "none")
    source = dataset.opened()
    assert set(source[0]) == {"image", "label"} and not dataset.captioned and "captions" not in identity(source)
    for name in files:
        if not name.lower().endswith(("png", "jpg")):
            (tmp_path / name).unlink()
    assert identity(folder(tmp_path, {}, "none").opened()) == identity(source)


def test_identity(tmp_path: pathlib.Path) -> None:
    some = identity(folder(tmp_path, texts(), "txt").opened())
    other = identity(folder(tmp_path, texts(a_txt=b"a rat"), "txt").opened())
    assert {name for name in some if some[name] != other[name]} == {"captions"}


def test_skipped_pictures_take_their_captions_along(tmp_path: pathlib.Path) -> None:
    files = texts() | {"a.png": b"damaged"}
    source = folder(tmp_path, files, "txt", on_bad_file="skip").opened()
    assert [source[index]["captions"] for index in range(2)] == [("ein Bär",), ("a dog",)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b_txt": None}, "b.jpg has no caption: add b.txt, or remove the picture"),
        ({"b_txt": None, "a_txt": None}, "a.png has no caption, and 1 more: add a.txt"),
        ({"b_jpg": None}, "b.txt is a caption without its picture: remove it, or add that"),
        ({"deep__c_txt": b" \n\n"}, "deep/c.txt holds an empty caption: write one, or remove the file"),
        ({"b_txt": b""}, "b.txt holds an empty caption"),
        ({"b_txt": b"B\xe4r"}, "b.txt is no UTF-8"),
        ({"b_txt": b"a\0b"}, "b.txt holds the caption 'a\\x00b', which is no valid text"),
    ],
)
def test_bad_text_files(changes: dict, message: str, tmp_path: pathlib.Path) -> None:
    assert f"{tmp_path}: {message}" in refusal(folder(tmp_path, texts(**changes), "txt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "metadata.jsonl is not there: add it, or choose another dataset.captions"),
        (lines(*LINES[:2]), "deep/c.PNG has no line in metadata.jsonl: add one, or remove the picture"),
        (lines(*LINES, LINES[1]), "metadata.jsonl line 4 names b.jpg twice: keep one of its lines"),
        (lines(*LINES, "", {"file_name": "d.png", "text": "d"}), "line 5 names d.png, which is not there: add it, or"),
        (lines({"file_name": "../a.png", "text": "d"}), "line 1 names ../a.png, which is not there"),
        (lines(LINES[0] | {"label": 3}), "line 1 has the key label: only file_name and text are read; remove it"),
        (lines(*LINES[:2], {"file_name": "a.png"}), "line 3 has no file_name or no text: write {"),
        (lines({"file_name": "a.png", "text": 3}), "line 1 has no file_name or no text"),
        (lines({"file_name": "a.png", "text": "\n "}), "line 1 has an empty caption: write one, or remove the line"),
        (lines({"file_name": "a.png", "text": "\ud800"}), "line 1 has the caption '\\ud800', which is no valid text"),
        (lines("[]"), "line 1 is no JSON object: write {"),
        (lines(LINES[0], "{"), "line 2 is no JSON object ("),
        (b"[" * 100_000, "line 1 is no JSON object ("),
        (b"\xff", "metadata.jsonl is no UTF-8 ("),
    ],
)
def test_bad_metadata(content: bytes | None, message: str, tmp_path: pathlib.Path) -> None:
    files = PICTURES if content is None else PICTURES | {"metadata.jsonl": content}
    assert f"{tmp_path}: " in (said := refusal(folder(tmp_path, files, "jsonl"))) and message in said


def coco(path: pathlib.Path, content: Any, **settings: Any) -> CocoCaptions:
    write(path / "pictures", PICTURES)
    file = path / "captions.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return CocoCaptions(data_dir=str(path / "pictures"), annotations=str(file), size=8, **settings)


def test_coco_from_the_users_files(tmp_path: pathlib.Path) -> None:
    dataset = coco(tmp_path, COCO)
    source = dataset.opened()
    assert [source[index]["captions"] for index in range(3)] == [
        (f"{name}, said {index}.", f"{name}, said {index + 3}.") for index, name in enumerate(NAMES)
    ]
    assert source[1]["image"].shape == (8, 8, 3) and source[1]["image"].mean() == 50
    assert len(source.captions()) == 6 and not dataset.holds_out and dataset.has_split("train")
    assert len(coco(tmp_path, COCO, held_out=0.4).opened_held_out()) == 1
    with pytest.raises(ValueError, match="split = 'val': your folder is the split train"):
        coco(tmp_path, COCO, split="val")
    assert "dataset.data_dir is missing" in refusal(CocoCaptions(annotations="captions.json"))


def without(key: str, index: int) -> dict[str, list]:
    return COCO | {key: COCO[key][:index] + COCO[key][index + 1 :]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is no JSON ("),
        (b"\xff", "is no UTF-8 ("),
        ([], "is no JSON of {"),
        ({"images": []}, "is no JSON of {"),
        (COCO | {"annotations": [{"caption": "a"}]}, "is no JSON of {"),
        (COCO | {"images": [*COCO["images"], COCO["images"][0]]}, "names the id 10 twice in its images"),
        (COCO | {"images": [*COCO["images"], {"id": 1, "file_name": "a.png"}]}, "names a.png twice in its images"),
        (COCO | {"images": [*COCO["images"], {"id": 1, "file_name": "d.png"}]}, "names d.png, which is not in dataset"),
        (COCO | {"images": [{"id": [], "file_name": "a.png"}]}, "is no JSON of {"),
        (without("images", 1), "annotates image_id 11, which is none of its images: remove that annotation"),
        (COCO | {"annotations": COCO["annotations"][:2]}, "annotates no caption of deep/c.PNG: remove the picture"),
        (
            COCO | {"annotations": [*COCO["annotations"], {"image_id": 12, "caption": " "}]},
            "has an empty caption of deep/c.PNG: remove that annotation",
        ),
        (COCO | {"annotations": [{"image_id": 12, "caption": 3}]}, "is no JSON of {"),
    ],
)
def test_bad_annotations(content: Any, message: str, tmp_path: pathlib.Path) -> None:
    said = refusal(coco(tmp_path, content))
    assert said.startswith(f"dataset.annotations = {tmp_path / 'captions.json'}: ") and message in said


def test_missing_annotations(tmp_path: pathlib.Path) -> None:
    dataset = coco(tmp_path, COCO)
    (tmp_path / "captions.json").unlink()
    assert "cannot be read (No such file or directory): give the path of captions_train2017.json" in refusal(dataset)
