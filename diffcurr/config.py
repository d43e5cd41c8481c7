"""The outline that every config shares, with its defaults.

A file in `configs/` starts from `outline()` and sets what it needs. The result is locked, so a misspelt key is an
error where it is written. What stands beside `dataset.name`, `process.name` and `network.name` are the arguments of
that part's own class; they are checked against it by `diffcurr.experiment`.
"""

import json
from typing import Any

from ml_collections import ConfigDict

# A finished or interrupted run may be continued with other values of these: they do not change the course of training.
FREE_KEYS = (
    "log_every",
    "checkpoint_every",
    "sample_every",
    "evaluate_every",
    "mesh",
    "sampling",
    "dataset.data_dir",
    "dataset.threads",
    "analysis.convergence",
    "features",
    "evaluation",
    "compare",
)


# Each process as its authors have it, with the sampler that goes with it.
PROCESSES: dict[str, dict[str, dict[str, Any]]] = {
    "ddpm": {
        "process": {
            "name": "ddpm",
            "schedule": "linear",
            "prediction": "epsilon",
            "num_timesteps": 1000,
            "weighting": "constant",
        },
        "sampling": {"solver": "ddim", "steps": 50},
    },
    "edm": {
        "process": {"name": "edm", "sigma_data": 0.5, "weighting": "edm"},
        "sampling": {"solver": "heun", "steps": 18},
        "optimizer": {"clip_norm": 0.0},  # its loss is a sum over pixels
    },
    "flow": {
        "process": {
            "name": "flow",
            "path": "linear",
            "prediction": "velocity",
            "distribution": "uniform",
            "weighting": "constant",
        },
        "sampling": {"solver": "heun", "steps": 25},
    },
}
# DDPM with SpeeD's draws and weights, on clusters of equal relative entropy: of the easy-to-hard arms of
# docs/evidence the closest to the data.
PROCESSES["ddpm_speed"] = PROCESSES["ddpm"] | {
    "process": PROCESSES["ddpm"]["process"] | {"distribution": "speed", "weighting": "speed"},
    "curriculum": {"clustering": "relative_entropy"},
}


def set_process(config: ConfigDict, name: str) -> None:
    """Chooses one of PROCESSES, with all that goes with it.

    Raises:
      ValueError: for another name.
    """
    if name not in PROCESSES:
        raise ValueError(f"there is no process {name!r}: choose one of {', '.join(PROCESSES)}")
    with config.unlocked():
        config.update(PROCESSES[name])


def outline() -> ConfigDict:
    """Every key with its default; see the README's table for what each means."""
    config = ConfigDict(
        {
            "seed": 0,
            "steps": 4000,
            "batch_size": 64,
            "microbatches": 1,
            "dtype": "float32",
            "dataset": {
                "name": "digits",
                "split": "train",
                "data_dir": "",
                "flip": True,
                "augment": 0.0,
                "latent_scale": 1.0,
                "threads": 2,
            },
            "process": {"name": "ddpm"},
            "network": {"name": "dit"},
            "class_conditional": False,
            "class_dropout": 0.1,
            "curriculum": {
                "order": "easy_to_hard",
                "clusters": 20,
                "clustering": "uniform",
                "edges": (),
                "entropy_power": 1.0,
                "pacing": "patience",
                "patience": 200,
                "steps_per_stage": (1000,),
                "min_improvement": 0.0,
                "smoothing": 0.0,
                "reset_best": True,
                "accumulate": True,
                "stratified": False,
            },
            "optimizer": {
                "name": "adam",
                "learning_rate": 1e-4,
                "warmup_steps": 0,
                "schedule": "constant",
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
                "weight_decay": 0.0,
                "clip_norm": 1.0,
            },
            "ema": {"decay": 0.9999, "rampup": 0.0},
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "sampling": {
                "samples": 64,
                "solver": "ddim",
                "steps": 50,
                "last_step": 0.0,
                "eta": 0.0,
                "churn": (0.0, 0.0, float("inf"), 1.0),
                "tolerance": 1e-4,
                "guidance": 1.0,
                "guidance_interval": (0.0, 1.0),
                "guidance_channels": 0,
                "clip": 1.0,
            },
            "analysis": {
                "images": 60_000,
                "samples": 1000,
                "convergence": {
                    "intervals": 10,
                    "seeds": 5,
                    "steps": 500,
                    "batch_size": 64,
                    "evaluate_every": 10,
                    "share": 0.9,
                },
            },
            "features": {"epochs": 10},
            "evaluation": {"samples": 10_000, "training_samples": 1000, "features": "", "resamples": 200},
            # Arms are free: {name: what of the config is different there}.
            "compare": {"baseline": "vanilla", "candidates": (), "seeds": 5, "arms": {}},
            "log_every": 100,
            "checkpoint_every": 1000,
            "sample_every": 1000,
            "evaluate_every": 0,
        }
    )
    return config.lock()


