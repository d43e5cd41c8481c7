"""An experiment small enough to compile in a few seconds, for the tests of every room."""

import pathlib
import socket
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from diffcurr import config as config_lib
from diffcurr import experiment as experiment_lib
from diffcurr.batch import Batch
from diffcurr.experiment import Experiment

PROCESSES: dict[str, dict[str, Any]] = {
    "ddpm": {"name": "ddpm"},
    "ddpm, learned variance": {"name": "ddpm", "learn_variance": True},
    "ddpm, SpeeD": {"name": "ddpm", "density": "speed", "weighting": "speed"},
    "edm": {"name": "edm", "prediction": {"name": "preconditioned", "sigma_data": 0.75}},
    "flow": {"name": "flow"},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "dit": {"patch_size": 4, "hidden_size": 8, "depth": 1, "num_heads": 1, "scan_unroll": 1},
    "song_unet": {"model_channels": 8, "channel_mult": (1,), "num_blocks": 1, "attn_resolutions": (), "dropout": 0.1},
    "token_transformer": {"hidden_size": 8, "mlp_size": 16, "depth": 2, "num_heads": 1, "dropout": 0.1},
}

AUTOENCODER: dict[str, Any] = {
    "name": "kl",
    "in_channels": 1,
    "block_out_channels": (8,),
    "layers_per_block": 1,
    "latent_channels": 2,
    "norm_num_groups": 4,
    "scale": 1.0,
}

TOKENIZER: dict[str, Any] = {
    "name": "vit_vqgan",
    "in_channels": 1,
    "patch_size": 4,
    "quantizer": {"name": "codebook", "size": 16, "code_dim": 4},
    "logit_laplace": True,
} | {
    f"{tower}_{name}": size
    for tower in ("encoder", "decoder")
    for name, size in {"depth": 1, "width": 8, "heads": 2, "mlp": 16}.items()
}

TOKENIZER_TASK: dict[str, Any] = {  # every loss, and codes that are brought back
    "name": "tokenizer",
    "logit_laplace": 0.1,
    "adversarial_start": 4,
    "discriminator_channels": 4,
    "restart_after": 3,
}

# The same size of network and run, as flags of a command.
FLAGS = [
    "--config.network.hidden_size=8",
    "--config.network.depth=1",
    "--config.network.num_heads=1",
    "--config.network.patch_size=4",
    "--config.batch_size=16",
    "--config.curriculum.clusters=5",
    "--config.sampling.steps=3",
    "--config.sampling.samples=10",
]


def config(process: str = "ddpm", network: str = "dit", **overrides: Any) -> ConfigDict:
    """Digits with a network of width 8; overrides are dotted keys with `__` for the dot."""
    tiny = {
        "process": PROCESSES[process],
        "network": NETWORKS[network] | {"name": network},
        "conditioning": "class",
        "curriculum": {"clusters": 3, "patience": 1},
        "optimizer": {"learning_rate": 1e-3},
        "batch_size": 16,
        "steps": 20,
    }
    result = config_lib.changed(config_lib.complete(config_lib.outline()), tiny)
    flat = {key.replace("__", "."): value for key, value in overrides.items()}
    return config_lib.changed(result, config_lib.unflatten(flat))


def experiment(devices: int = 1, **overrides: Any) -> Experiment:
    """The experiment of such a config on the first `devices` devices."""
    return experiment_lib.from_config(config(**overrides), jax.devices()[:devices])


def batch(experiment: Experiment, step: int) -> Batch:
    """A batch of random images, the same for any number of devices."""
    rng = np.random.default_rng(step)
    size = experiment.config.batch_size
    x = rng.uniform(-1, 1, (size, 8, 8, 1)).astype(np.float32)
    examples = {"label": rng.integers(0, 10, size).astype(np.int32)}
    examples["caption"] = np.array([f"the digit {label}" for label in examples["label"]])
    spec = experiment.features_spec
    features = rng.standard_normal((size, *spec.shape)).astype(spec.dtype) if spec else None
    return jax.device_put(Batch(x, experiment.conditioning.of(examples), features), experiment.compiled.batch_sharding)


def saved_state(checkpoint: pathlib.Path) -> dict[str, Any]:
    """The state in a checkpoint's folder, on the host, whatever devices it was saved from."""
    with ocp.PyTreeCheckpointer() as reader:
        metadata = reader.metadata(checkpoint / "state").item_metadata.tree
        whole = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
        return reader.restore(checkpoint / "state", restore_args=whole)


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def train(experiment: Experiment, steps: int) -> tuple[Any, list[Any]]:
    """(final state, metrics of each step)."""
    compiled = experiment.compiled
    state = experiment.init_state()
    weights, metrics = compiled.initial_carry(state), []
    for step in range(steps):
        state, weights, m = compiled.step(state, batch(experiment, step), weights)
        metrics.append(m)
    return state, jax.device_get(metrics)
