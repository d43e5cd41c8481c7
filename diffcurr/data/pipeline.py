"""From a source to batches: shuffled, repeated, augmented, shared among processes, resumable.

The order of examples depends on the seed alone. Process p of P takes rows p B/P .. (p+1) B/P - 1 of every global batch
of B, so the global batch is the same for any number of processes, and the state of the iterator is one number, the
count of global batches, the same on every process.
"""

import functools
from typing import Any

import grain
import numpy as np
from jaxtyping import Float, Int

from diffcurr.data.sources import DatasetInfo, Source

Batch = dict[str, Any]
"""{"image": float32 [B, H, W, C], pixels in [-1, 1]; "label": int32 [B]}."""


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
    dataset = _drawn(grain.MapDataset.source(source).seed(seed).shuffle().repeat(), info)
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
    dataset = _drawn(grain.MapDataset.source(source).seed(seed).shuffle()[:number], info).batch(256)
    parts = list(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=16)))
    return to_model_range({key: np.concatenate([p[key] for p in parts]) for key in ("image", "label")}, info.max_value)


def to_model_range(batch: Batch, max_value: float | None) -> Batch:
    """Scales pixels from [0, max_value] to [-1, 1], where there is one, and keeps what training uses."""
    images: Float[np.ndarray, "..."] = np.asarray(batch["image"], np.float32)
    labels: Int[np.ndarray, "..."] = np.asarray(batch["label"], np.int32)
    if max_value is not None:
        images = images * np.float32(2.0 / max_value) - np.float32(1.0)
    return {"image": images, "label": labels}


def _drawn(dataset: grain.MapDataset, info: DatasetInfo) -> grain.MapDataset:
    """With latents drawn where the source gives their means and standard deviations."""
    if info.max_value is not None:
        return dataset
    return dataset.random_map(functools.partial(_sample_latent, channels=info.channels))


def _sample_latent(example: dict[str, Any], rng: np.random.Generator, channels: int) -> dict[str, Any]:
    image: Float[np.ndarray, "height width channel"] = example["image"]
    if image.shape[-1] == channels:
        return example
    noise = rng.standard_normal((*image.shape[:-1], channels), np.float32)
    return {**example, "image": image[..., :channels] + image[..., channels:] * noise}


def _flip(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {**example, "image": np.ascontiguousarray(example["image"][:, ::-1])}
    return example
