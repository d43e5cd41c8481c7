"""Examples would get the label of another class, or a part of the data would be left out, without a word."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from data.making import npy, write

from diffcurr.data.listing import FOUND, Listing
from diffcurr.errors import UserError

PNG, NPY = (".png",), (".npy",)


def listed(path: pathlib.Path, classes: int = FOUND, split: str = "train", suffixes: tuple[str, ...] = PNG) -> Listing:
    return Listing(str(path), suffixes, split, classes)


def labels(listing: Listing) -> dict[str, int]:
    return dict(zip(listing.names, listing.labels.tolist(), strict=True))


def described(entries: Any) -> bytes:
    return json.dumps({"labels": entries}).encode()


@pytest.mark.parametrize("as_zip", [False, True])
def test_folders_are_classes(as_zip: bool, tmp_path: pathlib.Path) -> None:
    """Numbered as numbers if all are, else as text; the order of examples is that of their names, as ever."""
    numbers = listed(write(tmp_path / "numbers", {"10/a.png": b"", "2/b.png": b"", "1/c/d.png": b""}, as_zip))
    assert numbers.names == ["1/c/d.png", "10/a.png", "2/b.png"]
    assert labels(numbers) == {"1/c/d.png": 0, "2/b.png": 1, "10/a.png": 2}
    assert numbers.classes == ["1", "2", "10"] and numbers.num_classes == 3
    texts = listed(write(tmp_path / "texts", {"n10/a.png": b"", "n2/b.png": b"", "1/c.png": b""}, as_zip), classes=3)
    assert texts.classes == ["1", "n10", "n2"]
    assert labels(texts) == {"1/c.png": 0, "n10/a.png": 1, "n2/b.png": 2}
    flat = listed(write(tmp_path / "flat", {"a.png": b"", "b.png": b""}, as_zip))
    assert flat.num_classes == 0 and flat.classes is None and labels(flat) == {"a.png": 0, "b.png": 0}
    assert listed(flat.storage.path, classes=1).num_classes == 1


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_folder_around_everything_is_no_class(as_zip: bool, tmp_path: pathlib.Path) -> None:
    files = {"pets/cat/1.png": b"", "pets/dog/2.png": b"", "__MACOSX/pets/cat/._1.png": b"", "README.txt": b""}
    assert labels(listed(write(tmp_path / "wrapped", files, as_zip))) == {"cat/1.png": 0, "dog/2.png": 1}
    files = {
        "w/00000/1.png": b"",
        "w/00000/2.png": b"",
        "w/dataset.json": described([["00000/2.png", 5], ["00000/1.png", 0]]),
    }
    listing = listed(write(tmp_path / "edm", files, as_zip))
    assert labels(listing) == {"00000/1.png": 0, "00000/2.png": 5}
    assert listing.num_classes == 6 and listing.classes is None
    files = {"w/train/cat/1.png": b"", "w/train/dog/2.png": b"", "w/val/cat/3.png": b""}
    listing = listed(write(tmp_path / "splits", files, as_zip))
    assert labels(listing) == {"cat/1.png": 0, "dog/2.png": 1} and listing.splits == {"train", "val"}
    assert listed(listing.storage.path, split="val", classes=0).names == ["3.png"]


def test_no_folder_is_left_out_silently(tmp_path: pathlib.Path) -> None:
    vehicles = write(tmp_path / "vehicles", {"train/1.png": b"", "bus/2.png": b"", "val/3.png": b""})
    with pytest.raises(
        UserError, match="beside the folder 'train' lie bus: if all are classes, move all into a folder"
    ):
        listed(vehicles)
    assert listed(vehicles, split="bus").names == ["2.png"]
    write(tmp_path / "loose", {"train/1.png": b"", "2.png": b""})
    with pytest.raises(UserError, match="beside the folder 'train' lie files"):
        listed(tmp_path / "loose")
    write(tmp_path / "val only", {"val/1.png": b"", "test/1.png": b""})
    with pytest.raises(UserError, match=r"split = 'train': there is no folder train in .*; there are test, val"):
        listed(tmp_path / "val only")
    write(tmp_path / "whole", {"a/1.png": b"", "b/1.png": b""})
    with pytest.raises(UserError, match=r"split = 'val': there is no folder val in .*; the whole"):
        listed(tmp_path / "whole", split="val")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *(
            (described([["a.png", label], ["b.png", 0]]), "gives a.png the label")
            for label in (1.5, True, [1], "3", None)
        ),
        (described([["a.png", 0]]), r"has no label for b\.png and 0 more"),
        (described([["a.png", 0], ["b.png", 1], ["a.png", 1]]), r"names a\.png twice"),
        (described([["a.png", -1], ["b.png", 1]]), "has label -1 in dataset.json: labels do not fit 2 classes"),
        (described([["a.png", 0], ["b.png", 2]]), "has label 2 in dataset.json: labels do not fit 2 classes"),
        (described([["a.png", 0], ["b.png", 10**40]]), "labels do not fit 2 classes"),
        (described({"a.png": 0}), r"holds \{'a\.png': 0\}: must be \[name, label\]"),
        (described([["a.png", 0, 1]]), r"must be \[name, label\]"),
        (described(None), "gives no classes: dataset.classes = 2"),
        (b"[1, 2]", "is no JSON of"),
        (b"{}", "is no JSON of"),
        (b"\xff\xfe{", "is no JSON of"),
        (b"[" * 100_000, "is no JSON of"),
    ],
)
def test_bad_dataset_json(content: bytes, message: str, tmp_path: pathlib.Path) -> None:
    write(tmp_path / "bad", {"a.png": b"", "b.png": b"", "dataset.json": content})
    with pytest.raises(UserError, match=message) as caught:
        listed(tmp_path / "bad", classes=2)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_classes_that_do_not_fit(tmp_path: pathlib.Path) -> None:
    mixed = write(tmp_path / "mixed", {"a/1.png": b"", "b/1.png": b"", "2.png": b""})
    with pytest.raises(UserError, match=r"there is no dataset\.json, and 2 top folders and 1 files beside them$"):
        listed(mixed)
    assert labels(listed(mixed, classes=0)) == {"2.png": 0, "a/1.png": 0, "b/1.png": 0}
    with pytest.raises(UserError, match="2 top folders instead of one for each of the 3 classes"):
        listed(write(tmp_path / "two", {"a/1.png": b"", "b/1.png": b""}), classes=3)


def test_dits_layout(tmp_path: pathlib.Path) -> None:
    """Feature i has the label i, in the order of the numbers; labels are read, whatever type of integer they have."""
    files = {f"im_features/{index}.npy": b"" for index in range(11)}
    files |= {f"im_labels/{index}.npy": npy(np.array([(7 * index) % 11], np.int64)) for index in range(11)}
    path = write(tmp_path / "dit", files, as_zip=True)
    for classes in (FOUND, 11):
        listing = listed(path, classes, suffixes=NPY)
        assert listing.names == [f"im_features/{index}.npy" for index in range(11)]
        np.testing.assert_array_equal(listing.labels, 7 * np.arange(11) % 11)
        assert listing.num_classes == 11 and listing.classes is None
    np.testing.assert_array_equal(listed(path, 0, suffixes=NPY).labels, np.zeros(11))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"im_labels/1.npy": None}, r"2 files in im_features and 1 in im_labels: only one of them has 1\.npy"),
        ({"im_features/1.npy": None}, r"1 files in im_features and 2 in im_labels: only one of them has 1\.npy"),
        ({"im_features/one.npy": b""}, r"im_features/one\.npy is not named by a number"),
        ({"im_labels/1.npy": npy(np.array([3]))}, r"im_features/1\.npy has label 3: labels do not fit 3 classes"),
        ({"im_labels/1.npy": npy(np.array([1.5]))}, r"im_labels/1\.npy .* it holds type <f8"),
        ({"im_labels/1.npy": npy(np.array([1, 2]))}, r"im_labels/1\.npy holds \[1, 2\] instead of one integer"),
        ({"im_labels/1.npy": b""}, r"im_labels/1\.npy is not a readable \.npy file"),
        ({"others/1.npy": b""}, "beside im_features and im_labels lie others: im_features, im_labels, others"),
    ],
)
def test_bad_pairs(changed: dict[str, bytes | None], message: str, tmp_path: pathlib.Path) -> None:
    label = npy(np.array([0]))
    good = {"im_features/0.npy": b"", "im_features/1.npy": b"", "im_labels/0.npy": label, "im_labels/1.npy": label}
    files = {name: content for name, content in (good | changed).items() if content is not None}
    with pytest.raises(UserError, match=message):
        listed(write(tmp_path / "bad", files), 3, suffixes=NPY)


def test_names_on_one_line(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "odd", {"a\nb.png": b"", "c.png": b"", "dataset.json": described([["c.png", 0]])})
    with pytest.raises(UserError, match=r"has no label for 'a\\nb\.png' and 0 more"):
        listed(tmp_path / "odd")


def test_identity_says_what_differs(tmp_path: pathlib.Path) -> None:
    files = {"a/1.png": b"1", "b/2.png": b"2"}
    one = listed(write(tmp_path / "one", files)).identity()
    assert one["examples"] == 2 and set(one) == {"examples", "names", "sizes", "labels"}
    assert (
        listed(write(tmp_path / "same", {f"w/{name}": one for name, one in files.items()}, as_zip=True)).identity()
        == one
    )
    for path, other, key in (
        ("longer", {"a/1.png": b"12", "b/2.png": b"2"}, "sizes"),
        ("renamed", {"a/3.png": b"1", "b/2.png": b"2"}, "names"),
        ("labelled", files | {"dataset.json": described([["a/1.png", 1], ["b/2.png", 0]])}, "labels"),
    ):
        found = listed(write(tmp_path / path, other)).identity()
        assert {name for name in one if found[name] != one[name]} == {key}
