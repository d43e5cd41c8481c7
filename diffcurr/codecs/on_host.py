"""A codec for arrays on the host, on the devices of this process."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from diffcurr.batch import in_chunks
from diffcurr.codecs.base import Codec, Params, WithTokens
from diffcurr.codecs.identity import Identity


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnHost:
    """Encodes and decodes NumPy arrays.

    Attributes:
      codec: the codec.
      params: reads its weights, onto the host.
      devices: the devices of this process.
    """

    codec: Codec
    params: Callable[[], Params]
    devices: Sequence[jax.Device]

    def decoded(
        self, latents: Float[np.ndarray, "n *latent"], rows: int = 1
    ) -> Float[np.ndarray, "n height width channel"]:
        """Images in [-1, 1], up to the error of the model.

        Args:
          rows: fills up to a multiple of so many, so that one program serves batches of all sizes.
        """
        if isinstance(self.codec, Identity):
            return np.asarray(latents)
        return self._computed(self._decode, self._placed, latents, rows)

    def encoded(
        self, images: Float[np.ndarray, "n height width channel"], rows: int = 1
    ) -> Float[np.ndarray, "n *latent"]:
        """The means of the latents of images in [-1, 1]; `rows` as for `decoded`."""
        return self._computed(self._encode, self._placed, images, rows)

    def reconstructed(
        self, params: Params, images: Float[np.ndarray, "n height width channel"]
    ) -> Float[np.ndarray, "n height width channel"]:
        """What the means of the images' latents are decoded to, by weights that are given."""
        return self._computed(self._reconstruct, params, images, 1)

    def tokens(
        self, params: Params, images: Float[np.ndarray, "n height width channel"]
    ) -> Int[np.ndarray, "n row column"]:
        """The tokens of images in [-1, 1] by weights that are given; of a codec `WithTokens`."""
        return self._computed(self._tokens, params, images, 1)

    def _computed(self, function: Any, params: Params, examples: np.ndarray, rows: int) -> np.ndarray:
        number, together = len(examples), len(self.devices) * (self.codec.images_at_once or 1)
        wanted = -(-number // rows) * rows
        wanted = -(-wanted // together) * together
        filled = np.concatenate([examples, np.repeat(examples[:1], wanted - number, axis=0)])
        with jax.transfer_guard("allow"):
            spread = jax.device_put(filled, NamedSharding(self._mesh, PartitionSpec("images")))
            return np.asarray(function(params, spread))[:number]

    @functools.cached_property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), "images")

    @functools.cached_property
    def _placed(self) -> Params:
        """The weights on each of the devices."""
        with jax.transfer_guard("allow"):
            return jax.device_put(self.params(), NamedSharding(self._mesh, PartitionSpec()))

    @functools.cached_property
    def _decode(self) -> Any:
        return self._compiled(self.codec.decode_with)

    @functools.cached_property
    def _encode(self) -> Any:
        return self._compiled(lambda params, images: self.codec.encode_with(params, images)[0])

    @functools.cached_property
    def _reconstruct(self) -> Any:
        encode, decode = self.codec.encode_with, self.codec.decode_with
        return self._compiled(lambda params, images: decode(params, encode(params, images)[0]))

    @functools.cached_property
    def _tokens(self) -> Any:
        assert isinstance(self.codec, WithTokens)
        return self._compiled(self.codec.tokens_with)

    def _compiled(self, function: Any) -> Any:
        def in_parts(params: Params, examples: jax.Array) -> jax.Array:
            one = functools.partial(function, params)
            return in_chunks(one, examples, len(self.devices), self.codec.images_at_once)

        return jax.jit(in_parts)
