"""A run would see other examples after a restart or on other machines, or at another scale than the network expects."""

import dataclasses
from typing import Any

import grain
import numpy as np
import pytest

from diffcurr.conditioning import Class, Nothing
from diffcurr.data import datasets, pipeline, sources
from diffcurr.errors import UserError

COUNT = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbered(datasets.Mirrored):
    """Image i is i everywhere, but for a mark in its left column."""

    shape = (4, 4, 1)
    num_classes = COUNT

    def open(self) -> sources.ArraySource:
        images = np.tile(np.arange(COUNT, dtype=np.uint8)[:, None, None, None], (1, 4, 4, 1))
        images[:, :, 0] = 255
        return sources.ArraySource(images, np.arange(COUNT, dtype=np.int32))


def make(process_index: int = 0, process_count: int = 1, seed: int = 0, flip: bool = False) -> grain.MapDataset:
    dataset = Numbered(flip=flip)
    return pipeline.make_dataset(
        dataset.open(),
        dataset,
        Class(num_classes=COUNT).of,
        batch_size=8,
        seed=seed,
        process_index=process_index,
        process_count=process_count,
    )


def test_each_epoch_serves_every_example_once_in_a_new_order() -> None:
    dataset = make()
    labels = np.concatenate([dataset[i].condition["label"] for i in range(25)])  # 25 batches of 8 are 4 epochs of 50
    epochs = labels.reshape(4, COUNT)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(COUNT))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], np.arange(COUNT))
    assert not np.array_equal(labels[:8], make(seed=1)[0].condition["label"])


@pytest.mark.parametrize("process_count", [2, 4, 8])
def test_the_global_batch_does_not_depend_on_the_number_of_processes(process_count: int) -> None:
    whole = make(flip=True)
    shares = [make(index, process_count, flip=True) for index in range(process_count)]
    for step in (0, 1, 30):
        joined = np.concatenate([share[step].x for share in shares])
        np.testing.assert_array_equal(joined, whole[step].x)
        labels = np.concatenate([share[step].condition["label"] for share in shares])
        np.testing.assert_array_equal(labels, whole[step].condition["label"])


def test_resumes_exactly_and_from_one_number() -> None:
    iterator = pipeline.make_iterator(make(flip=True))
    for _ in range(5):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(20)]
    for threads in (0, 1, 20):
        resumed = pipeline.make_iterator(make(flip=True), threads=threads, prefetch=3)
        resumed.set_state(state)
        for batch in expected:
            again = next(resumed)
            np.testing.assert_array_equal(again.x, batch.x)
            np.testing.assert_array_equal(again.condition["label"], batch.condition["label"])
    assert state == {"next_index": 5}


def test_threads_by_cores_and_batches_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [pipeline.ahead(size) for size in (0, 2**20, 2**27, 2**29, 2**40)] == [16, 16, 8, 2, 2]
    options, real = [], pipeline.grain.ReadOptions
    monkeypatch.setattr(pipeline.grain, "ReadOptions", lambda **given: options.append(given) or real(**given))
    monkeypatch.setattr(pipeline.joblib, "cpu_count", lambda: 96)
    for threads, prefetch in ((-1, 16), (-1, 3), (20, 16)):
        pipeline.make_iterator(make(), threads=threads, prefetch=prefetch)
    assert [tuple(one.values()) for one in options] == [(16, 16), (3, 3), (20, 20)]


def test_range_and_types() -> None:
    batch = make()[0]
    label = batch.condition["label"]
    assert batch.x.dtype == np.float32 and label.dtype == np.int32
    np.testing.assert_allclose(batch.x[:, :, 0], 1.0)
    np.testing.assert_allclose(batch.x[:, 0, 1, 0], label / 127.5 - 1, atol=1e-6)


def test_flips_half_of_the_images_where_the_data_set_allows_it() -> None:
    dataset = make(flip=True)
    flipped = np.concatenate([dataset[i].x[:, 0, -1, 0] == 1.0 for i in range(60)])
    assert 0.4 < flipped.mean() < 0.6
    # Digits cannot be flipped: each that is served is one of them as it is.
    digits = datasets.Digits()
    assert not digits.flip
    with pytest.raises(TypeError, match="flip"):
        datasets.Digits(flip=True)  # type: ignore[call-arg]
    source = digits.open()
    known = {digits.scaled(source[index]["image"][None]).tobytes() for index in range(len(source))}
    served = pipeline.make_dataset(source, digits, Nothing().of, batch_size=8, seed=0)
    assert {image.tobytes() for index in range(50) for image in served[index].x} <= known


