"""From a source to batches: shuffled, repeated, augmented, shared among processes, resumable.

The order of examples depends on the seed alone. Process p of P takes rows p B/P .. (p+1) B/P - 1 of every global batch
of B, so the global batch is the same for any number of processes, and the state of the iterator is one number, the
count of global batches, the same on every process. Processes that hold the same rows count as one
(`training.sharding.batch_share`).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import jax
import joblib
import numpy as np

from diffcurr.batch import Batch
from diffcurr.data.datasets import Dataset
from diffcurr.data.sources import Source

ConditionOf = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Stored examples, {"image", "label", ...} with a leading axis -> what the network is told (`Conditioning.of`)."""

AHEAD = 2**30  # bytes of batches that are held ready


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
    examples = dataset.trained(grain.MapDataset.source(source).seed(seed).shuffle().repeat())
    batches = examples.batch(batch_size // process_count, drop_remainder=True)[process_index::process_count]
    return batches.map(lambda read: Batch(dataset.scaled(read["image"]), condition_of(read), read.get("features")))


def ahead(batch_bytes: int) -> int:
    """How many batches of so many bytes are held ready: what fits into 1 GiB, two at least and 16 at most."""
    return min(max(AHEAD // max(batch_bytes, 1), 2), 16)


def make_iterator(dataset: grain.MapDataset, *, threads: int = 2, prefetch: int = 16) -> grain.DatasetIterator:
    """Reads ahead on threads. `get_state()` / `set_state()` of the result resume it exactly.

    Args:
      threads, prefetch: see `read_options`; what is held ready are elements of `dataset`, that is batches.
    """
    return iter(dataset.to_iter_dataset(read_options(threads, prefetch)))


def read_options(threads: int, prefetch: int) -> grain.ReadOptions:
    """How Grain reads ahead.

    Args:
      threads: 0 reads each element when it is asked for; -1 is one thread for each core, `prefetch` at most.
      prefetch: elements that are held ready, at least one a thread; about so many are in memory.
    """
    if threads < 0:
        threads = min(joblib.cpu_count(), prefetch)
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads))


def stream(
    source: Source,
    dataset: Dataset,
    condition_of: ConditionOf,
    number: int,
    seed: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    batch_size: int = 256,
) -> Iterator[Batch]:
    """This process's share of `number` examples, or of all if there are fewer; which ones depends on the seed alone.

    Process p of P takes examples p, p + P, ... The last batch holds what is left.
    """
    examples = dataset.drawn(grain.MapDataset.source(source).seed(seed).shuffle()[:number])
    batches = examples[process_index::process_count].batch(batch_size)
    held = ahead(4 * batch_size * math.prod(dataset.shape))
    for read in batches.to_iter_dataset(read_options(dataset.threads, held)):
        yield Batch(dataset.scaled(read["image"]), condition_of(read))


def load(source: Source, dataset: Dataset, condition_of: ConditionOf, number: int, seed: int) -> Batch:
    """`number` examples, or all if there are fewer, as one batch in memory; which ones depends on the seed alone."""
    read = list(stream(source, dataset, condition_of, number, seed))
    whole: Batch = jax.tree.map(lambda *parts: np.concatenate(parts), *read)
    return whole
