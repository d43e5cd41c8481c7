"""Layers whose matrix products run over the rows of a batch.

The numbers are those of Flax's layers, in a form that compiles better. With leading axes merged they are plain matrix
products: the weight gradients of the general form make transposed copies of every activation (on two CPU cores, a
weight gradient of DiT-S/2's blocks took 6 instead of 17 ms, one of a 1x1 convolution 9 instead of 43 ms). Weight
gradients are float32 whatever the compute dtype, so that devices add them up in float32.
"""

from typing import Any

import jax
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

BATCH_AXES = ("data", "fsdp")


class Linear(nnx.Linear):
    """`nnx.Linear` over the last axis."""

    def __call__(
        self, inputs: Float[Array, "*batch inside"], out_sharding: Any = None
    ) -> Float[Array, "*batch outside"]:
        del out_sharding  # Flax's, for explicit axes
        outputs = row_product(inputs.astype(self.dtype), self.kernel[...])
        return outputs if self.bias is None else outputs + self.bias[...].astype(outputs.dtype)


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


def pointwise_conv(
    lhs: Float[Array, "batch height width inside"],
    rhs: Float[Array, "1 1 inside outside"],
    window_strides: Any,
    padding: Any,
    **settings: Any,
) -> Float[Array, "batch height width outside"]:
    """`jax.lax.conv_general_dilated` as `nnx.Conv` calls it, for a 1x1 kernel without stride or padding."""
    del settings  # layouts and dilations, which make no difference to one pixel
    assert tuple(window_strides) == (1, 1) and all(p == (0, 0) for p in padding), (window_strides, padding)
    return row_product(lhs, rhs[0, 0])


def keep_batch_spread(x: Float[Array, "batch *rest"]) -> Float[Array, "batch *rest"]:
    """Asks that an activation stays spread over devices by its first axis, where a mesh with a batch is in force.

    Otherwise the compiler may follow a parameter that is sharded by its features, and move activations instead of it.
    """
    axes = tuple(axis for axis in BATCH_AXES if axis in jax.sharding.get_abstract_mesh().axis_names)
    if not axes:
        return x
    rest = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *rest))
