"""Dense layers and convolutions over a batch.

The numbers are those of Flax's layers, in a form that compiles better. With leading axes merged, products are those of
two matrices: the weight gradients of the general form make transposed copies of every activation (on two CPU cores, a
weight gradient of DiT-S/2's blocks took 6 instead of 17 ms, one of a 1x1 convolution 9 instead of 43 ms). Gradients of
weights and biases are float32 whatever the compute dtype, so that devices add them up in float32.
"""

import functools
from typing import Any

import jax
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Shaped

from diffcurr.batch import BATCH_AXES


class Linear(nnx.Linear):
    """`nnx.Linear` over the last axis."""

    def __call__(
        self, inputs: Float[Array, "*batch inside"], out_sharding: Any = None
    ) -> Float[Array, "*batch outside"]:
        del out_sharding  # Flax's, for explicit axes
        return _add_bias(row_product(inputs.astype(self.dtype), self.kernel[...]), self.bias)


class Conv(nnx.Conv):
    """`nnx.Conv` over images, with a square kernel that moves by one pixel, and `padding` zeros on every side."""

    def __call__(
        self, inputs: Float[Array, "batch height width inside"], out_sharding: Any = None
    ) -> Float[Array, "batch height_out width_out outside"]:
        del out_sharding
        inputs, kernel, padding = inputs.astype(self.dtype), self.kernel[...], int(self.padding)
        if kernel.shape[:2] == (1, 1) and not padding:
            return _add_bias(row_product(inputs, kernel[0, 0]), self.bias)
        conv = _plain_conv if inputs.dtype == kernel.dtype else _mixed_conv
        return _add_bias(keep_batch_spread(conv(inputs, kernel, padding)), self.bias)


def _add_bias(outputs: Float[Array, "*batch outside"], bias: Any) -> Float[Array, "*batch outside"]:
    """Added in the bias's dtype, so that its gradient is summed in it."""
    return outputs if bias is None else (outputs + bias[...]).astype(outputs.dtype)


def row_product(
    x: Float[Array, "*batch inside"], kernel: Float[Array, "inside outside"]
) -> Float[Array, "*batch outside"]:
    """x @ kernel in the dtype of x."""
    product = _plain_product if x.dtype == kernel.dtype else _mixed_product
    rows = product(x.reshape(-1, x.shape[-1]), kernel)
    return keep_batch_spread(rows.reshape(*x.shape[:-1], kernel.shape[-1]))


def _plain_product(
    x: Float[Array, "row inside"], kernel: Float[Array, "inside outside"]
) -> Float[Array, "row outside"]:
    return x @ kernel.astype(x.dtype)


@jax.custom_vjp
def _mixed_product(
    x: Float[Array, "row inside"], kernel: Float[Array, "inside outside"]
) -> Float[Array, "row outside"]:
    return _plain_product(x, kernel)


def _mixed_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _plain_product(x, kernel), (x, kernel)


def _mixed_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    of_kernel = jax.lax.dot_general(x, gradient, (((0,), (0,)), ((), ())), preferred_element_type=kernel.dtype)
    return gradient @ kernel.astype(x.dtype).T, of_kernel


_mixed_product.defvjp(_mixed_forward, _mixed_backward)


def _plain_conv(
    x: Float[Array, "batch height width inside"], kernel: Float[Array, "k k inside outside"], padding: int
) -> Float[Array, "batch height_out width_out outside"]:
    return jax.lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (1, 1), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mixed_conv(x: Array, kernel: Array, padding: int) -> Array:
    return _plain_conv(x, kernel, padding)


def _mixed_conv_forward(x: Array, kernel: Array, padding: int) -> tuple[Array, tuple[Array, Array]]:
    return _plain_conv(x, kernel, padding), (x, kernel)


def _mixed_conv_backward(padding: int, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    (of_x,) = jax.linear_transpose(lambda x: _plain_conv(x, kernel, padding), x)(gradient)
    # The images become the features that are summed over, the channels inside become the images.
    of_kernel = jax.lax.conv_general_dilated(
        x,
        gradient,
        (1, 1),
        [(padding, padding)] * 2,
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        preferred_element_type=kernel.dtype,
    )
    return of_x, of_kernel


_mixed_conv.defvjp(_mixed_conv_forward, _mixed_conv_backward)


def keep_batch_spread(x: Shaped[Array, "batch *rest"]) -> Shaped[Array, "batch *rest"]:
    """Asks that an activation stays spread over devices by its first axis, where a mesh with a batch is in force.

    Otherwise the compiler may follow a parameter that is sharded by its features, and move activations instead of it.
    """
    axes = tuple(axis for axis in BATCH_AXES if axis in jax.sharding.get_abstract_mesh().axis_names)
    if not axes:
        return x
    rest = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *rest))
