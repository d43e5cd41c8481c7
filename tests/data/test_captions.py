"""If a test here fails, training is told another caption than the picture's, or a run cannot go on as it was."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import grain
import numpy as np
import pytest

from diffcurr.data import captions, datasets, pipeline, sources
from diffcurr.errors import UserError

TEXTS = [tuple(f"{'long ' * (index % 4)}caption {index} {one}" for one in range(1 + index % 3)) for index in range(12)]


class Told(sources.ArraySource):
    """Examples with captions."""

    def __init__(self, texts: list[Any]):
        super().__init__(np.zeros((len(texts), 4, 4, 1), np.uint8), np.arange(len(texts), dtype=np.int32))
        self._texts = texts

    def __getitem__(self, index: int) -> dict[str, Any]:
        return super().__getitem__(index) | {"captions": self._texts[index]}

    def captions(self, of: Iterable[int] | None = None) -> list[str]:
        return captions.listed(self._texts, of)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captioned(datasets.Mirrored):
    """A guest's data set with captions, and a share of it held out."""

    shape, num_classes, captioned = (4, 4, 1), 12, True

    def open(self) -> Told:
        return Told(TEXTS)


def told(examples: Any) -> dict[str, Any]:
    assert "captions" not in examples
    return {"caption": examples["caption"], "label": examples["label"]}


def test_each_pass_draws_a_caption_of_the_example() -> None:
    dataset = Captioned()
    batches = pipeline.make_dataset(dataset.opened(), dataset, told, batch_size=6, seed=0)
    drawn: dict[int, set[str]] = {index: set() for index in range(12)}
    for number in range(40):
        batch = batches[number]
        assert batch.condition["caption"].shape == (6,) and batch.condition["caption"].dtype.kind == "U"
        for label, text in zip(batch.condition["label"], batch.condition["caption"], strict=True):
            drawn[int(label)].add(str(text))
    assert all(seen == set(TEXTS[index]) for index, seen in drawn.items())


def test_a_run_goes_on_with_the_same_captions() -> None:
    dataset = Captioned(threads=0)
    made = pipeline.make_dataset(dataset.opened(), dataset, told, batch_size=5, seed=3)
    iterator = pipeline.make_iterator(made, threads=0)
    _ = [next(iterator) for _ in range(4)]
    state = iterator.get_state()
    wanted = [next(iterator).condition["caption"].tolist() for _ in range(4)]
    again = pipeline.make_iterator(
        pipeline.make_dataset(dataset.opened(), dataset, told, batch_size=5, seed=3), threads=2
    )
    again.set_state(state)
    assert [next(again).condition["caption"].tolist() for _ in range(4)] == wanted


def test_batches_of_different_lengths_are_one_batch_in_memory() -> None:
    dataset = Captioned()
    read = pipeline.load(dataset.opened(), dataset, told, 12, seed=0)
    assert len(read.condition["caption"]) == 12
    for label, text in zip(read.condition["label"], read.condition["caption"], strict=True):
        assert text in TEXTS[label]
    small = list(pipeline.stream(dataset.opened(), dataset, told, 12, 0, batch_size=1))
    assert np.concatenate([one.condition["caption"] for one in small]).tolist() == read.condition["caption"].tolist()


def test_a_part_lists_its_own_captions() -> None:
    dataset = Captioned(held_out=0.25)
    kept, unseen = dataset.opened(), dataset.opened_held_out()
    assert set(kept.captions()) | set(unseen.captions()) == {one for some in TEXTS for one in some}
    assert not set(kept.captions()) & set(unseen.captions())
    for part in (kept, unseen):
        assert part.captions() == sorted({one for index in range(len(part)) for one in part[index]["captions"]})
        assert part.captions([1]) == sorted(part[1]["captions"]) and part.captions([]) == []


def test_without_captions_nothing_is_drawn() -> None:
    examples = grain.MapDataset.range(3)
    assert not datasets.Digits.captioned and datasets.Digits().drawn(examples) is examples


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "has captions None: must be a tuple of at least one text"),
        ((), "must be a tuple of at least one text"),
        (["a cat"], "must be a tuple"),
        ((b"a cat",), "must be a tuple"),
        (("a cat", " "), "an empty caption"),
        (("a\ncat",), "must be one line"),
        (("a \ud800",), "which is no valid text"),
    ],
)
def test_what_is_no_caption_is_refused(bad: Any, message: str) -> None:
    class Wrong(Captioned):
        def open(self) -> Told:
            return Told([bad] * 3)

    with pytest.raises(UserError, match=message) as caught:
        Wrong().opened()
    assert "\n" not in str(caught.value)


def test_identity_tells_captions_apart() -> None:
    some = captions.identity([("a", "b"), ("c",)])
    assert some == captions.identity([["a", "b"], ["c"]])
    others = ([("a",), ("b", "c")], [("b", "a"), ("c",)], [("a", "b"), ("d",)], [("ab",), ("c",)])
    assert all(some != captions.identity(other) for other in others)
