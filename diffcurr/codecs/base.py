"""What a codec is."""

import abc
import functools
import json
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

from jaxtyping import Array, Float, Int

from diffcurr import ranges

SETTINGS = "settings"  # name of the fact
Params: TypeAlias = Any
"""The arrays of a codec, a pytree; {} for one that has none."""


class Codec(ranges.Checked, abc.ABC):
    """Encodes images to what the process noises, and decodes it. Everything a person sees is decoded.

    A codec is settings. Compiled programs call `encode_with` and `decode_with`, so that they take its weights as inputs
    and hold no copy; a codec without weights needs only `encode` and `decode`, and one with them is a `WithWeights`.

    Attributes:
      images_at_once: how many images one device encodes or decodes at a time; 0 for any number.
    """

    images_at_once: ClassVar[int] = 0

    @abc.abstractmethod
    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """The shape of the latent of an image of shape (height, width, channels).

        Raises:
          ValueError: if it cannot encode such images.
        """

    def abstract_params(self) -> Params:
        """Shapes and dtypes of the weights. Reads nothing."""
        return {}

    def load(self) -> Params:
        """The weights, as NumPy arrays, read from where the settings say.

        Raises:
          UserError: if they cannot be read, or are those of another codec.
        """
        return {}

    @abc.abstractmethod
    def encode(
        self, images: Float[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch *latent"], Float[Array, "batch *latent"] | None]:
        """(mean, standard deviation) of the latents of images in [-1, 1]; None where it is deterministic."""

    @abc.abstractmethod
    def decode(self, latents: Float[Array, "batch *latent"]) -> Float[Array, "batch height width channel"]:
        """Images, in [-1, 1] up to the error of the model."""

    def encode_with(
        self, params: Params, images: Float[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch *latent"], Float[Array, "batch *latent"] | None]:
        """`encode` by weights that are given. Jit-able."""
        del params
        return self.encode(images)

    def decode_with(
        self, params: Params, latents: Float[Array, "batch *latent"]
    ) -> Float[Array, "batch height width channel"]:
        """`decode` by weights that are given. Jit-able."""
        del params
        return self.decode(latents)

    def identity(self) -> dict[str, Any]:
        """What tells its latents from those of another codec, as JSON values, to be stored beside them."""
        return {}


class WithWeights(Codec):
    """A codec that has weights, which it reads when it first needs them."""

    def encode(
        self, images: Float[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch *latent"], Float[Array, "batch *latent"] | None]:
        return self.encode_with(self._loaded, images)

    def decode(self, latents: Float[Array, "batch *latent"]) -> Float[Array, "batch height width channel"]:
        return self.decode_with(self._loaded, latents)

    @functools.cached_property
    def _loaded(self) -> Params:
        return self.load()

    @property
    def beside_shapes(self) -> dict[str, Any]:
        """Settings that the weights were trained with and their shapes do not show, as JSON values."""
        return {}

    @property
    def facts(self) -> dict[str, str]:
        """What a file of its weights says beside them, for `check_facts`."""
        return {SETTINGS: json.dumps(self.beside_shapes)}

    def check_facts(self, facts: Mapping[str, str]) -> None:
        """Raises ValueError if a file of weights says that they were trained with other settings."""
        if SETTINGS not in facts:  # a file of others, or of an older version
            return
        there, here = json.loads(facts[SETTINGS]), json.loads(self.facts[SETTINGS])
        if there != here:
            raise ValueError(f"they were trained with other settings ({there} there, {here} here): give those")

    @abc.abstractmethod
    def abstract_params(self) -> Params: ...

    @abc.abstractmethod
    def load(self) -> Params: ...

    @abc.abstractmethod
    def encode_with(
        self, params: Params, images: Float[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch *latent"], Float[Array, "batch *latent"] | None]: ...

    @abc.abstractmethod
    def decode_with(
        self, params: Params, latents: Float[Array, "batch *latent"]
    ) -> Float[Array, "batch height width channel"]: ...


class WithTokens(WithWeights):
    """A codec that turns a picture into a grid of tokens, the numbers of codes, and a grid of tokens into a picture."""

    @property
    @abc.abstractmethod
    def num_codes(self) -> int:
        """How many codes there are; tokens are 0 to num_codes - 1."""

    @abc.abstractmethod
    def token_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int]:
        """(rows, columns) of the tokens of an image of shape (height, width, channels).

        Raises:
          ValueError: if it cannot encode such images.
        """

    @abc.abstractmethod
    def tokens_with(
        self, params: Params, images: Float[Array, "batch height width channel"]
    ) -> Int[Array, "batch row column"]:
        """The tokens of images in [-1, 1], int32. Jit-able."""

    @abc.abstractmethod
    def decode_tokens_with(
        self, params: Params, tokens: Int[Array, "batch row column"]
    ) -> Float[Array, "batch height width channel"]:
        """Images, in [-1, 1] up to the error of the model. Jit-able."""
