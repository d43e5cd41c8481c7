"""What a training step costs on a CPU, and how compile time grows with depth.

    PYTHONPATH=. python tests/studies/throughput.py

The train steps of two shipped configs, class and clusters included, in float32 with batches of 8 of random data; beside
each the rate of a large matrix product in the same minute, which bounds it. Then two compilations of DiT's step at the
width of DiT-S/2, with 7 and with 28 blocks, in turns.
"""

import importlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from diffcurr import experiment as experiment_lib
from diffcurr.experiment import Experiment

STEPS = 9


def load(name: str) -> ConfigDict:
    """A shipped config with what a CPU needs: batches of 8, float32, nothing recomputed."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.update(batch_size=8, dtype="float32")
    if config.network.name == "dit":
        config.network.remat = "none"
        with config.unlocked():
            config.network.scan_unroll = config.network.depth
    return config


def forward_flops(experiment: Experiment) -> float:
    """Of one example, counted by XLA in the program before it is optimised, with every block written out."""
    graph, params = experiment.abstract_network
    info = experiment.dataset
    x = jax.ShapeDtypeStruct((1, info.image_size, info.image_size, info.channels), jnp.float32)
    labels = jax.ShapeDtypeStruct((1,), jnp.int32) if experiment.num_classes else None
    call = jax.jit(lambda p, x, t, y: nnx.merge(graph, p)(x, t, y))
    return call.lower(params, x, jax.ShapeDtypeStruct((1,), jnp.float32), labels).cost_analysis()["flops"]


def measure(name: str) -> None:
    experiment = experiment_lib.from_config(load(name), jax.devices()[:1])
    compiled, info = experiment.compiled, experiment.dataset
    state = experiment.init_state()
    mask = compiled.initial_mask(state)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.uniform(-1, 1, (8, info.image_size, info.image_size, info.channels)).astype(np.float32),
        "label": rng.integers(0, max(1, info.num_classes), 8).astype(np.int32),
    }
    batch = jax.device_put(batch, compiled.batch_sharding)
    square = jnp.ones((2048, 2048))
    product = jax.jit(lambda a: a @ a)
    seconds, rates = [], []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        state, mask, _ = compiled.step(state, batch, mask)
        jax.block_until_ready(state)
        middle = time.perf_counter()
        jax.block_until_ready(product(square))
        seconds.append(middle - began)
        rates.append(2 * 2048**3 / (time.perf_counter() - middle))
    gflop = 3 * 8 * forward_flops(experiment) / 1e9  # the gradient costs twice the forward pass
    low, median, high = np.quantile(seconds[1:], [0.0, 0.5, 1.0])
    print(
        f"{name}: first call {seconds[0]:.1f} s; then {STEPS} steps, median {median:.2f} s ({low:.2f} to {high:.2f}), "
        f"{gflop:.0f} GFLOP, {gflop / median:.0f} GFLOP/s; matrix product {np.median(rates[1:]) / 1e9:.0f} GFLOP/s",
        flush=True,
    )


def compile_seconds(depth: int) -> float:
    config = load("imagenet256_dit_s_2")
    config.network.update(depth=depth, scan_unroll=1)
    experiment = experiment_lib.from_config(config, jax.devices()[:1])
    compiled = experiment.compiled
    image = jax.ShapeDtypeStruct((8, 32, 32, 4), jnp.float32, sharding=compiled.batch_sharding)
    label = jax.ShapeDtypeStruct((8,), jnp.int32, sharding=compiled.batch_sharding)
    mask = jax.ShapeDtypeStruct((config.curriculum.clusters,), bool)
    began = time.perf_counter()
    compiled.step.lower(compiled.abstract_state, {"image": image, "label": label}, mask).compile()
    return time.perf_counter() - began


def main() -> None:
    for name in ("imagenet256_dit_s_2", "cifar10"):
        measure(name)
    compile_seconds(7)  # what is done once in a process
    pairs = np.array([[compile_seconds(7), compile_seconds(28)] for _ in range(5)])
    print(
        f"compiling 7 and 28 blocks: medians {np.median(pairs[:, 0]):.2f} s and {np.median(pairs[:, 1]):.2f} s, ratio "
        f"{np.median(pairs[:, 1] / pairs[:, 0]):.2f} (five pairs)"
    )


if __name__ == "__main__":
    main()
