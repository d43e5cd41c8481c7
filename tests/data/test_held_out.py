"""If a test here fails, a network is trained on images that are said to be held out, or another part than before is."""

import dataclasses
import pathlib

import numpy as np
import pytest
from data.making import png, write

from diffcurr.data import datasets, sources
from diffcurr.errors import UserError

COUNT = {"train": 50, "test": 7}
UNSEEN = [2, 3, 4, 18, 20, 23, 24, 26, 34, 36]  # a fifth of the 50, in this version and all to come


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbered(datasets.Pictures):
    """The example i of the split train has the label i; those of the split test have labels from 100 on."""

    shape = (2, 2, 1)
    num_classes = 200

    def open(self) -> sources.ArraySource:
        number, first = COUNT[self.split], 100 * (self.split == "test")
        labels = np.arange(first, first + number, dtype=np.int32)
        return sources.ArraySource(np.tile(labels.astype(np.uint8)[:, None, None, None], (1, 2, 2, 1)), labels)


class Split(Numbered):
    """The same with two splits, of which TFDS may give parts."""

    splits = ()

    def has_split(self, name: str) -> bool:
        return name in COUNT


def labels(source: sources.Source) -> list[int]:
    found = [source[index] for index in range(len(source))]
    assert all(np.all(example["image"] == example["label"]) for example in found)
    return [int(example["label"]) for example in found]


@pytest.mark.parametrize(("share", "number"), [(0.2, 10), (0.5, 25), (0.02, 1), (0.98, 49)])
def test_a_share_is_kept_from_training(share: float, number: int) -> None:
    """The two parts are everything, and have nothing in common; always the same."""
    dataset = Numbered(held_out=share)
    kept, unseen = labels(dataset.opened()), labels(dataset.opened_held_out())
    assert len(unseen) == number and sorted(kept + unseen) == list(range(50))
    assert number != 10 or unseen == UNSEEN
    assert dataset.holds_out
    assert dataset.opened_held_out().name_of(0) == f"example {unseen[0]}"
    again = Numbered(held_out=share, threads=0)
    assert (labels(again.opened()), labels(again.opened_held_out())) == (kept, unseen)


def test_nothing_is_held_out_unless_it_is_asked_for() -> None:
    whole = Numbered()
    assert not whole.holds_out and labels(whole.opened()) == list(range(50))
    assert sources.identity(whole.opened()) == sources.identity(whole.open())
    with pytest.raises(UserError, match=r"dataset\.held_out = 0\.0: Numbered has no split 'test'; give the share"):
        whole.opened_held_out()


@pytest.mark.parametrize(("share", "number"), [(0.009, 0), (0.991, 50)])
def test_a_share_that_leaves_one_part_empty(share: float, number: int) -> None:
    dataset, message = Numbered(held_out=share), f"held_out = {share}: of 50 examples that leaves {number} held out"
    for opened in (dataset.opened, dataset.opened_held_out):
        with pytest.raises(UserError, match=message):
            opened()


def test_a_run_cannot_go_on_with_another_part() -> None:
    parts = [Numbered(held_out=share).opened() for share in (0.0, 0.2, 0.22)] + [
        Numbered(held_out=0.2).opened_held_out()
    ]
    known = [sources.identity(part) for part in parts]
    assert len({repr(sorted(one.items())) for one in known}) == len(known)
    assert [one["examples"] for one in known] == [50, 40, 39, 10]
    assert known[1] == sources.identity(Numbered(held_out=0.2).opened())
    same_number = [sources.Part(Numbered().open(), np.arange(10) + first) for first in (0, 1)]
    assert sources.identity(same_number[0]) != sources.identity(same_number[1])


def test_a_split_is_held_out_where_there_is_one() -> None:
    dataset = Split()
    assert dataset.holds_out and labels(dataset.opened()) == list(range(50))
    assert labels(dataset.opened_held_out()) == list(range(100, 107))
    share = Split(held_out=0.2)  # of what is trained on, if it is asked for
    assert labels(share.opened_held_out()) == labels(Numbered(held_out=0.2).opened_held_out())
    for split in ("test", "test[:50%]", "train+test[:5]"):
        assert not Split(split=split).holds_out, "it is trained on"
    assert Split(split="train[:50%]").holds_out
    assert datasets.FashionMNIST().holds_out and datasets.CIFAR10().holds_out
    assert not datasets.FashionMNIST(split="test").holds_out and not datasets.Digits().holds_out


def test_a_folder_of_pictures_held_out_has_the_classes_of_the_others(tmp_path: pathlib.Path) -> None:
    """Counted again, the classes of the folder test would be others where it lacks some."""

    def files(split: str, classes: str) -> dict[str, bytes]:
        return {f"{split}/{name}/0.png": png(np.full((4, 4, 3), ord(name), np.uint8)) for name in classes}

    for tests, works in (("abc", True), ("ac", False)):
        path = write(tmp_path / tests, files("train", "abc") | files("test", tests))
        dataset = datasets.PictureFolder(data_dir=str(path), size=4)
        assert dataset.holds_out and len(dataset.opened()) == 3
        if works:
            unseen = dataset.opened_held_out()
            assert [(unseen[i]["image"][0, 0, 0], unseen[i]["label"]) for i in range(3)] == [(97, 0), (98, 1), (99, 2)]
            continue
        with pytest.raises(UserError, match="2 top folders instead of one for each of the 3 classes"):
            dataset.opened_held_out()
