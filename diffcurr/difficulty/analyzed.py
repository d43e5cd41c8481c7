"""The data that an analysis is of: read when they are needed, no more of them in memory than the config says."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from ml_collections import ConfigDict

from diffcurr.batch import Batch
from diffcurr.codecs import Codec
from diffcurr.codecs.on_host import OnHost
from diffcurr.conditioning import Conditioning
from diffcurr.data import pipeline
from diffcurr.data.datasets import Dataset
from diffcurr.difficulty.points import Points
from diffcurr.processes import Process
from diffcurr.training import distributed

READ = 256  # images read, and encoded, at a time
# Points that a device computes with at once: with the samples of one part they should fit in its fast memory.
PIECES = {"cpu": 512}
PIECE = 8192  # on other devices


@runtime_checkable
class Experiment(Protocol):
    """The part of an experiment that a curve depends on."""

    @property
    def config(self) -> ConfigDict: ...

    @property
    def dataset(self) -> Dataset: ...

    @property
    def conditioning(self) -> Conditioning: ...

    @property
    def encoder(self) -> Codec | None: ...

    @property
    def process(self) -> Process: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What is analyzed: all of the split, or `analysis.images` of them drawn by the seed; encoded, means of latents.

    Attributes:
      read: (number of images, process p, number P of processes) -> images p, p + P, ... of the first so many.
      number: number of images, over all processes.
      shape: shape of one image, encoded.
      block: images of a process in memory at a time.
    """

    read: Callable[[int, int, int], Iterator[Batch]]
    number: int
    shape: tuple[int, ...]
    block: int

    @functools.cached_property
    def examples(self) -> Batch:
        """All images, or the first `block`, with their conditions, in memory; the same in every process."""
        parts = list(self.read(min(self.number, self.block), 0, 1))
        whole: Batch = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
        return whole

    @functools.cached_property
    def points(self) -> Points:
        """The images without their conditions, each process its share of them, in blocks."""
        share = jax.process_index(), jax.process_count()
        is_whole = share[1] == 1 and self.number <= self.block

        def read() -> Iterator[np.ndarray]:
            batches = iter([self.examples]) if is_whole else self.read(self.number, *share)
            return (batch.x for batch in batches)

        return Points(
            read=read,
            number=self.number,
            dimension=int(np.prod(self.shape)),
            block=self.block,
            piece=PIECES.get(jax.default_backend(), PIECE),
            process_index=share[0],
            process_count=share[1],
        )


def load_data(experiment: Experiment, say: Callable[[str], None]) -> Data:
    """Opens the data; they are read when they are needed, as often as they are, unless one block holds them all."""
    config, dataset = experiment.config, experiment.dataset
    source = distributed.primary_first(dataset.opened)
    number = min(len(source), config.analysis.images)
    say(f"{config.dataset.name}: {number:,} of {len(source):,} images")
    encode = None if experiment.encoder is None else _encoder(experiment.encoder)

    def read(number: int, process_index: int, process_count: int) -> Iterator[Batch]:
        share = {"process_index": process_index, "process_count": process_count, "batch_size": READ}
        batches = pipeline.stream(source, dataset, experiment.conditioning.of, number, config.seed, **share)
        return batches if encode is None else map(encode, batches)

    shape = dataset.shape if experiment.encoder is None else experiment.encoder.latent_shape(dataset.shape)
    return Data(read=read, number=number, shape=shape, block=config.analysis.block)


def _encoder(codec: Codec) -> Callable[[Batch], Batch]:
    """What puts the means of latents in the place of images; the weights are read when they are first needed."""
    on_host = OnHost(codec=codec, params=codec.load, devices=jax.local_devices())
    return lambda batch: batch._replace(x=on_host.encoded(batch.x, READ))
