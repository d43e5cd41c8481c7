"""A data set and a codec as a guest brings them, of which mirroring and encoding do not commute; and their config."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from diffcurr.codecs import CODECS
from diffcurr.codecs.base import WithWeights
from diffcurr.config import outline
from diffcurr.data.base import Mirrored
from diffcurr.data.datasets import DATASETS
from diffcurr.data.sources import ArraySource


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strokes(Mirrored):
    """Random pictures of 8x8, labelled 0, 1, 2 in turn."""

    shape, num_classes = (8, 8, 1), 3
    number: int = 100
    seed: int = 0

    def open(self) -> ArraySource:
        images = np.random.default_rng(self.seed).integers(0, 256, (self.number, *self.shape), np.uint8)
        return ArraySource(images, np.arange(self.number, dtype=np.int32) % 3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lopsided(WithWeights):
    """The four pixels of a square as channels, the first times a weight; standard deviations by column.

    Attributes:
      gain: the weight that it loads.
      broken: whether bright pictures have no latent.
    """

    gain: float = 2.0
    broken: bool = False

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return image_shape[0] // 2, image_shape[1] // 2, 4 * image_shape[2]

    def abstract_params(self) -> Any:
        return {"gain": jnp.zeros(())}

    def load(self) -> Any:
        return {"gain": np.float32(self.gain)}

    def encode_with(
        self, params: Any, images: Float[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch *latent"], Float[Array, "batch *latent"]]:
        corners = [images[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        mean = jnp.concatenate([params["gain"] * corners[0], *corners[1:]], axis=-1)
        std = jnp.broadcast_to(0.01 * (1.0 + jnp.arange(mean.shape[2]))[:, None], mean.shape)
        bright = (images[:, :1, :1, :1] > 0.99) & self.broken
        return jnp.where(bright, jnp.nan, mean), std

    def decode_with(
        self, params: Any, latents: Float[Array, "batch *latent"]
    ) -> Float[Array, "batch height width channel"]:
        first, *others = jnp.split(latents, 4, axis=-1)
        rows = [jnp.stack(pair, axis=3) for pair in ((first / params["gain"], others[0]), (others[1], others[2]))]
        batch, height, width, channels = first.shape
        return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, channels)

    def identity(self) -> dict[str, Any]:
        return {"gain": self.gain}


def get_config() -> ConfigDict:
    CODECS["lopsided"], DATASETS["strokes"] = Lopsided, Strokes
    config = outline()
    config.dataset.name, config.codec.name, config.conditioning.name = "strokes", "lopsided", "class"
    config.network.update(hidden_size=8, depth=1, num_heads=1, patch_size=4)
    config.curriculum.clusters = 5
    config.sampling.clip, config.encode.shard = 0.0, 32
    return config
