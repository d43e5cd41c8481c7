"""Dense layers and convolutions over a batch.

The numbers are those of Flax's layers, in a form that compiles better: see `products`.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from diffcurr.networks import products
from diffcurr.networks.sharded import Layer


class Linear(nnx.Linear, Layer):
    """`nnx.Linear` over the last axis."""

    def __call__(
        self, inputs: Float[Array, "*batch inside"], out_sharding: Any = None
    ) -> Float[Array, "*batch outside"]:
        del out_sharding  # Flax's, for explicit axes
        kernel, bias = self.kernel[...], None if self.bias is None else self.bias[...]
        return products.linear(inputs.astype(self.dtype), kernel, bias, self.places(kernel.shape, inputs.ndim))

    def in_parts(self, inputs: Float[Array, "*batch inside"], number: int) -> tuple[Float[Array, "*batch part"], ...]:
        """The outputs, cut into a number of equal parts."""
        kernel, bias = self.kernel[...], None if self.bias is None else self.bias[...]
        inside, outside = kernel.shape
        places = self.places(kernel.shape, inputs.ndim)
        if places is None or places != self.places((inside, outside // number), inputs.ndim):
            return tuple(jnp.split(self(inputs), number, axis=-1))
        return products.linear_in_parts(inputs.astype(self.dtype), kernel, bias, places, number)


class Conv(nnx.Conv, Layer):
    """`nnx.Conv` over images, with a square kernel that moves by one pixel, and `padding` zeros on every side."""

    def __call__(
        self, inputs: Float[Array, "batch height width inside"], out_sharding: Any = None
    ) -> Float[Array, "batch height_out width_out outside"]:
        del out_sharding
        kernel, bias = self.kernel[...], None if self.bias is None else self.bias[...]
        inputs, padding = inputs.astype(self.dtype), int(self.padding)
        if kernel.shape[:2] == (1, 1) and not padding:
            kernel = kernel[0, 0]
            return products.linear(inputs, kernel, bias, self.places(kernel.shape, inputs.ndim))
        return products.conv(inputs, kernel, bias, padding, self.places(kernel.shape, inputs.ndim))
