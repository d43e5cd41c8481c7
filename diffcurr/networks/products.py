"""Products of activations with kernels, in the compute dtype, with float32 gradients of kernels and biases.

Devices add up gradients as float32 whatever the compute dtype. Kernel and gradient move between devices as `sharded`
says, if at all. On one device leading axes are merged, and products are those of two matrices: the weight gradients of
the general form make transposed copies of every activation (on two CPU cores, a weight gradient of DiT-S/2's blocks
took 6 instead of 17 ms, one of a 1x1 convolution 9 instead of 43 ms). On several they are kept: a TPU's compiler then
writes results in the order in which they are used.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from diffcurr.networks.sharded import Places, keep_batch_spread

PRODUCT = "product"  # the name of what `jax.checkpoint` may keep


def linear(
    x: Float[Array, "*batch inside"],
    kernel: Float[Array, "inside outside"],
    bias: Float[Array, " outside"] | None,
    places: Places | None,
) -> Float[Array, "*batch outside"]:
    """x @ kernel + bias in the dtype of x.

    Args:
      places: of the kernel and of the rows; None where nothing is spread.
    """
    rows = x.reshape(-1, x.shape[-1]) if places is None else x
    product = _product if places is None and x.dtype == kernel.dtype else _spread_product
    outputs = add_bias(product(rows, kernel, places), bias)
    return _finished(outputs.reshape(*x.shape[:-1], kernel.shape[-1]))


def linear_in_parts(
    x: Float[Array, "*batch inside"],
    kernel: Float[Array, "inside outside"],
    bias: Float[Array, " outside"] | None,
    places: Places,
    number: int,
) -> tuple[Float[Array, "*batch part"], ...]:
    """Like `linear`, with outputs cut into equal parts, each a product with its part of the kernel and so no copy.

    Args:
      places: where the kernel and each of its parts lie.
    """
    biases = [None] * number if bias is None else jnp.split(bias, number)
    outputs = _parted_product(x, kernel, places, number)
    return tuple(_finished(add_bias(part, own)) for part, own in zip(outputs, biases, strict=True))


def _finished(outputs: Float[Array, "*batch outside"]) -> Float[Array, "*batch outside"]:
    return checkpoint_name(keep_batch_spread(outputs), PRODUCT)


def conv(
    x: Float[Array, "batch height width inside"],
    kernel: Float[Array, "k k inside outside"],
    bias: Float[Array, " outside"] | None,
    padding: int,
    places: Places | None,
) -> Float[Array, "batch height_out width_out outside"]:
    """The convolution of x with a kernel that moves by one pixel, plus the bias, in the dtype of x.

    Args:
      places: of the kernel and of the images; None where nothing is spread.
    """
    convolve = _conv if places is None and x.dtype == kernel.dtype else _spread_conv
    return add_bias(keep_batch_spread(convolve(x, kernel, padding, places)), bias)


def add_bias(
    outputs: Float[Array, "*batch outside"], bias: Float[Array, " outside"] | None
) -> Float[Array, "*batch outside"]:
    """Added in the dtype of the outputs; its gradient is summed in its own."""
    if bias is None:
        return outputs
    return outputs + bias if outputs.dtype == bias.dtype else _add_rounded(outputs, bias)


@jax.custom_vjp
def _add_rounded(outputs: Array, bias: Array) -> Array:
    return outputs + bias.astype(outputs.dtype)


def _add_rounded_forward(outputs: Array, bias: Array) -> tuple[Array, Array]:
    return _add_rounded(outputs, bias), bias[:0]


def _add_rounded_backward(of_dtype: Array, gradient: Array) -> tuple[Array, Array]:
    return gradient, jnp.sum(gradient, axis=range(gradient.ndim - 1), dtype=of_dtype.dtype)


_add_rounded.defvjp(_add_rounded_forward, _add_rounded_backward)


def _product(
    x: Float[Array, "*batch inside"], kernel: Float[Array, "inside outside"], places: Places | None
) -> Float[Array, "*batch outside"]:
    if places is None:
        return x @ kernel.astype(x.dtype)
    return places.results(places.rows(x) @ places.gathered(kernel.astype(x.dtype)))


_spread_product = jax.custom_vjp(_product, nondiff_argnums=(2,))


def _product_forward(x: Array, kernel: Array, places: Places | None) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, kernel, places), (x, kernel)


def _product_backward(places: Places | None, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    if places is None:
        return gradient @ kernel.astype(x.dtype).T, _of_kernel(x, gradient, kernel.dtype)
    gradient, used = places.results(gradient), places.gathered(kernel.astype(x.dtype))
    of_kernel = places.of_kernel(_of_kernel(places.rows(x), gradient, kernel.dtype))
    if not places.by_columns:
        return places.of_rows(gradient @ used.T), of_kernel
    # The columns lie on several devices: they are summed in float32, which the compiler is kept from narrowing.
    of_x = jax.lax.dot_general(gradient, used, (((1,), (1,)), ((), ())), preferred_element_type=kernel.dtype)
    return jax.lax.optimization_barrier(places.of_rows(of_x)).astype(x.dtype), of_kernel


def _of_kernel(
    x: Float[Array, "*batch inside"], gradient: Float[Array, "*batch outside"], dtype: jnp.dtype
) -> Float[Array, "inside outside"]:
    leading = tuple(range(x.ndim - 1))
    return jax.lax.dot_general(x, gradient, ((leading, leading), ((), ())), preferred_element_type=dtype)


_spread_product.defvjp(_product_forward, _product_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _parted_product(x: Array, kernel: Array, places: Places, number: int) -> tuple[Array, ...]:
    x, used = places.rows(x), places.gathered(kernel.astype(x.dtype))
    return tuple(places.results(x @ places.gathered(part)) for part in jnp.split(used, number, axis=1))


def _parted_forward(
    x: Array, kernel: Array, places: Places, number: int
) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
    return _parted_product(x, kernel, places, number), (x, kernel)


def _parted_backward(
    places: Places, number: int, kept: tuple[Array, Array], gradients: tuple[Array, ...]
) -> tuple[Array, Array]:
    x, kernel = kept
    used = jnp.split(places.gathered(kernel.astype(x.dtype)), number, axis=1)
    gradients = tuple(places.results(gradient) for gradient in gradients)
    pairs = zip(gradients, used, strict=True)
    of_x = functools.reduce(jnp.add, [gradient @ places.gathered(part).T for gradient, part in pairs])
    of_kernel = [places.of_kernel(_of_kernel(places.rows(x), gradient, kernel.dtype)) for gradient in gradients]
    return places.of_rows(of_x), places.of_kernel(jnp.concatenate(of_kernel, axis=1))


_parted_product.defvjp(_parted_forward, _parted_backward)


def _conv(x: Array, kernel: Array, padding: int, places: Places | None) -> Array:
    used = kernel.astype(x.dtype)
    return jax.lax.conv_general_dilated(
        x,
        used if places is None else places.gathered(used),
        (1, 1),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


_spread_conv = jax.custom_vjp(_conv, nondiff_argnums=(2, 3))


def _conv_forward(x: Array, kernel: Array, padding: int, places: Places | None) -> tuple[Array, tuple[Array, Array]]:
    return _conv(x, kernel, padding, places), (x, kernel)


def _conv_backward(
    padding: int, places: Places | None, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = kept
    (of_x,) = jax.linear_transpose(lambda x: _conv(x, kernel, padding, places), x)(gradient)
    # The images become the features that are summed over, the channels inside become the images.
    of_kernel = jax.lax.conv_general_dilated(
        x,
        gradient,
        (1, 1),
        [(padding, padding)] * 2,
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        preferred_element_type=kernel.dtype,
    )
    return of_x, of_kernel if places is None else places.of_kernel(of_kernel)


_spread_conv.defvjp(_conv_forward, _conv_backward)
