"""A denoising network, trained under a curriculum."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from diffcurr import reporting
from diffcurr.batch import Batch
from diffcurr.codecs import Codec, Identity
from diffcurr.codecs.kl import KL
from diffcurr.codecs.kl_weights import public_arrays
from diffcurr.data.datasets import Pictures
from diffcurr.errors import concerning
from diffcurr.networks import TokenNetwork
from diffcurr.networks import diffusers_config as diffusers_network
from diffcurr.processes import diffusers_config as diffusers_process
from diffcurr.sampling.drawing import DiffusionSampler, Sampling
from diffcurr.sampling.held_out import HeldOutError
from diffcurr.tasks.base import CONFIG, WEIGHTS, Experiment, Folder
from diffcurr.tasks.sampled import Sampled
from diffcurr.training.compiled import CompiledStep, Frozen, compile_step
from diffcurr.training.rows import read_rows
from diffcurr.training.state import TrainState, init_state
from diffcurr.training.step import Draws, Metrics, microbatch_loss, train_step
from diffcurr.training.window import CurriculumWindow, Window


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion(Sampled):
    """Trains the network of the config to denoise."""

    metrics = Metrics
    denoises = True

    def check(self, experiment: Experiment) -> None:
        with concerning(f"network {experiment.config.network.name}"):
            if isinstance(experiment.network_outline, TokenNetwork):  # which has checked its own sizes
                raise ValueError("predicts tokens, and does not denoise; choose another, or task.name = 'tokens'")

    def init_state(self, experiment: Experiment, params: Any) -> TrainState:
        return init_state(params, experiment.optimizer, experiment.rule, len(experiment.config.ema.widths))

    def compiled(self, experiment: Experiment) -> CompiledStep:
        config = experiment.step_config
        frozen = Frozen(config.codec.abstract_params(), lambda: experiment.codec_params) if config.codec else None

        def step(state: TrainState, batch: Any, weights: Any, *params: Any) -> tuple[TrainState, Any, Any]:
            return train_step(state, batch, weights, config, *params)

        return compile_step(
            step,
            lambda state: config.rule.weights(state.curriculum),
            experiment.abstract_state,
            experiment.mesh,
            frozen,
        )

    def example_loss(self, experiment: Experiment) -> Callable[[Any], jax.Array]:
        fields, aligned, config = experiment.conditioning.spec(), experiment.features_spec, experiment.step_config

        def loss(params: Any) -> jax.Array:
            told = {name: jnp.zeros((1, *field.shape), field.dtype) for name, field in fields.items()}
            one = Batch(jnp.zeros((1, *experiment.shape)), told, aligned.zeros(1) if aligned else None)
            draws = Draws(jnp.full(1, 0.5), jnp.zeros_like(one.x), jnp.zeros(1, bool))
            return microbatch_loss(params, config, one, draws)[0]

        return loss

    def window(self, experiment: Experiment, first_step: int, earlier: Sequence[Any]) -> Window:
        batch_size, stages = experiment.config.batch_size, experiment.rule.num_stages
        return CurriculumWindow(first_step, earlier, batch_size=batch_size, num_stages=stages)

    def describe(self, experiment: Experiment) -> str:
        settings, stages = experiment.config.curriculum, experiment.rule.num_stages
        if "order" in settings and stages > 1:
            return f"{stages} stages of {settings.order}"
        before = f"{stages} stages of {settings.stages.get('order', settings.name)}, " if stages > 1 else ""
        return f"{before}rule {settings.name}"

    def sampler(self, experiment: Experiment) -> DiffusionSampler:
        return DiffusionSampler(
            **experiment.drawing, process=experiment.process, solver=experiment.solver, shape=experiment.shape
        )

    def check_sampling(self, experiment: Experiment, settings: Sampling) -> None:
        settings.check(experiment.process, experiment.conditioning, experiment.shape[-1])
        experiment.solver.check(experiment.process)
        if settings.clip and (experiment.dataset.is_latent or not isinstance(experiment.codec, Identity)):
            raise ValueError(f"clip = {settings.clip}: latents have no limits; give 0")

    def sampling_facts(self, experiment: Experiment) -> dict[str, Any]:
        settings = experiment.config.sampling
        return {"solver": settings.solver.name} | {key: settings[key] for key in ("steps", "spacing", "guidance")}

    def held_out(self, experiment: Experiment) -> HeldOutError | None:
        """The denoising error of held-out images."""
        images = experiment.held_out_images()
        if images is None:
            return None
        values, dataset = None, experiment.dataset
        if experiment.encoder is not None:
            images = images._replace(x=experiment.decoder.encoded(images.x, rows=256))
        elif isinstance(dataset, Pictures) and dataset.max_value <= 255:  # finer ones are as good as continuous
            stored = np.arange(dataset.max_value + 1)[:, None, None, None]
            values = dataset.scaled(stored).astype(np.float64).ravel()
        return HeldOutError(
            graph=experiment.abstract_network[0],
            process=experiment.process,
            images=images,
            values=values,
            settings=experiment.denoising,
            mesh=experiment.mesh,
            param_shardings=experiment.param_shardings,
        )

    def position(self, experiment: Experiment) -> dict[str, Any]:
        return {"edges": list(experiment.edges)}

    def diffusers(self, experiment: Experiment) -> Folder:
        """The transformer, the scheduler, and the autoencoder where the run has its weights, as one pipeline."""
        model = diffusers_network.model(experiment.network_outline)
        scheduler = diffusers_process.scheduler(experiment.process, experiment.sampling.clip)
        parts = {"transformer": model.config["_class_name"], "scheduler": scheduler["_class_name"]}
        configs = {f"transformer/{CONFIG}": model.config, "scheduler/scheduler_config.json": scheduler}
        others, notes = {}, list(model.notes)
        codec = experiment.codec
        if isinstance(codec, KL) and codec.weights and not (codec.shift or codec.mean or codec.std):
            parts["vae"] = "AutoencoderKL"
            configs[f"vae/{CONFIG}"] = codec.diffusers_config(codec.factor * experiment.shape[0])
            others[f"vae/{WEIGHTS}"] = lambda: public_arrays(codec.load())
        else:
            notes.append(f"without a vae, since {_why_no_vae(codec)}: give vae=None to from_pretrained")
        index = {name: ["diffusers", kind] for name, kind in parts.items()}
        index |= {name: [None, None] for name in ("vae", *model.others) if name not in parts}
        configs["model_index.json"] = {"_class_name": model.pipeline, **index}
        return Folder(f"transformer/{WEIGHTS}", configs, others, notes)

    def save_figures(self, experiment: Experiment, workdir: epath.Path) -> None:
        figures = reporting.curriculum  # which imports Matplotlib when it is first named
        figures.save_curriculum(workdir / figures.FILE, read_rows(workdir), experiment.levels)


def _why_no_vae(codec: Codec) -> str:
    if isinstance(codec, Identity):
        return "what is noised is not encoded"
    if not isinstance(codec, KL):
        return f"diffusers has no {type(codec).__name__}"
    if not codec.weights:
        return "codec.weights is empty"
    return "diffusers' pipelines know a scale of latents, and no codec.shift, mean or std"
