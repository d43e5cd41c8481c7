"""A run small enough to compile in a few seconds, for the tests of the step."""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from diffcurr import experiment as experiment_lib
from diffcurr.config import outline
from diffcurr.experiment import Experiment

PROCESSES: dict[str, dict[str, Any]] = {
    "ddpm": {"schedule": "linear", "prediction": "epsilon", "num_timesteps": 1000, "weighting": "constant"},
    "ddpm, learned variance": {"name": "ddpm", "learn_variance": True},
    "ddpm, SpeeD": {"name": "ddpm", "distribution": "speed", "weighting": "speed"},
    "edm": {"sigma_data": 0.75, "weighting": "edm"},
    "flow": {"path": "linear"},
}


NETWORKS: dict[str, dict[str, Any]] = {
    "dit": {"patch_size": 4, "hidden_size": 8, "depth": 1, "num_heads": 1, "scan_unroll": 1},
    "song_unet": {"model_channels": 8, "channel_mult": (1,), "num_blocks": 1, "attn_resolutions": (), "dropout": 0.1},
}


def config(process: str = "ddpm", network: str = "dit", **overrides: Any) -> ConfigDict:
    """Digits with a network of width 8; overrides are dotted keys with `__` for the dot."""
    result = outline()
    with result.unlocked():
        result.process.update({"name": process} | PROCESSES[process])
        result.network.update(NETWORKS[network] | {"name": network})
    result.update(batch_size=16, steps=20, class_conditional=True)
    result.curriculum.update(clusters=3, patience=1)
    result.optimizer.learning_rate = 1e-3
    result.update_from_flattened_dict({key.replace("__", "."): value for key, value in overrides.items()})
    return result


def experiment(devices: int = 1, **overrides: Any) -> Experiment:
    """The experiment of such a config on the first `devices` devices."""
    return experiment_lib.from_config(config(**overrides), jax.devices()[:devices])


def batch(experiment: Experiment, step: int) -> dict[str, jax.Array]:
    """A batch of random images, the same for any number of devices."""
    rng = np.random.default_rng(step)
    size = experiment.config.batch_size
    rows = {
        "image": rng.uniform(-1, 1, (size, 8, 8, 1)).astype(np.float32),
        "label": rng.integers(0, 10, size).astype(np.int32),
    }
    return jax.device_put(rows, experiment.compiled.batch_sharding)


def train(experiment: Experiment, steps: int) -> tuple[Any, list[Any]]:
    """(final state, metrics of each step)."""
    compiled = experiment.compiled
    state = experiment.init_state()
    mask, metrics = compiled.initial_mask(state), []
    for step in range(steps):
        state, mask, m = compiled.step(state, batch(experiment, step), mask)
        metrics.append(m)
    return state, jax.device_get(metrics)
