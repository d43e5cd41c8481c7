"""The analyzer's rate and memory where the data are read in blocks, and what follows for ImageNet's latents.

    PYTHONPATH=. python tests/studies/relative_entropy_scale.py

Latents are white noise, made as they are read: only their number and size matter. Bounds count operations and bytes
(`difficulty.cost`); they are no measurement.
"""

import argparse
import resource
import time
from collections.abc import Iterator

import jax
import numpy as np

from diffcurr.difficulty import cost, streaming
from diffcurr.difficulty.points import Points
from diffcurr.difficulty.survey import survey
from diffcurr.planning.chips import GPUS, TPUS
from diffcurr.processes import DDPM

IMAGENET = 1_281_167


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=4096)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--timesteps", type=int, default=1000)
    parser.add_argument("--block", type=int, default=4096)
    given = parser.parse_args()
    rng = np.random.default_rng(0)

    def read() -> Iterator[np.ndarray]:
        for start in range(0, given.latents, 256):
            yield rng.standard_normal((min(256, given.latents - start), given.dimension), np.float32)

    points = Points(read=read, number=given.latents, dimension=given.dimension, block=given.block)
    process = DDPM()
    alphas, sigmas = process.exact_alpha_sigma((np.arange(given.timesteps) + 0.5) / given.timesteps)
    keys, each = [jax.random.key(number) for number in range(10)], given.samples // 10
    print(
        f"{given.latents:,} latents of {given.dimension:,} dimensions in {points.num_blocks} blocks; "
        f"{megabytes():,.0f} MB before"
    )

    began = time.perf_counter()
    surveyed = survey(points, streaming.own_components(keys, each, points), covariance=True)
    seconds = time.perf_counter() - began
    print(
        f"mean and covariance: {seconds:.1f} s, {seconds * IMAGENET / given.latents / 60:.0f} min for {IMAGENET:,}; "
        f"{megabytes():,.0f} MB at most so far",
        flush=True,
    )

    times: list[tuple[float, float, int]] = []
    streaming.relative_entropies(
        points,
        alphas,
        sigmas,
        keys,
        each,
        surveyed=surveyed,
        report=lambda done, parts: times.append((time.perf_counter(), time.process_time(), parts)),
    )
    (began, cpu_began, parts), (ended, cpu_ended, _) = times[0], times[-1]
    whole = cost.work(given.latents, given.dimension, given.samples, given.timesteps)
    pairs = whole.pairs * (1 - 1 / parts)
    rate, cpu_rate = pairs / (ended - began), pairs / (cpu_ended - cpu_began)
    imagenet = cost.work(IMAGENET, given.dimension, given.samples, given.timesteps)
    print(
        f"relative entropy: {rate:.3g} pairs x levels a second on {jax.device_count()} {jax.default_backend()} device "
        f"({cpu_rate:.3g} a CPU second); {imagenet.pairs / rate / 60:.0f} min for {IMAGENET:,} "
        f"({imagenet.pairs / cpu_rate / 60:.0f} CPU min); {megabytes():,.0f} MB at most"
    )
    for name, chip, number in (("v5e:4x4", TPUS["v5e"], 16), ("8 H100", GPUS["h100"], 8)):
        near, far = cost.bound(imagenet, chip.flops, chip.bandwidth, number)
        print(f"bound for {name}: {near:.2g} s; {far:.3g} s if distances are read from memory at each level")


if __name__ == "__main__":
    main()
