"""What a process noises, as pictures on the host: batches, and the images that samples are compared with."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from diffcurr.batch import in_chunks
from diffcurr.codecs import Codec, Identity
from diffcurr.data import pipeline
from diffcurr.data.base import on_grid
from diffcurr.data.datasets import Dataset
from diffcurr.data.encoded import identity_of
from diffcurr.data.sources import Source, identity

BATCH = 256  # examples that are read and decoded at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoder:
    """Decodes what is on the host, on the devices of this process.

    Attributes:
      codec: whose latents they are.
      codec_params: reads its weights.
      devices: those of this process.
    """

    codec: Codec
    codec_params: Callable[[], Any]
    devices: Sequence[jax.Device]

    def __call__(self, latents: Float[np.ndarray, "n *latent"]) -> Float[np.ndarray, "n height width channel"]:
        """Images in [-1, 1], up to the error of the model."""
        if isinstance(self.codec, Identity):
            return np.asarray(latents)
        return self._on_devices(self._decode, self.codec_params(), latents)

    def reconstructed(
        self, params: Any, images: Float[np.ndarray, "n height width channel"]
    ) -> Float[np.ndarray, "n height width channel"]:
        """What the means of the images' latents are decoded to.

        Args:
          params: the codec's weights, on the host.
        """
        return self._on_devices(self._reconstruct, params, images)

    @functools.cached_property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), "images")

    def _on_devices(self, function: Any, params: Any, examples: np.ndarray) -> np.ndarray:
        """function(params, examples), spread over the devices."""
        number, together = len(examples), len(self.devices) * (self.codec.images_at_once or 1)
        filled = np.concatenate([examples, np.repeat(examples[:1], -number % together, axis=0)])
        with jax.transfer_guard("allow"):
            spread = jax.device_put(filled, NamedSharding(self._mesh, PartitionSpec("images")))
            return np.asarray(function(params, spread))[:number]

    @functools.cached_property
    def _decode(self) -> Any:
        return self._compiled(self.codec.decode_with)

    @functools.cached_property
    def _reconstruct(self) -> Any:
        encode, decode = self.codec.encode_with, self.codec.decode_with
        return self._compiled(lambda params, images: decode(params, encode(params, images)[0]))

    def _compiled(self, function: Any) -> Any:
        def in_parts(params: Any, examples: jax.Array) -> jax.Array:
            one = functools.partial(function, params)
            return in_chunks(one, examples, len(self.devices), self.codec.images_at_once)

        return jax.jit(in_parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealPictures:
    """The pictures of a data set that samples are compared with; latents are decoded.

    Attributes:
      dataset: of pixels, or of latents.
      decoder: decodes the latents.
      process_index, process_count: each process reads its share.
    """

    dataset: Dataset
    decoder: Decoder
    process_index: int = 0
    process_count: int = 1

    @functools.cached_property
    def _source(self) -> Source:
        return self.dataset.opened()

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
        """Those of this process."""
        return self.decoder.devices

    @property
    def numbers_here(self) -> Int[np.ndarray, " here"]:
        """Which of all pictures this process reads."""
        return np.arange(len(self._source))[self.process_index :: self.process_count]

    def read(self) -> Iterator[Float[np.ndarray, "b height width channel"]]:
        """Those of this process, in [-1, 1], in an order that never changes."""
        for x in self.stored():
            yield self.quantised(self.decoder(x)) if self.dataset.is_latent else x

    def stored(self) -> Iterator[Float[np.ndarray, "b ..."]]:
        """What they are made from: latents, or the pictures themselves."""
        share = {"process_index": self.process_index, "process_count": self.process_count, "batch_size": BATCH}
        for batch in pipeline.stream(self._source, self.dataset, lambda _: {}, len(self._source), seed=0, **share):
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
