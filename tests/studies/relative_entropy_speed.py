"""What two Gram matrices save: the analyzer against distances computed anew at each timestep, and its cost in T.

    PYTHONPATH=. python tests/studies/relative_entropy_speed.py DATA_DIR

The rival is one matrix product and two log-sum-exps a pair of timesteps in one compiled scan: all that can be had
without sharing the distances. Both take the same images and number of samples, in turns. DATA_DIR holds Fashion-MNIST
(launch/fashion_mnist_from_debian.py); data of 3,072 dimensions are white noise, since only their size matters.
"""

import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffcurr.data import pipeline, sources
from diffcurr.difficulty.relative_entropy import relative_entropy
from diffcurr.processes import DDPM

IMAGES, SAMPLES, REPEATS = 5000, 100, 5
KEY = jax.random.key(0)


def schedule(timesteps: int) -> tuple[np.ndarray, np.ndarray]:
    process = DDPM()
    return process.exact_alpha_sigma((np.arange(timesteps) + 0.5) / timesteps)


@jax.jit
def anew(x: jax.Array, alphas: jax.Array, sigmas: jax.Array) -> jax.Array:
    """Mean log-ratio of each pair, from distances of its own."""
    key_index, key_noise = jax.random.split(KEY)
    own = x[jax.random.permutation(key_index, len(x))[:SAMPLES]]
    eps = jax.random.normal(key_noise, own.shape)
    norm = jnp.sum(x**2, axis=1)

    def pair(_: None, level: tuple[jax.Array, ...]) -> tuple[None, jax.Array]:
        alpha_s, sigma_s, alpha_t, sigma_t = level
        noisy = alpha_s * own + sigma_s * eps
        product, square = noisy @ x.T, jnp.sum(noisy**2, axis=1, keepdims=True)

        def log_density(alpha: jax.Array, sigma: jax.Array) -> jax.Array:
            distance = square - 2 * alpha * product + alpha**2 * norm
            return jax.nn.logsumexp(-distance / (2 * sigma**2), axis=1) - x.shape[1] * jnp.log(sigma)

        return None, jnp.mean(log_density(alpha_s, sigma_s) - log_density(alpha_t, sigma_t))

    return jax.lax.scan(pair, None, (alphas[:-1], sigmas[:-1], alphas[1:], sigmas[1:]))[1]


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - began


def compare(name: str, x: jax.Array) -> None:
    alphas, sigmas = schedule(1000)
    on_device = jnp.asarray(alphas, jnp.float32), jnp.asarray(sigmas, jnp.float32)

    def shared() -> object:
        return relative_entropy(x, alphas, sigmas, KEY, SAMPLES)

    seconds(shared), seconds(lambda: anew(x, *on_device))  # compiles
    times = np.array([(seconds(lambda: anew(x, *on_device)), seconds(shared)) for _ in range(REPEATS)])
    ratio = times[:, 0] / times[:, 1]
    print(
        f"{name}, {len(x):,} images, {SAMPLES} samples, 999 pairs: anew {np.median(times[:, 0]):.2f} s, shared "
        f"{np.median(times[:, 1]):.2f} s; ratio {np.median(ratio):.1f} (of {REPEATS}: {min(ratio):.1f} to "
        f"{max(ratio):.1f})",
        flush=True,
    )


def main() -> None:
    info = sources.DATASETS["fashion_mnist"]
    data = pipeline.load(sources.open_source(info, "train", sys.argv[1]), info, 60_000, seed=0)
    images = jnp.asarray(data["image"].reshape(-1, 784))
    compare("784 dimensions", images[:IMAGES])
    compare("3,072 dimensions", jax.random.normal(KEY, (IMAGES, 3072)))
    for timesteps in (10, 100, 1000):
        alphas, sigmas = schedule(timesteps)

        def whole(alphas: np.ndarray = alphas, sigmas: np.ndarray = sigmas) -> object:
            return relative_entropy(images, alphas, sigmas, KEY, 1000)

        seconds(whole)
        times = [seconds(whole) for _ in range(3 if timesteps < 1000 else 1)]
        print(f"T = {timesteps}: {np.median(times):.1f} s for {len(images):,} images and 1,000 samples", flush=True)
    curve = relative_entropy(images, *schedule(1000), KEY, 1000)
    print(f"relative standard error at most {float(np.max(curve.standard_error / curve.value)):.2%}")


if __name__ == "__main__":
    main()
