"""A codec of tokens without training: each 4x4 patch is the nearest of a few fixed ones. For every room's tests."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcurr.codecs import CODECS, WithTokens
from diffcurr.networks.patches import patchify, unpatchify


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patches(WithTokens):
    """Pictures of one channel.

    Attributes:
      codes: number of codes.
      loads: how often the weights were read.
    """

    codes: int = 12
    loads: list[int] = dataclasses.field(default_factory=list, init=False, compare=False)

    @property
    def num_codes(self) -> int:
        return self.codes

    def token_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int]:
        height, width, channels = image_shape
        if height % 4 or width % 4 or channels != 1:
            raise ValueError(f"pictures of {height}x{width}x{channels}: sides must be divisible by 4, channels 1")
        return height // 4, width // 4

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return (*self.token_shape(image_shape), 16)

    def abstract_params(self) -> Any:
        return {"codes": jax.ShapeDtypeStruct((self.codes, 16), jnp.float32)}

    def load(self) -> Any:
        self.loads.append(1)
        return {"codes": np.random.default_rng(0).uniform(-1, 1, (self.codes, 16)).astype(np.float32)}

    def encode_with(self, params: Any, images: Any) -> tuple[Any, None]:
        rows, columns = self.token_shape(images.shape[1:])
        return patchify(images, 4).reshape(-1, rows, columns, 16), None

    def decode_with(self, params: Any, latents: Any) -> Any:
        rows, columns = latents.shape[1:3]
        return unpatchify(latents.reshape(len(latents), -1, 16), 4, 4 * rows, 4 * columns)

    def tokens_with(self, params: Any, images: Any) -> Any:
        patches = self.encode_with(params, images)[0]
        return jnp.argmin(jnp.sum((patches[..., None, :] - params["codes"]) ** 2, axis=-1), axis=-1).astype(jnp.int32)

    def decode_tokens_with(self, params: Any, tokens: Any) -> Any:
        return self.decode_with(params, params["codes"][tokens])


@pytest.fixture(scope="module", autouse=True)
def coded_guests() -> Iterator[None]:
    """In the modules that import it the codec is a part like any other."""
    CODECS["patches"] = Patches
    yield
    del CODECS["patches"]


TOKENS: dict[str, Any] = {"task": "tokens", "codec": "patches", "network": "token_transformer"}
