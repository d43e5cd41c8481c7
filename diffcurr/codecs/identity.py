"""Pixels are what the process noises; stored latents stay as they are."""

import dataclasses

from jaxtyping import Array, Float

from diffcurr.codecs.base import Codec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity(Codec):
    """Leaves everything as it is."""

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return image_shape

    def encode(self, images: Float[Array, "batch height width channel"]) -> tuple[Float[Array, "batch *latent"], None]:
        return images, None

    def decode(self, latents: Float[Array, "batch *latent"]) -> Float[Array, "batch height width channel"]:
        return latents
