"""A transformer that predicts the tokens of pictures (Yu et al. 2022, stage 2)."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffcurr.batch import Batch
from diffcurr.codecs import Codec, WithTokens
from diffcurr.curriculum.rules import NoStages
from diffcurr.data.datasets import Dataset
from diffcurr.errors import UserError, concerning
from diffcurr.networks import TokenNetwork
from diffcurr.sampling.drawing import Sampling
from diffcurr.sampling.tokens import NAME, BlockFeatures, HeldOutBits, TokenSampler
from diffcurr.tasks.base import Experiment
from diffcurr.tasks.sampled import Sampled
from diffcurr.training.compiled import CompiledStep, Frozen, compile_step
from diffcurr.training.state import TrainState, init_state
from diffcurr.training.tokens import Metrics, TokenStep, token_loss, token_step
from diffcurr.training.window import MeansWindow, Window


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens(Sampled):
    """Trains the network of the config to predict each token of a picture from those before it and the condition.

    The codec makes the tokens, inside the step. The loss is the mean cross entropy of a token.
    """

    metrics = Metrics

    def network_shape(self, dataset: Dataset, codec: Codec, shape: tuple[int, ...]) -> tuple[int, ...]:
        del shape
        if not isinstance(codec, WithTokens):
            raise ValueError(f"the codec {type(codec).__name__} makes no tokens; choose one that does")
        if dataset.is_latent:
            raise ValueError(f"{type(dataset).__name__} holds no pictures, of which the codec makes tokens")
        return (*codec.token_shape(dataset.shape), codec.num_codes)

    def check(self, experiment: Experiment) -> None:
        name, dataset = experiment.config.network.name, experiment.dataset
        with concerning(f"network {name}"):
            if not isinstance(experiment.network_outline, TokenNetwork):  # which has checked its own sizes
                raise ValueError("predicts no tokens; choose network.name = 'token_transformer'")
        if dataset.augment:
            raise ValueError(f"dataset.augment = {dataset.augment}: is for denoising networks; give 0")

    def init_state(self, experiment: Experiment, params: Any) -> TrainState:
        return init_state(params, experiment.optimizer, NoStages(clusters=1), len(experiment.config.ema.widths))

    def compiled(self, experiment: Experiment) -> CompiledStep:
        frozen = Frozen(experiment.codec.abstract_params(), lambda: experiment.codec_params)
        step = functools.partial(token_step, config=self._step(experiment))
        return compile_step(
            lambda state, batch, carry, params: step(state, batch, carry, codec_params=params),
            lambda state: (),
            experiment.abstract_state,
            experiment.mesh,
            frozen,
        )

    def _step(self, experiment: Experiment) -> TokenStep:
        return TokenStep(
            **experiment.updating,
            codec=experiment.codec,
            conditioning=experiment.conditioning,
            dropout=getattr(experiment.network_outline, "dropout", 0.0) > 0,
        )

    def example_loss(self, experiment: Experiment) -> Callable[[Any], jax.Array]:
        def loss(params: Any) -> jax.Array:
            tokens = jnp.zeros((1, *experiment.codec.token_shape(experiment.dataset.shape)), jnp.int32)
            return token_loss(
                params, self._step(experiment), tokens, experiment.conditioning.nothing(1), jnp.ones(1, bool)
            )

        return loss

    def window(self, experiment: Experiment, first_step: int, earlier: Sequence[Any]) -> Window:
        return TokenWindow(first_step, earlier, batch_size=experiment.config.batch_size)

    def describe(self, experiment: Experiment) -> str:
        rows, columns = experiment.codec.token_shape(experiment.dataset.shape)
        return f"{rows}x{columns} tokens of {experiment.codec.num_codes:,} codes"

    def sampler(self, experiment: Experiment) -> TokenSampler:
        return TokenSampler(**experiment.drawing, shape=experiment.codec.token_shape(experiment.dataset.shape))

    def check_sampling(self, experiment: Experiment, settings: Sampling) -> None:
        settings.check_guidance(experiment.conditioning)
        settings.require_defaults(("guidance_interval", "guidance_channels", "spacing", "last_step"), "denoising")
        if settings.top_k > experiment.codec.num_codes:
            raise ValueError(f"top_k = {settings.top_k}: there are {experiment.codec.num_codes} codes")

    def sampling_facts(self, experiment: Experiment) -> dict[str, Any]:
        return {key: experiment.config.sampling[key] for key in ("temperature", "top_k", "top_p", "guidance")}

    def held_out(self, experiment: Experiment) -> HeldOutBits | None:
        images = experiment.held_out_images()
        if images is None:
            return None
        return HeldOutBits(**experiment.network_and_codec, images=images)

    def blocks(self, experiment: Experiment) -> Callable[[Any, Any], Float[np.ndarray, "n block width"]]:
        """(parameters, pictures in [-1, 1]) -> what comes out of each block, see `sampling.tokens.BlockFeatures`.

        Raises:
          UserError: if the network has always been told the class.
        """
        if not experiment.conditioning.may_be_nothing:
            raise UserError("conditioning.dropout = 0.0: the network knows no picture without its class; give more")
        features = BlockFeatures(**experiment.network_and_codec)

        def of(params: Any, images: Any) -> Float[np.ndarray, "n block width"]:
            nothing = jax.tree.map(np.asarray, experiment.conditioning.nothing(len(images)))
            return features.of(params, Batch(images, nothing))

        return of


class TokenWindow(MeansWindow):
    """A window of the steps of a token transformer."""

    def summary(self, seconds: float) -> dict[str, Any]:
        found = super().summary(seconds)
        return found | {NAME: found["loss"] / math.log(2)}
