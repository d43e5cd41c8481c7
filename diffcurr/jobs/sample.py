"""Draw samples from a workdir: `python -m diffcurr.main --config=... --job=sample`"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr import experiment as experiment_lib
from diffcurr.errors import UserError
from diffcurr.experiment import Experiment
from diffcurr.reporting import figures
from diffcurr.reporting.progress import Line
from diffcurr.sampling import solvers
from diffcurr.sampling.guidance import guided_denoiser
from diffcurr.training import sharding
from diffcurr.training.checkpoint import Checkpoints
from diffcurr.training.randomness import stream_key
from diffcurr.training.state import TrainState
from diffcurr.training.workdir import check_config

BATCH = 256  # samples drawn at a time


def run(config: ConfigDict, workdir: epath.PathLike) -> int:
    """Writes samples of the averaged weights to samples.npz and samples.png. Returns the exit code."""
    experiment, state = restored(config, workdir)
    workdir, step = epath.Path(workdir), int(state.step)
    images, labels = make_drawer(experiment, config.sampling.samples, f"samples of step {step}")(state.ema)
    with atomic_file.replacing(workdir / "samples.npz") as temporary:
        arrays: dict[str, Any] = {"images": images, "step": step} | ({} if labels is None else {"labels": labels})
        np.savez_compressed(temporary, **arrays)
    figures.save_grid(workdir / "samples.png", images[:100], grid_columns(experiment))
    print(f"wrote {workdir / 'samples.npz'} and {workdir / 'samples.png'}")
    return 0


def restored(config: ConfigDict, workdir: epath.PathLike) -> tuple[Experiment, TrainState]:
    """What a workdir was made with, and its latest checkpoint.

    Raises:
      UserError: if there is none, or it was made with another config.
    """
    experiment = experiment_lib.from_config(config)
    workdir = epath.Path(workdir)
    found = None
    if (workdir / "checkpoints").exists():
        check_config(workdir, config)
        experiment = experiment.with_clusters(workdir, Line())
        checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
        found = checkpoints.restore(experiment.compiled.abstract_state)
        checkpoints.close()
    if found is None:
        raise UserError(f"workdir {workdir} holds no checkpoint: train first, or name another with --workdir")
    return experiment, found[0]


Drawn = tuple[Float[np.ndarray, "n height width channel"], Int[np.ndarray, " n"] | None]


def make_drawer(experiment: Experiment, number: int, what: str = "") -> Callable[[Any], Drawn]:
    """A function params -> (images, their labels if the network takes them): `number` samples, drawn in equal parts.

    Args:
      what: they are, for a line after each part; none if empty.
    """
    size = min(number, BATCH)
    draw_part = make_sampler(experiment, size)

    def draw(params: Any) -> Drawn:
        parts = []
        for start in range(0, number, size):
            parts.append(draw_part(params, start // size))
            if what:
                print(f"{min(start + size, number)}/{number} {what}", flush=True)
        labels = None
        if experiment.num_classes:
            labels = np.concatenate([sample_labels(experiment, size) for _ in parts])[:number]
        return np.concatenate(parts)[:number], labels

    return draw


def sample_labels(experiment: Experiment, number: int) -> Int[np.ndarray, " n"]:
    """The classes in turn."""
    return np.arange(number, dtype=np.int32) % experiment.num_classes


def grid_columns(experiment: Experiment) -> int:
    """Columns of a picture of samples: one for each class where they fit, else (0) as square as it gets."""
    return experiment.num_classes if experiment.num_classes <= 20 else 0


def make_sampler(experiment: Experiment, number: int) -> Callable[..., Float[np.ndarray, "n height width channel"]]:
    """A function (params, part=0) -> `number` samples on the host; the same noise for the same seed and part."""
    config, process, info = experiment.config, experiment.process, experiment.dataset
    settings = config.sampling
    everywhere = sharding.replicated(experiment.mesh)
    labels = sample_labels(experiment, number) if experiment.num_classes else None
    graph = experiment.abstract_network[0]

    def draw(params: Any, part: Int[Array, ""]) -> Array:
        key = jax.random.fold_in(stream_key(config.seed, "samples"), part)
        network = nnx.merge(graph, params)
        denoise = guided_denoiser(
            network,
            process,
            None if labels is None else jnp.asarray(labels),
            null_label=experiment.num_classes,
            scale=settings.guidance,
            interval=tuple(settings.guidance_interval),
            channels=settings.guidance_channels,
            clip=settings.clip or None,
        )
        levels = solvers.make_levels(process, settings.steps, settings.last_step)
        shape = (number, info.image_size, info.image_size, info.channels)
        return solvers.sample(
            key,
            denoise,
            levels,
            shape,
            solver=settings.solver,
            eta=settings.eta,
            churn=solvers.Churn(*settings.churn),
            level=process.level,
            tolerance=settings.tolerance,
        )

    param_shardings = jax.tree.map(lambda x: x.sharding, experiment.compiled.abstract_state.ema)
    compiled = jax.jit(draw, in_shardings=(param_shardings, everywhere), out_shardings=everywhere)

    def sampler(params: Any, part: int = 0) -> Float[np.ndarray, "n height width channel"]:
        with jax.transfer_guard("allow"):
            return jax.device_get(compiled(params, np.int32(part)))

    return sampler
