"""A denoising network, trained under a curriculum."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from flax import nnx
from jaxtyping import Float

from diffcurr.errors import concerning
from diffcurr.metrics.evaluation import Measured
from diffcurr.reporting import curriculum
from diffcurr.tasks.base import Evaluator, Experiment, Task
from diffcurr.training.compiled import CompiledStep, compile_step
from diffcurr.training.randomness import stream_key
from diffcurr.training.rows import read_rows
from diffcurr.training.state import TrainState, init_state, split_network
from diffcurr.training.step import Metrics, train_step
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

    def save_figures(self, experiment: Experiment, workdir: epath.Path) -> None:
        curriculum.save_curriculum(workdir / curriculum.FILE, read_rows(workdir), experiment.levels)
