"""Whoever copies the README's example, the curriculum in their own Optax loop, would copy lines that do not run."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffcurr.curriculum import clusters, quantiles, rules

ROOT = pathlib.Path(__file__).parents[2]


def test_the_lines_of_the_readme_run() -> None:
    (code,) = re.findall(
        r"<!-- tests/curriculum/test_readme.py .*?```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S
    )
    assert len([line for line in code.splitlines() if line.strip()]) <= 15

    def loss_at(params: jax.Array, x: jax.Array, u: jax.Array, key: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, x.shape)
        return jnp.mean(jnp.square(params * (x + u[:, None] * noise) - noise))

    names = {
        "jax": jax,
        "optax": optax,
        "clusters": clusters,
        "quantiles": quantiles,
        "rules": rules,
        "loss_at": loss_at,
        "data": np.random.default_rng(0).normal(size=(250, 8, 3)).astype(np.float32),
        "params": jnp.zeros(()),
        "optimizer": optax.adam(1e-2),
    }
    exec(code, names)
    assert float(names["params"]) != 0
    assert int(names["curriculum"].stale) > 0 or int(names["curriculum"].stage) > 1
