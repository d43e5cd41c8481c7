"""The KL autoencoder of a config, trained: reconstructions, and latents that are near to noise."""

import dataclasses
import functools
from typing import Annotated, Any

from flax import nnx

from diffcurr import ranges
from diffcurr.codecs.kl import KL
from diffcurr.codecs.kl_weights import to_bytes
from diffcurr.tasks.base import CONFIG, WEIGHTS, Experiment, Folder
from diffcurr.tasks.codec import CodecTask
from diffcurr.training.autoencoder import AutoencoderStep, Metrics, Norm, autoencoder_step
from diffcurr.training.compiled import CompiledStep, compile_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoencoder(CodecTask):
    """Trains the KL autoencoder that `codec` describes, on pictures (Rombach et al. 2022, without a discriminator).

    The loss is the error of a pixel, plus `kl` times the divergence of a latent's distribution from N(0, I). Each save
    writes the averaged weights to autoencoder.safetensors, which a diffusion run names as `codec.weights`.

    Attributes:
      norm: error of a pixel: absolute (l1) or squared (l2).
      kl: weight of the divergence, in nats summed over a latent.
    """

    metrics = Metrics
    trains = KL
    file = "autoencoder.safetensors"

    norm: Annotated[str, ranges.OneOf(("l1", "l2"))] = "l1"
    kl: ranges.NotNegative = 1e-6

    def make(self, experiment: Experiment, rngs: nnx.Rngs) -> nnx.Module:
        network: nnx.Module = experiment.codec.make(rngs)
        return network

    def to_bytes(self, params: Any, facts: dict[str, str]) -> bytes:
        return to_bytes(params, facts)

    def compiled(self, experiment: Experiment) -> CompiledStep:
        norm: Norm = "l1" if self.norm == "l1" else "l2"
        settings = AutoencoderStep(**experiment.updating, norm=norm, kl=self.kl)
        step = functools.partial(autoencoder_step, config=settings)
        return compile_step(step, lambda state: (), experiment.abstract_state, experiment.mesh)

    def describe(self, experiment: Experiment) -> str:
        shape = "x".join(map(str, experiment.shape))
        return f"autoencoder with latents of {shape}, {self.norm} and {self.kl:g} times the divergence"

    def diffusers(self, experiment: Experiment) -> Folder:
        config = experiment.codec.diffusers_config(experiment.dataset.shape[0])
        return Folder(f"vae/{WEIGHTS}", {f"vae/{CONFIG}": config})
