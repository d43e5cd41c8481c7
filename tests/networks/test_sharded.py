"""If a test here fails, a network on many devices computes other gradients than on one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from diffcurr import layout
from diffcurr.training.sharding import state_shardings

MESH = {"devices": 8, "mesh__fsdp": 2, "mesh__tensor": 2}
SIZES: dict[str, dict[str, Any]] = {
    "dit": {"network__hidden_size": 16, "network__depth": 2, "network__num_heads": 2, "network__remat": "dots"},
    "song_unet": {"network__model_channels": 16, "network__attn_resolutions": (8,), "network__dropout": 0.0},
}


def gradients(network: str, dtype: str, mesh: dict[str, Any]) -> dict[str, jax.Array]:
    """Those of all parameters of a network that is given random ones, by path."""
    experiment = tiny.experiment(network=network, dtype=dtype, **SIZES[network], **mesh)
    graph, abstract = experiment.abstract_network
    leaves, tree = jax.tree.flatten(abstract)
    random = iter(jax.random.split(jax.random.key(0), len(leaves) + 3))
    params = jax.tree.unflatten(tree, [0.2 * jax.random.normal(next(random), leaf.shape) for leaf in leaves])
    x, weights = (jax.random.normal(next(random), (16, 8, 8, 1)) for _ in range(2))
    condition = {"label": jnp.arange(16) % 10}

    def loss(params: Any, x: jax.Array) -> jax.Array:
        with jax.sharding.use_abstract_mesh(experiment.mesh.abstract_mesh):
            return jnp.mean(weights * nnx.merge(graph, params)(x, jnp.arange(16.0), condition)[..., :1])

    shardings = state_shardings(experiment.mesh, abstract)
    spread = jax.jit(jax.grad(loss), in_shardings=(shardings, None), out_shardings=shardings)
    found = jax.device_get(spread(params, x))
    return {layout.path_name(path): value for path, value in jax.tree_util.tree_leaves_with_path(found)}


@pytest.mark.parametrize("network", SIZES)
def test_gradients_of_a_spread_network(network: str) -> None:
    """In float32 they are those of one device; in bfloat16 the same to rounding, summed as float32."""
    exact = gradients(network, "float32", {})
    spread, half = gradients(network, "float32", MESH), gradients(network, "bfloat16", MESH)
    for path, value in exact.items():
        size = np.linalg.norm(value)
        assert size > 0 and half[path].dtype == np.float32, path
        assert np.linalg.norm(spread[path] - value) < 1e-4 * size, path
        assert np.linalg.norm(half[path] - value) < 0.03 * size, path
