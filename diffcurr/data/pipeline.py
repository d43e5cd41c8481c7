"""From a source to batches: shuffled, repeated, augmented, shared among processes, resumable.

The order of examples depends on the seed alone. Process p of P takes rows p B/P .. (p+1) B/P - 1 of every global batch
of B, so the global batch is the same for any number of processes, and the state of the iterator is one number, the
count of global batches, the same on every process.
"""

from typing import Any

import grain
import numpy as np
from jaxtyping import Float, Int

from diffcurr.data.sources import DatasetInfo, Source

Batch = dict[str, Any]
"""{"image": float32 [B, H, W, C] in [-1, 1], "label": int32 [B]}."""


def make_dataset(
    source: Source,
    info: DatasetInfo,
    *,
    batch_size: int,
    seed: int,
    flip: bool = True,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """An endless data set whose element i is this process's share of global batch i.

    Args:
      batch_size: global; must be divisible by process_count.
      flip: mirror images at random, where the data set allows it (`info.flip`).
    """
    dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    if flip and info.flip:
        dataset = dataset.random_map(_flip)
    dataset = dataset.batch(batch_size // process_count, drop_remainder=True)[process_index::process_count]
    return dataset.map(lambda batch: to_model_range(batch, info.max_value))


def make_iterator(dataset: grain.MapDataset, *, threads: int = 2, prefetch: int = 16) -> grain.DatasetIterator:
    """Reads ahead on threads. `get_state()` / `set_state()` of the result resume it exactly.

    Args:
      prefetch: elements of `dataset`, that is batches, held ready; about this many are in memory.
    """
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)))


def load(source: Source, info: DatasetInfo, number: int, seed: int) -> Batch:
    """`number` examples, or all if there are fewer, as one batch in memory; which ones depends on the seed alone."""
    dataset = grain.MapDataset.source(source).seed(seed).shuffle()[:number].batch(256)
    parts = list(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=16)))
    return to_model_range({key: np.concatenate([p[key] for p in parts]) for key in ("image", "label")}, info.max_value)


def to_model_range(batch: Batch, max_value: float) -> Batch:
    """Scales pixels from [0, max_value] to [-1, 1] and keeps what training uses."""
    images: Float[np.ndarray, "..."] = np.asarray(batch["image"], np.float32)
    labels: Int[np.ndarray, "..."] = np.asarray(batch["label"], np.int32)
    return {"image": images * np.float32(2.0 / max_value) - np.float32(1.0), "label": labels}


def _flip(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {**example, "image": np.ascontiguousarray(example["image"][:, ::-1])}
    return example
