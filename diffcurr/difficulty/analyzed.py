"""The data that an analysis is of: read when they are needed, no more of them in memory than the config says."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from diffcurr.batch import Batch, in_chunks
from diffcurr.codecs import Codec
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
      shape: of one of them, encoded.
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
    encoder = None if experiment.encoder is None else Encoder(experiment.encoder)

    def read(number: int, process_index: int, process_count: int) -> Iterator[Batch]:
        share = {"process_index": process_index, "process_count": process_count, "batch_size": READ}
        batches = pipeline.stream(source, dataset, experiment.conditioning.of, number, config.seed, **share)
        return batches if encoder is None else map(encoder, batches)

    shape = dataset.shape if experiment.encoder is None else experiment.encoder.latent_shape(dataset.shape)
    return Data(read=read, number=number, shape=shape, block=config.analysis.block)


class Encoder:
    """Encodes what is on the host, on the devices of this process; its weights are read when they are first needed."""

    def __init__(self, codec: Codec):
        mesh = Mesh(np.array(jax.local_devices()), "images")
        self._codec, self._devices = codec, mesh.size
        self._spread, self._everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("images",), ()))

    @functools.cached_property
    def _params(self) -> Any:
        return jax.device_put(self._codec.load(), self._everywhere)

    @functools.cached_property
    def _encode(self) -> Any:
        def encode(params: Any, images: jax.Array) -> jax.Array:
            one = functools.partial(self._codec.encode_with, params)
            return in_chunks(lambda part: one(part)[0], images, self._devices, self._codec.images_at_once)

        return jax.jit(encode)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the means of its latents; of at most READ images."""
        number = -(-READ // self._devices) * self._devices  # one program for batches of all sizes
        filled = np.concatenate([batch.x, np.repeat(batch.x[:1], number - len(batch.x), axis=0)])
        latents = self._encode(self._params, jax.device_put(filled, self._spread))
        return batch._replace(x=np.asarray(latents)[: len(batch.x)])
