"""A layer would not be Flax's, or the gradients of bfloat16 networks would be summed in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffcurr.networks import layers

LAYERS = {
    "dense": (layers.Linear, nnx.Linear, (6, 10), {}, (32, 5, 6)),
    "1x1": (layers.Conv, nnx.Conv, (6, 10, (1, 1)), {"padding": 0}, (32, 5, 5, 6)),
    "3x3": (layers.Conv, nnx.Conv, (6, 10, (3, 3)), {"padding": 1}, (32, 5, 5, 6)),
    "3x3, wide padding": (layers.Conv, nnx.Conv, (6, 10, (3, 3)), {"padding": 2}, (32, 5, 5, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_flaxs_and_their_gradients_float32(name: str) -> None:
    """In float32 all is as in Flax. In bfloat16 weights' gradients are those of the rounded values, summed exactly."""
    ours, theirs, sizes, settings, shape = LAYERS[name]

    def gradients(layer: type, dtype: str, params: dict, x: jax.Array, cotangent: jax.Array) -> tuple:
        graph = nnx.split(layer(*sizes, **settings, dtype=dtype, rngs=nnx.Rngs(0)))[0]
        output, vjp = jax.vjp(lambda params, x: nnx.merge(graph, params)(x), params, x)
        return output, *vjp(cotangent.astype(output.dtype))

    bias = nnx.initializers.normal()
    params = nnx.to_pure_dict(nnx.state(theirs(*sizes, **settings, bias_init=bias, rngs=nnx.Rngs(0))))
    x = jax.random.normal(jax.random.key(0), shape)
    output = theirs(*sizes, **settings, rngs=nnx.Rngs(0))(x)
    cotangent = jax.random.normal(jax.random.key(1), output.shape)
    for one, other in zip(
        jax.tree.leaves(gradients(ours, "float32", params, x, cotangent)),
        jax.tree.leaves(gradients(theirs, "float32", params, x, cotangent)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)

    x, cotangent, params = jax.tree.map(lambda a: a.astype(jnp.bfloat16).astype(jnp.float32), (x, cotangent, params))
    half_output, half, half_x = gradients(ours, "bfloat16", params, x, cotangent)
    exact_output, exact, exact_x = gradients(theirs, "float32", params, x, cotangent)
    assert half_output.dtype == jnp.bfloat16
    np.testing.assert_allclose(half_output.astype(jnp.float32), exact_output, rtol=0.02, atol=0.02)
    np.testing.assert_allclose(half_x, exact_x, rtol=0.02, atol=0.05)
    for kind in ("kernel", "bias"):
        assert half[kind].dtype == jnp.float32
        np.testing.assert_allclose(half[kind], exact[kind], rtol=1e-5, atol=1e-4, err_msg=kind)
