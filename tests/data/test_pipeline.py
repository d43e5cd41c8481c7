import grain
import numpy as np
import pytest

from diffcurr.data import pipeline, sources
from diffcurr.errors import UserError

COUNT = 50
INFO = sources.DatasetInfo("numbered", 4, 1, 10, 255.0, flip=True)


def numbered_source() -> sources.ArraySource:
    """Image i is i everywhere, but for a mark in its left column."""
    images = np.tile(np.arange(COUNT, dtype=np.uint8)[:, None, None, None], (1, 4, 4, 1))
    images[:, :, 0] = 255
    return sources.ArraySource(images, np.arange(COUNT, dtype=np.int32))


def make(process_index: int = 0, process_count: int = 1, seed: int = 0, flip: bool = False) -> grain.MapDataset:
    return pipeline.make_dataset(
        numbered_source(),
        INFO,
        batch_size=8,
        seed=seed,
        flip=flip,
        process_index=process_index,
        process_count=process_count,
    )


def test_each_epoch_serves_every_example_once_in_a_new_order() -> None:
    dataset = make()
    labels = np.concatenate([dataset[i]["label"] for i in range(25)])  # 25 batches of 8 are 4 epochs of 50
    epochs = labels.reshape(4, COUNT)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(COUNT))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], np.arange(COUNT))
    assert not np.array_equal(labels[:8], make(seed=1)[0]["label"])


@pytest.mark.parametrize("process_count", [2, 4, 8])
def test_the_global_batch_does_not_depend_on_the_number_of_processes(process_count: int) -> None:
    whole = make(flip=True)
    shares = [make(index, process_count, flip=True) for index in range(process_count)]
    for step in (0, 1, 30):
        for name in ("image", "label"):
            joined = np.concatenate([share[step][name] for share in shares])
            np.testing.assert_array_equal(joined, whole[step][name])


def test_resumes_exactly_and_from_one_number() -> None:
    iterator = pipeline.make_iterator(make(flip=True))
    for _ in range(5):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(20)]
    resumed = pipeline.make_iterator(make(flip=True), threads=1, prefetch=3)
    resumed.set_state(state)
    for batch in expected:
        for name, rows in next(resumed).items():
            np.testing.assert_array_equal(rows, batch[name])
    assert state == {"next_index": 5}


def test_range_and_types() -> None:
    batch = make()[0]
    assert batch["image"].dtype == np.float32 and batch["label"].dtype == np.int32
    np.testing.assert_allclose(batch["image"][:, :, 0], 1.0)
    np.testing.assert_allclose(batch["image"][:, 0, 1, 0], batch["label"] / 127.5 - 1, atol=1e-6)


def test_flips_half_of_the_images_where_the_data_set_allows_it() -> None:
    dataset = make(flip=True)
    flipped = np.concatenate([dataset[i]["image"][:, 0, -1, 0] == 1.0 for i in range(60)])
    assert 0.4 < flipped.mean() < 0.6
    digits = sources.DATASETS["digits"]
    source = sources.open_source(digits)
    fixed = pipeline.make_dataset(source, digits, batch_size=8, seed=0, flip=True)
    plain = pipeline.make_dataset(source, digits, batch_size=8, seed=0, flip=False)
    np.testing.assert_array_equal(fixed[3]["image"], plain[3]["image"])


def test_digits() -> None:
    source = sources.open_source(sources.DATASETS["digits"])
    assert len(source) == 1797
    batch = pipeline.make_dataset(source, sources.DATASETS["digits"], batch_size=1797, seed=0)[0]
    assert batch["image"].shape == (1797, 8, 8, 1)
    assert batch["image"].min() == -1.0 and batch["image"].max() == 1.0
    np.testing.assert_array_equal(np.unique(batch["label"]), np.arange(10))
    with pytest.raises(UserError, match="split = 'test'"):
        sources.open_source(sources.DATASETS["digits"], "test")
