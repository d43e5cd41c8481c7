"""The ViT-VQGAN of a config, trained: pictures to tokens and back."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from diffcurr import ranges
from diffcurr.codecs.vit_vqgan import ViTVQGANCodec, to_bytes
from diffcurr.metrics.evaluation import Measured
from diffcurr.networks.discriminator import Discriminator
from diffcurr.tasks.base import Experiment
from diffcurr.tasks.codec import CodecTask
from diffcurr.training import dead_codes, sharding
from diffcurr.training.compiled import CompiledStep, Frozen, compile_step
from diffcurr.training.optimizer import apart
from diffcurr.training.perceptual import OfClassifier, Perceptual
from diffcurr.training.state import TrainState
from diffcurr.training.tokenizer import Metrics, Pair, TokenizerStep, losses, tokenizer_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer(CodecTask):
    """Trains the ViT-VQGAN that `codec` describes, on pictures (Yu et al. 2022, section 3.3).

    The weights of the losses are the paper's, as a public re-implementation has them. Each save writes the averaged
    weights to tokenizer.safetensors, which other runs name as `codec.weights`.

    Attributes:
      l2: weight of the mean squared error of a pixel.
      logit_laplace: weight of the -log density of a pixel, in nats; the paper's is 0.1; it needs `codec.logit_laplace`.
      commitment: weight of the distance of vectors to their codes, which moves the vectors; what moves codes has 1.
      perceptual: the loss of features.
      adversarial: weight of the discriminator's opinion; 0 for no discriminator.
      adversarial_start: step from which on it counts, and is trained.
      discriminator_channels: channels of the discriminator's first block; each later one has twice as many, up to 512.
      restart_after: steps without use after which a code of a codebook is put where vectors are that have no code near;
        in the first step, all codes that it does not use; 0 for never, as in the paper.
    """

    metrics = Metrics
    remat_key = "codec.remat"
    trains = ViTVQGANCodec
    file = "tokenizer.safetensors"

    l2: ranges.NotNegative = 1.0
    logit_laplace: ranges.NotNegative = 0.0
    commitment: ranges.NotNegative = 0.25
    perceptual: Perceptual = OfClassifier()
    adversarial: ranges.NotNegative = 0.1
    adversarial_start: ranges.StepsOrNever = 0
    discriminator_channels: ranges.Width = 64
    restart_after: ranges.StepsOrNever = 0

    def check(self, experiment: Experiment) -> None:
        super().check(experiment)
        codec = experiment.codec
        if bool(self.logit_laplace) > codec.logit_laplace:
            raise ValueError(f"logit_laplace = {self.logit_laplace}: needs codec.logit_laplace = True; or give 0")
        if self.perceptual.weight:
            self.perceptual.abstract_params(experiment.dataset.shape)
        learns = "codebook" in codec.abstract_params()
        if self.restart_after and not learns:
            raise ValueError(f"restart_after = {self.restart_after}: is for a codebook; give 0 with this quantizer")

    def make(self, experiment: Experiment, rngs: nnx.Rngs) -> Pair:
        *sides, channels = experiment.dataset.shape
        settings = {"dtype": experiment.codec.dtype, "rngs": rngs}
        discriminator = None
        if self.adversarial:
            discriminator = Discriminator(tuple(sides), channels, self.discriminator_channels, **settings)
        return Pair(experiment.codec.make(rngs), discriminator)

    def codec_params(self, params: Any) -> Any:
        return params["generator"]

    def to_bytes(self, params: Any, facts: dict[str, str]) -> bytes:
        return to_bytes(params, facts)

    def init_state(self, experiment: Experiment, params: Any) -> TrainState:
        """Each network has the optimizer for itself; codes count as not used for long."""
        state = super().init_state(experiment, params)
        unused = jnp.full(experiment.codec.num_codes, self.restart_after, jnp.int32)
        return state._replace(opt_state=apart(experiment.optimizer).init(params), curriculum=unused)

    def step_of(self, experiment: Experiment) -> TokenizerStep:
        """What the train step is compiled for."""
        own = ("l2", "logit_laplace", "commitment", "adversarial", "adversarial_start", "restart_after")
        return TokenizerStep(
            **experiment.updating | {"optimizer": apart(experiment.optimizer)},
            perceptual=self.perceptual if self.perceptual.weight else None,
            **{name: getattr(self, name) for name in own},
            remat=experiment.codec.remat != "none",
        )

    def compiled(self, experiment: Experiment) -> CompiledStep:
        settings = self.step_of(experiment)

        def step(state: TrainState, batch: Any, carry: Any, *weights: Any) -> tuple[TrainState, Any, Any]:
            return tokenizer_step(state, batch, carry, settings, *weights)

        frozen = None
        if settings.perceptual:
            perceptual, everywhere = settings.perceptual, sharding.replicated(experiment.mesh)
            shape, name = experiment.dataset.shape, experiment.config.dataset.name
            load = functools.cache(lambda: sharding.place(perceptual.load(shape, name), everywhere))
            frozen = Frozen(perceptual.abstract_params(shape), load)
        return compile_step(step, lambda state: (), experiment.abstract_state, experiment.mesh, frozen)

    def example_loss(self, experiment: Experiment) -> Callable[[Any], jax.Array]:
        settings, shape = self.step_of(experiment), experiment.dataset.shape
        weights = settings.perceptual.abstract_params(shape) if settings.perceptual else ()

        def loss(params: Any) -> jax.Array:
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), weights)
            return losses(params, jnp.zeros((1, *shape)), settings, 0, zeros)[0]

        return loss

    def describe(self, experiment: Experiment) -> str:
        rows, columns = experiment.codec.token_shape(experiment.dataset.shape)
        return f"tokenizer with {rows}x{columns} tokens of {experiment.codec.num_codes} codes"

    def tallied(self, experiment: Experiment, params: Any, images: Any) -> Float[np.ndarray, " number"]:
        tokens = experiment.decoder.tokens(params, images)
        return np.bincount(tokens.reshape(-1), minlength=experiment.codec.num_codes).astype(np.float64)

    def described(self, tally: Float[np.ndarray, " number"]) -> Measured:
        use, perplexity = map(float, dead_codes.spread(jnp.asarray(tally, jnp.float32)))
        found = {"codebook_use": use, "codebook_perplexity": perplexity}
        return {name: {"value": value, "examples": int(np.sum(tally))} for name, value in found.items()}