@pytest.mark.parametrize(("number", "expected"), [(20, 20), (COUNT, COUNT), (1000, COUNT)])
def test_load(number: int, expected: int) -> None:
    """So many examples, or all, each once, never flipped; which ones depends on the seed alone."""
    dataset = Numbered()
    condition_of = Class(num_classes=COUNT).of
    first, again = (pipeline.load(dataset.open(), dataset, condition_of, number, seed=0) for _ in range(2))
    label = first.condition["label"]
    assert first.x.shape == (expected, 4, 4, 1) and len(np.unique(label)) == expected
    np.testing.assert_allclose(first.x[:, :, 0], 1.0)
    np.testing.assert_allclose(first.x[:, 0, 1, 0], label / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(first.x, again.x)
    np.testing.assert_array_equal(label, again.condition["label"])
    other = pipeline.load(dataset.open(), dataset, condition_of, number, seed=1)
    assert not np.array_equal(other.condition["label"], label)


def test_the_network_is_told_what_the_conditioning_says() -> None:
    dataset = Numbered()
    assert pipeline.make_dataset(dataset.open(), dataset, Nothing().of, batch_size=8, seed=0)[0].condition == {}
    assert pipeline.load(dataset.open(), dataset, Nothing().of, 8, seed=0).condition == {}


def test_generated_pictures_are_put_on_the_grid_of_stored_ones() -> None:
    digits = datasets.Digits()
    stored = digits.scaled(digits.open()[0]["image"][None])
    np.testing.assert_allclose(digits.quantised(stored + np.float32(0.01)), stored, atol=1e-6)
    np.testing.assert_allclose(digits.quantised(np.full((1, 8, 8, 1), 7.0, np.float32)), 1.0)


def test_digits() -> None:
    digits = datasets.Digits()
    source = digits.open()
    assert len(source) == 1797
    condition_of = Class(num_classes=digits.num_classes).of
    batch = pipeline.make_dataset(source, digits, condition_of, batch_size=1797, seed=0)[0]
    assert batch.x.shape == (1797, *digits.shape) == (1797, 8, 8, 1)
    assert batch.x.min() == -1.0 and batch.x.max() == 1.0
    np.testing.assert_array_equal(np.unique(batch.condition["label"]), np.arange(10))
    with pytest.raises(ValueError, match="split = 'test': choose one of train"):
        datasets.Digits(split="test")


def test_the_first_example_is_checked() -> None:
    """What a data set says of its examples is compared with the first, before training."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Given(datasets.Pictures):
        shape, num_classes = (4, 4, 1), 2
        images: Any = None

        def open(self) -> sources.Source:
            return sources.ArraySource(self.images, np.zeros(len(self.images), np.int32))

    good = np.full((3, 4, 4, 1), 200, np.uint8)
    assert len(Given(images=good).opened()) == 3
    for images, message in (
        (good[:0], "there are no examples"),
        (good[..., [0, 0, 0]], r"an image has shape \(4, 4, 3\): the data set's shape is \(4, 4, 1\)"),
        (good / np.float32(255), "pixels lie in 0.78.* 0 to max_value = 255"),
        (good - np.int32(300), "pixels lie in -100 to -100"),
    ):
        with pytest.raises(UserError, match=message):
            Given(images=images).opened()
    with pytest.raises(UserError, match="labels 0 to 3: the data set's are 0 to 1"):
        Class(num_classes=2).of({"label": np.array([0, 3])})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: datasets.Digits(augment=1.5), r"augment = 1\.5: must be a number in \[0, 1\]"),
        (lambda: datasets.CIFAR10(augment=0.12), r"augment = 0\.12: mirrors images itself; set flip = False"),
    ],
)
def test_rejects(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
    assert datasets.CIFAR10(augment=0.12, flip=False).augment == 0.12