# Peebles & Xie 2023, table 1.
TRANSFORMERS: dict[str, dict[str, int]] = {
    "s": {"depth": 12, "hidden_size": 384, "num_heads": 6},
    "b": {"depth": 12, "hidden_size": 768, "num_heads": 12},
    "l": {"depth": 24, "hidden_size": 1024, "num_heads": 16},
    "xl": {"depth": 28, "hidden_size": 1152, "num_heads": 16},
}


def latent_transformer(process: str, size: str, dataset: str) -> ConfigDict:
    """A transformer of patch 2 on 32x32x4 latents of 256x256 images, trained as DiT's and SiT's authors do.

    Peebles & Xie 2023, section 4, and Ma et al. 2024, section 3 and their public code: AdamW with a constant rate of
    1e-4 and no decay, batch 256, 400 k steps in the comparisons of sizes, average 0.9999, class dropout 0.1, neither
    gradients nor estimates clipped, 250 sampling steps. DiT (`ddpm`) learns the variance, takes ancestral steps and
    guides three of four channels; SiT (`flow`) samples by the SDE with a last step of 0.04. Latents are those of Stable
    Diffusion's autoencoder times 0.18215. Ours: bfloat16, recomputation, and the curriculum.

    Args:
      process: `ddpm` or `flow`.
      size: of TRANSFORMERS.
      dataset: `imagenet256_latents`, class-conditional, or `ffhq256_latents`.
    """
    config = outline()
    set_process(config, process)
    config.dataset.update(name=dataset, latent_scale=0.18215)
    config.class_conditional = dataset.startswith("imagenet")
    config.dtype = "bfloat16"
    with config.unlocked():
        config.network.update(patch_size=2, mlp_ratio=4.0, remat="dots", **TRANSFORMERS[size])
        if process == "ddpm":
            config.process.learn_variance = True
    config.steps, config.batch_size = 400_000, 256
    config.optimizer.update(name="adamw", learning_rate=1e-4, weight_decay=0.0, clip_norm=0.0)
    config.ema.decay = 0.9999
    config.sampling.update(steps=250, clip=0.0, guidance=1.5 if config.class_conditional else 1.0)
    if process == "ddpm":
        config.sampling.update(solver="ancestral", guidance_channels=3 if config.class_conditional else 0)
    else:
        config.sampling.update(solver="sde", last_step=0.04)
    config.curriculum.update(clusters=20, patience=200)  # Kim et al. 2025
    config.update(log_every=100, checkpoint_every=10_000, sample_every=10_000)
    return config


def edm_unet(
    dataset: str,
    *,
    channel_mult: tuple[int, ...],
    dropout: float,
    augment: float,
    batch_size: int,
    images: float,
    learning_rate: float,
    ema_halflife: float,
) -> ConfigDict:
    """EDM with its DDPM++ U-Net, trained as Karras et al. 2022 do (appendix F, and the public code's defaults).

    What all their runs share: sigma_data 0.5, width 128 with four blocks a resolution and attention at 16, Adam after
    10 M images of warm-up, an average whose half-life is at most 5 % of the images so far, float32, nothing clipped, no
    class dropped, mirrored only by the augmentations. Ours: the curriculum (Kim et al. 2025).

    Args:
      images: seen in all.
      ema_halflife: of the average, in images.
    """
    config = outline()
    set_process(config, "edm")
    config.dataset.update(name=dataset, augment=augment, flip=False)
    config.class_dropout = 0.0
    with config.unlocked():
        config.network.update(
            name="song_unet",
            model_channels=128,
            channel_mult=channel_mult,
            num_blocks=4,
            attn_resolutions=(16,),
            dropout=dropout,
        )
    config.steps, config.batch_size = round(images / batch_size), batch_size
    config.optimizer.update(learning_rate=learning_rate, warmup_steps=round(10e6 / batch_size))
    config.ema.update(decay=0.5 ** (batch_size / ema_halflife), rampup=0.05)
    config.sampling.update(samples=100, clip=0.0)
    config.curriculum.update(clusters=20, patience=200)
    config.update(log_every=100, checkpoint_every=5000, sample_every=5000)
    return config


def to_json(config: ConfigDict) -> dict[str, Any]:
    """The config as plain JSON values (tuples become lists)."""
    return json.loads(config.to_json())


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def without(config: dict[str, Any], free: tuple[str, ...]) -> dict[str, Any]:
    """The flattened config without some keys and what lies below them."""
    return {k: v for k, v in flatten(config).items() if not any(k == f or k.startswith(f + ".") for f in free)}


def differences(
    old: dict[str, Any], new: dict[str, Any], free: tuple[str, ...] = FREE_KEYS
) -> dict[str, tuple[Any, Any]]:
    """The keys, the free ones aside, whose values differ between two configs: {key: (old, new)}.

    `steps` is free too where the learning rate does not depend on it: a run may be made longer. So is `analysis`
    where no cluster depends on it.
    """
    free += ("steps",) if new.get("optimizer", {}).get("schedule") == "constant" else ()
    free += () if new.get("curriculum", {}).get("clustering") == "relative_entropy" else ("analysis",)
    before, after = without(old, free), without(new, free)
    return {k: (before.get(k), after.get(k)) for k in sorted(before | after) if before.get(k) != after.get(k)}
