"""A task whose network makes pictures: they are drawn during training, by `--job=sample`, and measured."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float

from diffcurr.metrics.evaluation import Measured
from diffcurr.sampling.drawing import Sampler, Sampling
from diffcurr.tasks.base import Evaluator, Experiment, Task
from diffcurr.training.randomness import stream_key
from diffcurr.training.state import TrainState, split_network


class Sampled(Task):
    """Trains the network of the config, of which samples can be drawn."""

    @abc.abstractmethod
    def sampler(self, experiment: Experiment) -> Sampler:
        """Draws samples with the settings of the config."""

    @abc.abstractmethod
    def check_sampling(self, experiment: Experiment, settings: Sampling) -> None:
        """Raises ValueError if samples cannot be drawn with these settings."""

    @abc.abstractmethod
    def sampling_facts(self, experiment: Experiment) -> dict[str, Any]:
        """How the samples of an evaluation are drawn, as JSON values."""

    @abc.abstractmethod
    def held_out(self, experiment: Experiment) -> Callable[[Any], Measured] | None:
        """Measures parameters by pictures that training never sees; None where there are none, or none are wanted.

        Raises:
          UserError: if they cannot be had, or there is only one.
        """

    def network(self, experiment: Experiment) -> tuple[Any, Any]:
        found: tuple[Any, Any] = experiment.abstract_network
        return found

    def init_params(self, experiment: Experiment) -> Any:
        return split_network(experiment.make_network(nnx.Rngs(stream_key(experiment.config.seed, "parameters"))))[1]

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
        evaluator, held_out = experiment.evaluator(number), self.held_out(experiment)

        def evaluate(state: TrainState) -> Measured:
            measured: Measured = evaluator(state.ema)[1]
            return measured | held_out(state.ema) if held_out else measured

        return evaluate
