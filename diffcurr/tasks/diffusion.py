"""A denoising network, trained under a curriculum."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jaxtyping import Float

from diffcurr.batch import Batch
from diffcurr.codecs import Codec, Identity
from diffcurr.codecs.kl import KL
from diffcurr.codecs.kl_weights import public_arrays
from diffcurr.errors import concerning
from diffcurr.metrics.evaluation import Measured
from diffcurr.networks import diffusers_config as diffusers_network
from diffcurr.processes import diffusers_config as diffusers_process
from diffcurr.reporting import curriculum
from diffcurr.tasks.base import CONFIG, WEIGHTS, Evaluator, Experiment, Folder, Task
from diffcurr.training.compiled import CompiledStep, compile_step
from diffcurr.training.randomness import stream_key
from diffcurr.training.rows import read_rows
from diffcurr.training.state import TrainState, init_state, split_network
from diffcurr.training.step import Draws, Metrics, microbatch_loss, train_step
from diffcurr.training.window import CurriculumWindow, Window


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion(Task):
    """Trains the network of the config to denoise."""

    metrics = Metrics
    denoises = True

    def check(self, experiment: Experiment) -> None:
        with concerning(f"network {experiment.config.network.name}"):
            self.network(experiment)  # which checks its own sizes

    def network(self, experiment: Experiment) -> tuple[Any, Any]:
        found: tuple[Any, Any] = experiment.abstract_network
        return found

    def init_params(self, experiment: Experiment) -> Any:
        return split_network(experiment.make_network(nnx.Rngs(stream_key(experiment.config.seed, "parameters"))))[1]

    def init_state(self, experiment: Experiment, params: Any) -> TrainState:
        return init_state(params, experiment.optimizer, experiment.rule, len(experiment.config.ema.widths))

    def compiled(self, experiment: Experiment) -> CompiledStep:
        config = experiment.step_config
        codec = (config.codec.abstract_params(), lambda: experiment.codec_params) if config.codec else None

        def step(state: TrainState, batch: Any, weights: Any, *params: Any) -> tuple[TrainState, Any, Any]:
            return train_step(state, batch, weights, config, *params)

        return compile_step(
            step,
            lambda state: config.rule.weights(state.curriculum),
            experiment.abstract_state,
            experiment.mesh,
            codec,
        )

    def example_loss(self, experiment: Experiment) -> Callable[[Any], jax.Array]:
        fields = experiment.conditioning.spec()

        def loss(params: Any) -> jax.Array:
            told = {name: jnp.zeros((1, *field.shape), field.dtype) for name, field in fields.items()}
            one = Batch(jnp.zeros((1, *experiment.shape)), told)
            draws = Draws(jnp.full(1, 0.5), jnp.zeros_like(one.x), jnp.zeros(1, bool))
            return microbatch_loss(params, experiment.step_config, one, draws)[0]

        return loss

    def window(self, experiment: Experiment, first_step: int, earlier: Sequence[Any]) -> Window:
        batch_size, stages = experiment.config.batch_size, experiment.rule.num_stages
        return CurriculumWindow(first_step, earlier, batch_size=batch_size, num_stages=stages)

    def describe(self, experiment: Experiment) -> str:
        settings, stages = experiment.config.curriculum, experiment.rule.num_stages
        if stages == 1:
            return f"rule {settings.name}"
        return f"{stages} stages of {settings.get('order', settings.name)}"

    def drawn(self, experiment: Experiment, state: TrainState) -> Float[np.ndarray, "n height width channel"]:
        number = experiment.config.sampling.samples
        condition = experiment.conditioning.chosen(number)
        return experiment.sampler.draw(state.ema, experiment.sample_key(), condition, number)

    def columns(self, experiment: Experiment) -> int:
        columns: int = experiment.conditioning.columns
        return columns

    def captions(self, experiment: Experiment) -> Sequence[str]:
        shown: Sequence[str] = experiment.conditioning.shown_captions(experiment.config.sampling.samples)
        return shown

    def evaluator(self, experiment: Experiment, number: int) -> Evaluator:
        evaluator, held_out = experiment.evaluator(number), experiment.held_out_error()

        def evaluate(state: TrainState) -> Measured:
            measured: Measured = evaluator(state.ema)[1]
            return measured | held_out(state.ema) if held_out else measured

        return evaluate

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
        curriculum.save_curriculum(workdir / curriculum.FILE, read_rows(workdir), experiment.levels)


def _why_no_vae(codec: Codec) -> str:
    if isinstance(codec, Identity):
        return "what is noised is not encoded"
    if not isinstance(codec, KL):
        return f"diffusers has no {type(codec).__name__}"
    if not codec.weights:
        return "codec.weights is empty"
    return "diffusers' pipelines know a scale of latents, and no codec.shift, mean or std"
