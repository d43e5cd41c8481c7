"""What is written to disk of pictures on the host: the latents that a process noises, or features."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding
from jaxtyping import Array, Float

from diffcurr.data.shards import Contents, Stored
from diffcurr.errors import UserError

AT_ONCE = 32  # images that a device encodes at a time, where the codec takes any number


@runtime_checkable
class Encodes(Protocol):
    """A codec, or a network whose features are stored."""

    @property
    def images_at_once(self) -> int: ...

    def encode_with(
        self, params: Any, images: Float[Array, "n height width channel"]
    ) -> tuple[Float[Array, "n ..."], Float[Array, "n ..."] | None]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
    """Encodes images on the devices of this process.

    Each call gives each device as many images as it takes at once, always the same ones together, so that no bit
    depends on the number of devices.

    Attributes:
      codec: encodes them.
      params: the codec's weights.
      devices: those of this process.
      contents: what is stored of an image.
    """

    codec: Encodes
    params: Any
    devices: Sequence[jax.Device]
    contents: Contents

    @property
    def at_once(self) -> int:
        """Images of each device in a call; divides a shard, so that each has the same neighbours whoever encodes it."""
        most = self.codec.images_at_once or AT_ONCE
        return max(n for n in range(1, most + 1) if self.contents.shard % n == 0)

    @property
    def batch(self) -> int:
        """Images in a call."""
        return self.at_once * len(self.devices)

    def __call__(self, examples: Iterator[dict[str, Any]], scaled: Any) -> Iterator[Stored]:
        """What is to be stored of each example. While the devices encode a batch, the one before is handed out.

        Args:
          examples: {"image", ...}, as they are stored.
          scaled: stored images -> images in [-1, 1].

        Raises:
          UserError: see `checked`.
        """
        waiting: tuple[list[dict[str, Any]], list[list[jax.Array]]] | None = None
        while batch := list(itertools.islice(examples, self.batch)):
            images = scaled(np.stack([self.checked(one["image"]) for one in batch]))
            started = batch, self._encode(images)
            if waiting:
                yield from self._stored(*waiting)
            waiting = started
        if waiting:
            yield from self._stored(*waiting)

    def means(self, images: Float[np.ndarray, "n height width channel"]) -> Float[np.ndarray, "n ..."]:
        """The latents' means of at most a batch of images."""
        encoded = np.concatenate([np.asarray(part[0]) for part in self._encode(images)])
        return encoded[: len(images), ..., : self.contents.latent_shape[2]]

    def checked(self, image: Any) -> Any:
        """The stored image.

        Raises:
          UserError: if it is not of the shape that the data set says.
        """
        if np.shape(image) != tuple(self.contents.image_shape):
            raise UserError(f"an image has shape {np.shape(image)}, not {tuple(self.contents.image_shape)}")
        return image

    def _stored(self, batch: list[dict[str, Any]], encoded: list[list[jax.Array]]) -> Iterator[Stored]:
        arrays = itertools.chain(*(np.stack([np.asarray(view) for view in part], axis=1) for part in encoded))
        for example, array in zip(batch, arrays, strict=False):  # those that fill the last part are left out
            yield array, {"label": int(example["label"])} if "label" in example else {}

    def _encode(self, images: Float[np.ndarray, "n height width channel"]) -> list[list[jax.Array]]:
        """What is stored of a batch: of each device's part, the images encoded, and their mirror images."""
        parts = np.split(images, range(self.at_once, len(images), self.at_once))
        missing = self.at_once - len(parts[-1])
        parts[-1] = np.concatenate([parts[-1], np.zeros((missing, *images.shape[1:]), np.float32)])
        return list(self._threads.map(self._encode_part, parts, self.devices, self._params))

    def _encode_part(
        self, part: Float[np.ndarray, "n height width channel"], device: jax.Device, params: Any
    ) -> list[jax.Array]:
        views = [part, np.ascontiguousarray(part[:, :, ::-1])] if self.contents.mirrored else [part]
        return [self._compiled(params, jax.device_put(view, SingleDeviceSharding(device))) for view in views]

    @functools.cached_property
    def _params(self) -> list[Any]:
        """The weights on each device."""
        return [jax.device_put(self.params, SingleDeviceSharding(device)) for device in self.devices]

    @functools.cached_property
    def _threads(self) -> ThreadPoolExecutor:
        """At the first call, the program is compiled for all devices at once."""
        return ThreadPoolExecutor(len(self.devices))

    @functools.cached_property
    def _compiled(self) -> Any:
        """A program for one device, which rounds as on any other. One that is cut for several rounds otherwise."""

        def encode(params: Any, images: Float[Array, "n height width channel"]) -> Float[Array, "n ..."]:
            mean, std = self.codec.encode_with(params, images)
            return mean if std is None else jnp.concatenate([mean, std], axis=-1)

        return jax.jit(encode)
