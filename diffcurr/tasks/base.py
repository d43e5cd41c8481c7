"""What a task is."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax
import numpy as np
from etils import epath
from jaxtyping import Float

from diffcurr import ranges
from diffcurr.codecs import Codec
from diffcurr.data.datasets import Dataset
from diffcurr.metrics.evaluation import Measured
from diffcurr.training.compiled import CompiledStep
from diffcurr.training.state import TrainState
from diffcurr.training.window import Window

Experiment: TypeAlias = Any
"""The parts of a config, `diffcurr.experiment.Experiment`, which knows the tasks."""

Evaluator: TypeAlias = Callable[[TrainState], Measured]


class Folder(NamedTuple):
    """A model in the layout of diffusers.

    Attributes:
      trained: path in the folder of the weights of what was trained.
      configs: path -> JSON values.
      others: path -> reads the arrays of a part that was not trained here.
      notes: what whoever loads it must know, a sentence each.
    """

    trained: str
    configs: Mapping[str, Any]
    others: Mapping[str, Callable[[], Mapping[str, np.ndarray]]] = {}
    notes: Sequence[str] = ()


WEIGHTS, CONFIG = "diffusion_pytorch_model.safetensors", "config.json"  # of each model, in diffusers


class Task(ranges.Checked, abc.ABC):
    """What is trained: a network, its step, what is drawn and measured of it. Its settings are its fields.

    Class attributes:
      metrics: what a step reports, a NamedTuple with `loss` and `grad_norm`.
      remat_key: the setting that says what is recomputed in the backward pass.
      denoises: whether it is a denoising network that is trained, which samples can be drawn from.
      trains_codec: whether it is the codec that is trained.
    """

    metrics: ClassVar[type[Any]]
    remat_key: ClassVar[str] = "network.remat"
    denoises: ClassVar[bool] = False
    trains_codec: ClassVar[bool] = False

    def network_shape(self, dataset: Dataset, codec: Codec, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what `network` of the config is made for.

        Args:
          shape: shape of an encoded picture.

        Raises:
          ValueError: if there is none.
        """
        del dataset, codec
        return shape

    @abc.abstractmethod
    def check(self, experiment: Experiment) -> None:
        """Raises ValueError or UserError if the parts do not fit the task. Allocates nothing."""

    @abc.abstractmethod
    def network(self, experiment: Experiment) -> tuple[Any, Any]:
        """(graph definition, shapes of the parameters) of what is trained."""

    @abc.abstractmethod
    def init_state(self, experiment: Experiment, params: Any) -> TrainState:
        """The state before the first step."""

    @abc.abstractmethod
    def init_params(self, experiment: Experiment) -> Any:
        """The first parameters, a function of the seed alone. Jit-able."""

    @abc.abstractmethod
    def compiled(self, experiment: Experiment) -> CompiledStep:
        """The train step for the experiment's mesh; compiled at its first call."""

    def example_loss(self, experiment: Experiment) -> Callable[[Any], jax.Array] | None:
        """Parameters -> loss of one example, to be traced and not run; None where operations are not counted."""
        del experiment
        return None

    @abc.abstractmethod
    def window(self, experiment: Experiment, first_step: int, earlier: Sequence[Any]) -> Window:
        """A window of steps, see `training.window.Window`."""

    @abc.abstractmethod
    def describe(self, experiment: Experiment) -> str:
        """What is trained, in a few words."""

    @abc.abstractmethod
    def drawn(self, experiment: Experiment, state: TrainState) -> Float[np.ndarray, "n height width channel"]:
        """Pictures that show what the network can do; in every process."""

    @abc.abstractmethod
    def columns(self, experiment: Experiment) -> int:
        """Columns of the grid of these pictures; 0 for as square as it gets."""

    def captions(self, experiment: Experiment) -> Sequence[str]:
        """A few words under each of these pictures; empty for none."""
        del experiment
        return ()

    @abc.abstractmethod
    def evaluator(self, experiment: Experiment, number: int) -> Evaluator:
        """What measures a state by so many pictures. Process 0 is told all of it, the others may be told nothing."""

    def position(self, experiment: Experiment) -> dict[str, Any]:
        """What a checkpoint keeps beside the state, as JSON values."""
        del experiment
        return {}

    def save_figures(self, experiment: Experiment, workdir: epath.Path) -> None:
        """Writes pictures of the run so far into the workdir."""

    def diffusers(self, experiment: Experiment) -> Folder:
        """What of diffusers' layout stands beside the weights of what is trained. Reads and computes nothing.

        Raises:
          ValueError: if diffusers has nothing of the kind.
        """
        raise ValueError(f"task {experiment.config.task.name}: diffusers has nothing of the kind: give --format=public")

    def export(self, experiment: Experiment, state: TrainState, workdir: epath.Path) -> None:
        """Writes what other runs need of this one; called after each save, in every process."""
