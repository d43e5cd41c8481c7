"""What a training step costs on a CPU, and how compile time grows with depth.

    PYTHONPATH=. python tests/studies/throughput.py

The train steps of two packaged configs, class and clusters included, in float32 with batches of 8 of random data;
beside each the rate of a large matrix product in the same minute, which bounds it. Then two compilations of DiT's step
at the width of DiT-S/2, with 7 and with 28 blocks, in turns.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from diffcurr import config as config_lib
from diffcurr import experiment as experiment_lib
from diffcurr.batch import Batch
from diffcurr.experiment import Experiment


def load(name: str, **network: int) -> ConfigDict:
    """A packaged config with what a CPU needs: batches of 8, float32, nothing recomputed, uniform clusters."""
    config = config_lib.complete(config_lib.load(name))
    changes = {"batch_size": 8, "dtype": "float32", "curriculum": {"clustering": "uniform"}}
    if config.network.name == "dit":
        changes["network"] = {"remat": "none", "scan_unroll": config.network.depth} | network
    return config_lib.changed(config, changes)


def random_batch(experiment: Experiment) -> Batch:
    rng, number = np.random.default_rng(0), experiment.config.batch_size
    x = rng.uniform(-1, 1, (number, *experiment.dataset.shape)).astype(np.float32)
    labels = rng.integers(0, max(1, experiment.dataset.num_classes), number).astype(np.int32)
    batch = Batch(x, experiment.conditioning.of({"label": labels}))
    return jax.device_put(batch, experiment.compiled.batch_sharding)


def forward_flops(experiment: Experiment) -> float:
    """Those of one example, counted by XLA in the program before it is optimised, with every block written out."""
    graph, params = experiment.abstract_network
    x = jax.ShapeDtypeStruct((1, *experiment.shape), jnp.float32)
    condition = {name: jax.eval_shape(lambda f=f: f.zeros(1)) for name, f in experiment.conditioning.spec().items()}
    call = jax.jit(lambda p, x, t, condition: nnx.merge(graph, p)(x, t, condition))
    return call.lower(params, x, jax.ShapeDtypeStruct((1,), jnp.float32), condition).cost_analysis()["flops"]


def measure(name: str, steps: int, side: int) -> None:
    experiment = experiment_lib.from_config(load(name), jax.devices()[:1])
    compiled, number = experiment.compiled, experiment.config.batch_size
    state = experiment.init_state()
    weights = compiled.initial_carry(state)
    batch = random_batch(experiment)
    square = jnp.ones((side, side))
    product = jax.jit(lambda a: a @ a)
    seconds, rates = [], []
    for _ in range(steps + 1):
        began = time.perf_counter()
        state, weights, _ = compiled.step(state, batch, weights)
        jax.block_until_ready(state)
        middle = time.perf_counter()
        jax.block_until_ready(product(square))
        seconds.append(middle - began)
        rates.append(2 * side**3 / (time.perf_counter() - middle))
    gflop = 3 * number * forward_flops(experiment) / 1e9  # the gradient costs twice the forward pass
    low, median, high = np.quantile(seconds[1:], [0.0, 0.5, 1.0])
    print(
        f"{name}: first call {seconds[0]:.1f} s; then {steps} steps, median {median:.2f} s ({low:.2f} to {high:.2f}), "
        f"{gflop:.0f} GFLOP, {gflop / median:.0f} GFLOP/s; matrix product {np.median(rates[1:]) / 1e9:.0f} GFLOP/s",
        flush=True,
    )


def compile_seconds(name: str, depth: int) -> float:
    experiment = experiment_lib.from_config(load(name, depth=depth, scan_unroll=1), jax.devices()[:1])
    step = experiment.compiled
    batch, weights = random_batch(experiment), jax.eval_shape(step.initial_carry, step.abstract_state)
    began = time.perf_counter()
    step.step.lower(step.abstract_state, batch, weights).compile()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["imagenet256:dit_s_2", "cifar10"])
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--side", type=int, default=2048, help="of the matrices that are multiplied")
    parser.add_argument("--compiled", default="imagenet256:dit_s_2", help="config of a DiT that is compiled")
    parser.add_argument("--depths", type=int, nargs=2, default=[7, 28], help="its numbers of blocks")
    parser.add_argument("--pairs", type=int, default=5, help="of compilations")
    given = parser.parse_args()

    for name in given.configs:
        measure(name, given.steps, given.side)
    few, many = given.depths
    compile_seconds(given.compiled, few)  # what is done once in a process
    pairs = np.array([[compile_seconds(given.compiled, depth) for depth in (few, many)] for _ in range(given.pairs)])
    low, high = np.median(pairs, axis=0)
    print(
        f"compiling {few} and {many} blocks: medians {low:.2f} s and {high:.2f} s, ratio "
        f"{np.median(pairs[:, 1] / pairs[:, 0]):.2f} ({given.pairs} pairs)"
    )


if __name__ == "__main__":
    main()
