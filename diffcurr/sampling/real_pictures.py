"""The pictures that samples are compared with."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from diffcurr.codecs import Identity
from diffcurr.codecs.on_host import OnHost
from diffcurr.data import pipeline
from diffcurr.data.base import on_grid
from diffcurr.data.datasets import Dataset
from diffcurr.data.encoded import identity_of
from diffcurr.data.sources import Source, identity
from diffcurr.training import distributed

BATCH = 256  # examples that are read and decoded at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealPictures:
    """The pictures of a data set that samples are compared with; latents are decoded.

    Attributes:
      dataset: data set of pixels, or of latents.
      decoder: decodes the latents.
      held_out: whether they are the pictures that training never sees, or those that it does.
      process_index, process_count: each process reads its share.
    """

    dataset: Dataset
    decoder: OnHost
    held_out: bool = False
    process_index: int = 0
    process_count: int = 1

    @functools.cached_property
    def _source(self) -> Source:
        return distributed.primary_first(self.dataset.opened_held_out if self.held_out else self.dataset.opened)

    @property
    def are_decoded(self) -> bool:
        """Whether they are what the codec makes of latents, and not the pictures themselves."""
        return self.dataset.is_latent and not isinstance(self.decoder.codec, Identity)

    @property
    def described(self) -> dict[str, Any]:
        """What they are, as JSON values."""
        codec = {"decoded_by": identity_of(self.decoder.codec)} if self.are_decoded else {}
        return identity(self._source) | codec

    @property
    def devices(self) -> Sequence[jax.Device]:
        """The devices of this process."""
        return self.decoder.devices

    @property
    def number(self) -> int:
        """How many pictures there are, over all processes."""
        return len(self._source)

    @property
    def numbers_here(self) -> Int[np.ndarray, " here"]:
        """Which of all pictures this process reads."""
        return np.arange(self.number)[self.process_index :: self.process_count]

    def read(self) -> Iterator[Float[np.ndarray, "b height width channel"]]:
        """This process's share of the pictures, in [-1, 1], in an order that never changes."""
        for x in self.stored():
            yield self.quantised(self.decoder.decoded(x, BATCH)) if self.dataset.is_latent else x

    def stored(self) -> Iterator[Float[np.ndarray, "b ..."]]:
        """What they are made from: latents, or the pictures themselves."""
        share = {"process_index": self.process_index, "process_count": self.process_count, "batch_size": BATCH}
        for batch in pipeline.stream(self._source, self.dataset, lambda _: {}, self.number, seed=0, **share):
            yield batch.x

    @property
    def made_by(self) -> str:
        """What makes them from it, in words; "" for nothing."""
        return f" {sorted(identity_of(self.decoder.codec).items())}" if self.are_decoded else ""

    def quantised(
        self, images: Float[np.ndarray, "batch height width channel"]
    ) -> Float[np.ndarray, "batch height width channel"]:
        """Generated pictures on the grid of values that stored ones have, as a picture file would keep them."""
        return on_grid(images, 255.0) if self.are_decoded else self.dataset.quantised(images)
