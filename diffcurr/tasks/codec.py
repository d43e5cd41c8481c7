"""What the tasks that train a codec share: the checks, the grid of reconstructions, and what is measured of them."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from etils import epath
from flax import nnx
from jaxtyping import Float

from diffcurr import atomic_file
from diffcurr.codecs import CODECS, Codec
from diffcurr.curriculum.rules import Patience
from diffcurr.errors import UserError
from diffcurr.metrics import evaluation
from diffcurr.metrics.evaluation import Measured, WantedMetric
from diffcurr.sampling.evaluator import features_of
from diffcurr.tasks.base import Evaluator, Experiment, Task
from diffcurr.training import distributed, sharding
from diffcurr.training.randomness import stream_key
from diffcurr.training.state import TrainState, init_state, split_network
from diffcurr.training.window import MeansWindow, Window

SHOWN = 32  # pictures of a grid, each beside its reconstruction


class CodecTask(Task):
    """Trains the codec that `codec` describes, on pictures.

    Class attributes:
      trains: class of the codec.
      file: name of the file of averaged weights that each save writes into the workdir.
    """

    trains_codec = True

    trains: ClassVar[type[Codec]]
    file: ClassVar[str]

    def check(self, experiment: Experiment) -> None:
        config = experiment.config
        if not isinstance(experiment.codec, self.trains):
            names = " or ".join(repr(name) for name, one in CODECS.items() if issubclass(one, self.trains))
            raise ValueError(f"task.name = {config.task.name!r}: trains the codec; choose codec.name = {names}")
        if experiment.dataset.is_latent:
            raise ValueError(f"task.name = {config.task.name!r}: dataset {config.dataset.name} holds no pictures")
        if experiment.dataset.augment:
            raise ValueError(f"dataset.augment = {experiment.dataset.augment}: is for denoising networks; give 0")
        if config.evaluation.reference:
            raise ValueError(
                f"evaluation.reference = {config.evaluation.reference!r}: reconstructions are compared with the data "
                f"set's own pictures; leave it empty"
            )
        for name, metric in experiment.metrics.items():
            if metric.held_out or isinstance(metric, WantedMetric):
                raise ValueError(f"evaluation.metrics.{name}: is for samples, not for reconstructions; leave it out")

    @abc.abstractmethod
    def make(self, experiment: Experiment, rngs: nnx.Rngs) -> nnx.Module:
        """What is trained, with random weights."""

    @abc.abstractmethod
    def to_bytes(self, params: Any, facts: dict[str, str]) -> bytes:
        """A file of the codec's weights, which `codec.weights` names."""

    def codec_params(self, params: Any) -> Any:
        """The codec's weights among those of what is trained."""
        return params

    def network(self, experiment: Experiment) -> tuple[Any, Any]:
        return split_network(nnx.eval_shape(lambda: self.make(experiment, nnx.Rngs(0))))

    def init_params(self, experiment: Experiment) -> Any:
        return split_network(self.make(experiment, nnx.Rngs(stream_key(experiment.config.seed, "parameters"))))[1]

    def init_state(self, experiment: Experiment, params: Any) -> TrainState:
        rule = Patience(clusters=1, order="none")
        return init_state(params, experiment.optimizer, rule, len(experiment.config.ema.widths))

    def window(self, experiment: Experiment, first_step: int, earlier: Sequence[Any]) -> Window:
        return MeansWindow(first_step, earlier, batch_size=experiment.config.batch_size)

    def drawn(self, experiment: Experiment, state: TrainState) -> Float[np.ndarray, "n height width channel"]:
        """The first pictures, each followed by its reconstruction."""
        images = next(iter(experiment.pictures.read()))[:SHOWN]
        made = experiment.decoder.reconstructed(self._averaged(experiment, state), images)
        whole: np.ndarray = np.stack([images, made], axis=1).reshape(-1, *images.shape[1:])
        return whole

    def columns(self, experiment: Experiment) -> int:
        del experiment
        return 8

    def tallied(self, experiment: Experiment, params: Any, images: Any) -> Float[np.ndarray, " number"]:
        """Numbers about the codec's use of some pictures, to be added up over all that are measured."""
        del experiment, params, images
        return np.zeros(0)

    def described(self, tally: Float[np.ndarray, " number"]) -> Measured:
        """What these numbers say of all pictures."""
        del tally
        return {}

    def evaluator(self, experiment: Experiment, number: int) -> Evaluator:
        """Reconstructions of the first pictures beside all pictures, and their error.

        Args:
          number: number of pictures to be reconstructed; all of them where there are fewer.
        """
        pictures, features = experiment.pictures, experiment.find_features()
        number = min(number, pictures.number)
        if number < jax.process_count():
            raise UserError(f"{number} pictures to be reconstructed: give one at least for each of the processes")
        real, seed, kinds = features_of(pictures, features), experiment.config.seed, features.kinds
        measure = distributed.on_primary(
            lambda: evaluation.measure(experiment.metrics, real, number, seed, kinds=kinds)
        )
        mine = pictures.numbers_here[pictures.numbers_here < number]

        def evaluate(state: TrainState) -> Measured:
            params = self._averaged(experiment, state)
            found, squares, left = [], 0.0, len(mine)
            tally: Any = 0.0
            for batch in pictures.read():
                images = batch[:left]
                left -= len(images)
                made = pictures.quantised(experiment.decoder.reconstructed(params, images))
                squares += float(np.sum(np.mean((made - images).astype(np.float64) ** 2, axis=(1, 2, 3))))
                tally = tally + self.tallied(experiment, params, images)
                found.append(features.look(made, pictures.devices))
                if not left:
                    break
            error, tally = distributed.total(squares) / number, distributed.total(tally)
            everything = distributed.gather(mine, np.concatenate(found))
            if measure is None:
                return {}
            psnr = 10.0 * np.log10(4.0 / max(error, 1e-12))  # of pixels in [-1, 1]
            reconstruction = {"reconstruction_psnr": float(psnr), "reconstruction_error": float(error)}
            of_pictures = {name: {"value": value, "examples": number} for name, value in reconstruction.items()}
            return measure(everything) | of_pictures | self.described(tally)

        return evaluate

    def export(self, experiment: Experiment, state: TrainState, workdir: epath.Path) -> None:
        params = self._averaged(experiment, state)
        if distributed.is_primary():
            facts = {"trained": f"step {int(state.step)}"} | experiment.codec.facts
            with atomic_file.replacing(workdir / self.file) as path:
                path.write_bytes(self.to_bytes(params, facts))

    def _averaged(self, experiment: Experiment, state: TrainState) -> Any:
        """The codec's averaged weights, on the host."""
        return sharding.on_host(self.codec_params(state.ema))
