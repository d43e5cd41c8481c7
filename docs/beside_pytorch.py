"""Times a train step on a CPU beside that of public PyTorch code: `python -m docs.beside_pytorch FOLDER`.

At the first call FOLDER becomes an environment with PyTorch, diffusers, whose DiT has an embedder of time and class in
each block (39.8 M parameters instead of 33 M), and NVIDIA PhysicsNeMo, whose SongUNet is that of EDM: 6 GB.

Both sides compute in float32 on one batch of 8 that stays in memory: they draw noise levels and noise, then forward,
loss, backward, Adam and moving average. For the U-Net ours augments the images too. Two processes on the same cores
take turns: one waits while the other computes. A turn is one step of each, and what counts is the quotient of a turn.
Nothing else should run.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

BATCH = 8
REQUIREMENTS = ("torch", "torchvision", "timm", "diffusers", "nvtx", "jaxtyping", "warp-lang", "s3fs")
REQUIREMENTS += ("einops", "tensordict", "omegaconf")
WITHOUT_DEPENDENCIES = ("nvidia-physicsnemo",)  # of which the U-Net needs the few above
NETWORKS = ("DiT-S/2, 32x32x4", "SongUNet of CIFAR-10, 32x32x3")


def ours(network: str) -> Callable[[], None]:
    """One call is a step of diffcurr's train step under its curriculum."""
    import jax
    import jax.numpy as jnp

    from diffcurr import config as config_lib
    from diffcurr import experiment as experiment_lib
    from diffcurr.batch import Batch

    if network == NETWORKS[0]:
        config = config_lib.load("imagenet256:dit_s_2")
        config.dtype, config.network.remat = "float32", "none"
        config.process.learn_variance = False  # theirs learns none either
    else:
        config = config_lib.load("cifar10")
    config.batch_size = BATCH
    experiment = experiment_lib.from_config(config)
    compiled, rng = experiment.compiled, np.random.default_rng(0)
    fields = experiment.conditioning.spec()
    condition = {name: np.zeros((BATCH, *field.shape), field.dtype) for name, field in fields.items()}
    x = rng.normal(size=(BATCH, *experiment.dataset.shape)).astype(np.float32)
    batch = jax.device_put(Batch(jnp.asarray(x), condition), compiled.batch_sharding)
    state = experiment.init_state()
    carry = compiled.initial_carry(state)

    def step() -> None:
        nonlocal state, carry
        state, carry, _ = compiled.step(state, batch, carry)
        jax.block_until_ready(state)

    return step


def theirs(network: str) -> Callable[[], None]:
    """One call is a step as PyTorch's users write it."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    if network == NETWORKS[0]:
        from diffusers import DiTTransformer2DModel

        module = DiTTransformer2DModel(
            num_attention_heads=6,
            attention_head_dim=64,
            in_channels=4,
            out_channels=4,
            num_layers=12,
            sample_size=32,
            patch_size=2,
            num_embeds_ada_norm=1000,
        )
        x = torch.randn(BATCH, 4, 32, 32)
        labels = torch.zeros(BATCH, dtype=torch.long)

        def predicted(noised: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
            return module(noised, timestep=(999 * u).long(), class_labels=labels).sample
    else:
        from physicsnemo.models.diffusion_unets.song_unet import SongUNet

        module = SongUNet(
            img_resolution=32,
            in_channels=3,
            out_channels=3,
            augment_dim=9,
            model_channels=128,
            channel_mult=[2, 2, 2],
            num_blocks=4,
            attn_resolutions=[16],
            dropout=0.13,
        )
        x = torch.randn(BATCH, 3, 32, 32)
        told = torch.zeros(BATCH, 9)

        def predicted(noised: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
            return module(noised, u, None, told)

    module.train()
    parameters = list(module.parameters())
    average = [one.detach().clone() for one in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0, foreach=True)
    sys.stderr.write(f"{network}: {sum(one.numel() for one in parameters):,} parameters in PyTorch\n")

    def step() -> None:
        u, noise = torch.rand(BATCH), torch.randn_like(x)
        alpha = torch.cos(u * np.pi / 2)[:, None, None, None]
        noised = alpha * x + torch.sqrt(1 - alpha**2) * noise
        loss = torch.mean((predicted(noised, u) - noise) ** 2)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1e-4)

    return step


def work(side: str, network: str) -> None:
    """Does a step for each line on standard input and prints its seconds."""
    step = {"ours": ours, "theirs": theirs}[side](network)
    for _ in range(3):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


def environment(folder: pathlib.Path) -> pathlib.Path:
    """The Python of an environment with the public code, made where it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder}: PyTorch and what it needs, several minutes", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *WITHOUT_DEPENDENCIES], check=True)
    return python


def compared(python: pathlib.Path, network: str, threads: int, turns: int) -> dict[str, float]:
    """The seconds of a step of each, their quotient, and the interval that holds its median in 95 of 100 cases."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    given = os.environ.get("XLA_FLAGS", "")
    flags = given if threads > 1 else given + " " + "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    settings = {"OMP_NUM_THREADS": str(threads), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    workers = {}
    for side, runs in (("ours", [sys.executable, "-m", "docs.beside_pytorch"]), ("theirs", [python, __file__])):
        command = ["taskset", "-c", ",".join(map(str, cores)), *runs, "--work", side, network]
        workers[side] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | settings
        )
        assert workers[side].stdout.readline() == "ready\n", f"{side} did not start"  # type: ignore[union-attr]

    def seconds(side: str) -> float:
        worker = workers[side]
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
        return float(worker.stdout.readline())

    found = np.array([[seconds(side) for side in workers] for _ in range(turns)])
    for worker in workers.values():
        worker.communicate()
    quotients = found[:, 0] / found[:, 1]
    drawn = np.median(np.random.default_rng(0).choice(quotients, (2000, turns)), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    mine, other = np.median(found, axis=0)
    return {"ours": mine, "theirs": other, "quotient": float(np.median(quotients)), "low": low, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path, nargs="?")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--work", nargs=2)
    given = parser.parse_args()
    if given.work:
        return work(*given.work)
    if given.folder is None:
        parser.error("give the folder of the environment with PyTorch; it is made if it is not there")
    python = environment(given.folder)
    for network in NETWORKS:
        for threads in (2, 1):
            print(f"{network}, {threads} thread(s): compiling, then {given.turns} turns ...", flush=True)
            found = compared(python, network, threads, given.turns)
            print(json.dumps({"network": network, "threads": threads} | {k: round(v, 3) for k, v in found.items()}))
    return None


if __name__ == "__main__":
    main()
