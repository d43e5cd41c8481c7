"""The codec of a config, trained: reconstructions, and latents that are near to noise."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from etils import epath
from flax import nnx
from jaxtyping import Float

from diffcurr import atomic_file, ranges
from diffcurr.codecs.kl import KL
from diffcurr.codecs.kl_weights import to_bytes
from diffcurr.curriculum.rules import Patience
from diffcurr.metrics import evaluation
from diffcurr.metrics.evaluation import Measured
from diffcurr.sampling.evaluator import features_of
from diffcurr.tasks.base import CONFIG, WEIGHTS, Evaluator, Experiment, Folder, Task
from diffcurr.training import distributed, sharding
from diffcurr.training.autoencoder import AutoencoderStep, Metrics, autoencoder_step
from diffcurr.training.compiled import CompiledStep, compile_step
from diffcurr.training.power_average import gamma_of
from diffcurr.training.randomness import stream_key
from diffcurr.training.state import TrainState, init_state, split_network
from diffcurr.training.window import Window

FILE = "autoencoder.safetensors"
SHOWN = 32  # pictures of a grid, each beside its reconstruction


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoencoder(Task):
    """Trains the KL autoencoder that `codec` describes, on pictures (Rombach et al. 2022, without a discriminator).

    The loss is the error of a pixel, plus `kl` times the divergence of a latent's distribution from N(0, I). Each save
    writes the averaged weights to autoencoder.safetensors, which a diffusion run names as `codec.weights`.

    Attributes:
      norm: error of a pixel: absolute (l1) or squared (l2).
      kl: weight of the divergence, in nats summed over a latent.
    """

    metrics = Metrics

    norm: Annotated[str, ranges.OneOf(("l1", "l2"))] = "l1"
    kl: ranges.NotNegative = 1e-6

    def check(self, experiment: Experiment) -> None:
        if not isinstance(experiment.codec, KL):
            raise ValueError("task.name = 'autoencoder': trains the codec; choose codec.name = 'kl'")
        if experiment.dataset.is_latent:
            raise ValueError(f"task.name = 'autoencoder': dataset {experiment.config.dataset.name} holds no pictures")
        if experiment.dataset.augment:
            raise ValueError(f"dataset.augment = {experiment.dataset.augment}: is for denoising networks; give 0")

    def network(self, experiment: Experiment) -> tuple[Any, Any]:
        return split_network(nnx.eval_shape(lambda: experiment.codec.make(nnx.Rngs(0))))

    def init_params(self, experiment: Experiment) -> Any:
        return split_network(experiment.codec.make(nnx.Rngs(stream_key(experiment.config.seed, "parameters"))))[1]

    def init_state(self, experiment: Experiment, params: Any) -> TrainState:
        rule = Patience(clusters=1, order="none")
        return init_state(params, experiment.optimizer, rule, len(experiment.config.ema.widths))

    def compiled(self, experiment: Experiment) -> CompiledStep:
        config = experiment.config
        settings = AutoencoderStep(
            graph=self.network(experiment)[0],
            optimizer=experiment.optimizer,
            learning_rate=experiment.learning_rate,
            seed=config.seed,
            ema_decay=config.ema.decay,
            ema_rampup=config.ema.rampup,
            ema_gammas=tuple(map(gamma_of, config.ema.widths)),
            microbatches=config.microbatches,
            norm="l1" if self.norm == "l1" else "l2",
            kl=self.kl,
        )
        step = functools.partial(autoencoder_step, config=settings)
        return compile_step(step, lambda state: (), experiment.abstract_state, experiment.mesh)

    def window(self, experiment: Experiment, first_step: int, earlier: Sequence[Any]) -> Window:
        return AutoencoderWindow(first_step, earlier, batch_size=experiment.config.batch_size)

    def describe(self, experiment: Experiment) -> str:
        shape = "x".join(map(str, experiment.shape))
        return f"autoencoder with latents of {shape}, {self.norm} and {self.kl:g} times the divergence"

    def drawn(self, experiment: Experiment, state: TrainState) -> Float[np.ndarray, "n height width channel"]:
        """The first pictures, each followed by what its mean latent is decoded to."""
        images = next(iter(experiment.pictures.read()))[:SHOWN]
        pairs = np.stack([images, self._reconstruct(experiment, state)(images)], axis=1)
        whole: np.ndarray = pairs.reshape(-1, *images.shape[1:])
        return whole

    def columns(self, experiment: Experiment) -> int:
        del experiment
        return 8

    def evaluator(self, experiment: Experiment, number: int) -> Evaluator:
        """Reconstructions of the first pictures beside all pictures, and their error."""
        pictures, features = experiment.pictures, experiment.find_features()
        real = features_of(pictures, features)
        measure = None
        if distributed.is_primary():
            seed, kinds = experiment.config.seed, features.kinds
            measure = evaluation.measure(experiment.metrics, real, number, seed, kinds=kinds)
        mine = pictures.numbers_here[pictures.numbers_here < number]

        def evaluate(state: TrainState) -> Measured:
            reconstruct = self._reconstruct(experiment, state)
            found, squares, left = [], 0.0, len(mine)
            for batch in pictures.read():
                images = batch[:left]
                left -= len(images)
                made = pictures.quantised(reconstruct(images))
                squares += float(np.sum(np.mean((made - images).astype(np.float64) ** 2, axis=(1, 2, 3))))
                found.append(features.look(made, pictures.devices))
                if not left:
                    break
            error = distributed.total(squares) / number
            everything = distributed.gather(mine, np.concatenate(found))
            if measure is None:
                return {}
            psnr = 10.0 * np.log10(4.0 / max(error, 1e-12))  # of pixels in [-1, 1]
            return measure(everything) | {"reconstruction_psnr": {"value": float(psnr), "examples": number}}

        return evaluate

    def diffusers(self, experiment: Experiment) -> Folder:
        config = experiment.codec.diffusers_config(experiment.dataset.shape[0])
        return Folder(f"vae/{WEIGHTS}", {f"vae/{CONFIG}": config})

    def export(self, experiment: Experiment, state: TrainState, workdir: epath.Path) -> None:
        params = sharding.on_host(state.ema, experiment.mesh)
        if distributed.is_primary():
            with atomic_file.replacing(workdir / FILE) as path:
                path.write_bytes(to_bytes(params, {"trained": f"step {int(state.step)}"}))

    def _reconstruct(self, experiment: Experiment, state: TrainState) -> Any:
        """A function of pictures on the host, on the devices of this process."""
        params = sharding.on_host(state.ema, experiment.mesh)
        return lambda images: experiment.decoder.reconstructed(params, images)


class AutoencoderWindow(Window):
    """A window of the steps of an autoencoder."""

    def summary(self, seconds: float) -> dict[str, Any]:
        steps = self.check_finite()
        means = {name: float(np.mean([getattr(m, name) for m in steps])) for name in ("reconstruction", "divergence")}
        return super().summary(seconds) | means | {"learning_rate": float(steps[-1].learning_rate)}
