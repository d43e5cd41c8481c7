"""What two matrix products save: the analyzer against distances computed at each timestep, and its cost in T.

    PYTHONPATH=. python tests/studies/relative_entropy_speed.py --data_dir=DATA_DIR

The rival is one matrix product and two log-sum-exps a pair of timesteps in one compiled scan: all that can be had
without sharing the distances. Both take the same images and number of samples, in turns. DATA_DIR holds Fashion-MNIST
(launch/fashion_mnist_from_debian.py); data of 3,072 dimensions are white noise, since only their size matters.
"""

import argparse
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffcurr.conditioning import Nothing
from diffcurr.data import pipeline
from diffcurr.data.datasets import DATASETS
from diffcurr.difficulty.relative_entropy import RelativeEntropy, relative_entropy
from diffcurr.processes import DDPM

KEY = jax.random.key(0)


def schedule(timesteps: int) -> tuple[np.ndarray, np.ndarray]:
    process = DDPM()
    return process.exact_alpha_sigma((np.arange(timesteps) + 0.5) / timesteps)


@functools.partial(jax.jit, static_argnums=3)
def separately(x: jax.Array, alphas: jax.Array, sigmas: jax.Array, samples: int) -> jax.Array:
    """Mean log-ratio of each pair; the distances are computed again for each."""
    key_index, key_noise = jax.random.split(KEY)
    own = x[jax.random.permutation(key_index, len(x))[:samples]]
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


def compare(name: str, x: jax.Array, timesteps: int, samples: int, repeats: int) -> None:
    alphas, sigmas = schedule(timesteps)
    on_device = jnp.asarray(alphas, jnp.float32), jnp.asarray(sigmas, jnp.float32)

    def shared() -> object:
        return relative_entropy(x, alphas, sigmas, KEY, samples)

    def apart() -> object:
        return separately(x, *on_device, samples)

    seconds(shared), seconds(apart)  # compiles
    times = np.array([(seconds(apart), seconds(shared)) for _ in range(repeats)])
    ratio = times[:, 0] / times[:, 1]
    print(
        f"{name}, {len(x):,} images, {samples} samples, {timesteps - 1} pairs: separately {np.median(times[:, 0]):.2f} "
        f"s, shared {np.median(times[:, 1]):.2f} s; ratio {np.median(ratio):.1f} (of {repeats}: {min(ratio):.1f} to "
        f"{max(ratio):.1f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="fashion_mnist", choices=DATASETS)
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--images", type=int, default=5000, help="of the comparison")
    parser.add_argument("--samples", type=int, default=100, help="of the comparison")
    parser.add_argument("--repeats", type=int, default=5, help="of the comparison")
    parser.add_argument("--whole", type=int, default=60_000, help="images of which the cost in T is measured")
    parser.add_argument("--whole_samples", type=int, default=1000)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[10, 100, 1000], help="the last for the comparison")
    given = parser.parse_args()

    dataset = DATASETS[given.dataset](data_dir=given.data_dir)
    data = pipeline.load(dataset.open(), dataset, Nothing().of, given.whole, seed=0)
    images, last = jnp.asarray(data.x.reshape(len(data.x), -1)), given.timesteps[-1]
    few = min(given.images, len(images))
    compare(f"{images.shape[1]} dimensions", images[:few], last, given.samples, given.repeats)
    compare("3,072 dimensions", jax.random.normal(KEY, (few, 3072)), last, given.samples, given.repeats)
    for timesteps in given.timesteps:
        alphas, sigmas = schedule(timesteps)

        def whole(alphas: np.ndarray = alphas, sigmas: np.ndarray = sigmas) -> RelativeEntropy:
            return relative_entropy(images, alphas, sigmas, KEY, given.whole_samples)

        seconds(whole)
        times = [seconds(whole) for _ in range(3 if timesteps < last else 1)]
        print(
            f"T = {timesteps}: {np.median(times):.1f} s for {len(images):,} images and {given.whole_samples:,} samples",
            flush=True,
        )
    curve = whole()
    print(f"relative standard error at most {float(np.max(curve.standard_error / curve.value)):.2%}")


if __name__ == "__main__":
    main()
