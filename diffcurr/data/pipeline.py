"""From a source to batches: shuffled, repeated, augmented, shared among processes, resumable.

The order of examples depends on the seed alone. Process p of P takes rows p B/P .. (p+1) B/P - 1 of every global batch
of B, so the global batch is the same for any number of processes, and the state of the iterator is one number, the
count of global batches, the same on every process.
"""

from collections.abc import Callable, Mapping
from typing import Any

import grain
import numpy as np

from diffcurr.batch import Batch
from diffcurr.data.datasets import Dataset
from diffcurr.data.sources import Source

ConditionOf = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Stored examples, {"image", "label", ...} with a leading axis -> what the network is told (`Conditioning.of`)."""


def make_dataset(
    source: Source,
    dataset: Dataset,
    condition_of: ConditionOf,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """An endless data set whose element i is this process's share of global batch i.

    Args:
      batch_size: global; must be divisible by process_count.
    """
    examples = dataset.drawn(grain.MapDataset.source(source).seed(seed).shuffle().repeat())
    if dataset.flip:
        examples = examples.random_map(_flip)
    batches = examples.batch(batch_size // process_count, drop_remainder=True)[process_index::process_count]
    return batches.map(lambda examples: Batch(dataset.scaled(examples["image"]), condition_of(examples)))


def make_iterator(dataset: grain.MapDataset, *, threads: int = 2, prefetch: int = 16) -> grain.DatasetIterator:
    """Reads ahead on threads. `get_state()` / `set_state()` of the result resume it exactly.

    Args:
      threads: 0 reads each batch when it is asked for.
      prefetch: elements of `dataset`, that is batches, held ready, at least one a thread; about so many are in memory.
    """
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads))
    return iter(dataset.to_iter_dataset(options))


def load(source: Source, dataset: Dataset, condition_of: ConditionOf, number: int, seed: int) -> Batch:
    """`number` examples, or all if there are fewer, as one batch in memory; which ones depends on the seed alone."""
    examples = dataset.drawn(grain.MapDataset.source(source).seed(seed).shuffle()[:number]).batch(256)
    read = list(examples.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=16)))
    whole = {key: np.concatenate([part[key] for part in read]) for key in read[0]}
    return Batch(dataset.scaled(whole["image"]), condition_of(whole))


def _flip(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {**example, "image": np.ascontiguousarray(example["image"][:, ::-1])}
    return example
