"""What a codec is."""

import abc

from jaxtyping import Array, Float

from diffcurr import ranges


class Codec(ranges.Checked, abc.ABC):
    """Encodes images to what the process noises, and decodes it. Everything a person sees is decoded."""

    @abc.abstractmethod
    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """The shape of the latent of an image of shape (height, width, channels)."""

    @abc.abstractmethod
    def encode(
        self, images: Float[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch *latent"], Float[Array, "batch *latent"] | None]:
        """(mean, standard deviation) of the latents of images in [-1, 1]; None where it is deterministic."""

    @abc.abstractmethod
    def decode(self, latents: Float[Array, "batch *latent"]) -> Float[Array, "batch height width channel"]:
        """Images, in [-1, 1] up to the error of the model."""
