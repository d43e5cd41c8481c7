"""The train step of an autoencoder: what is lost in a reconstruction, and how far its latents are from noise."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from diffcurr.batch import Batch
from diffcurr.training.randomness import step_key
from diffcurr.training.state import TrainState
from diffcurr.training.updating import Updating, averaged, updated

Norm = Literal["l1", "l2"]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class AutoencoderStep(Updating):
    """Everything about the step that does not change during a run.

    Attributes:
      norm: error of a reconstruction: absolute (l1) or squared (l2).
      kl: weight of the divergence.
    """

    norm: Norm
    kl: float


class Report(NamedTuple):
    """What a microbatch reports: the mean loss, and sums over its examples."""

    loss: Float[Array, ""]
    reconstruction: Float[Array, ""]
    divergence: Float[Array, ""]


class Metrics(NamedTuple):
    """What one step reports.

    Attributes:
      loss: reconstruction + kl * divergence.
      grad_norm: global norm of the gradient, before clipping.
      learning_rate: learning rate of this step.
      reconstruction: mean error of a pixel.
      divergence: mean over examples of the divergence of a latent's distribution from N(0, I), in nats.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    reconstruction: Float[Array, ""]
    divergence: Float[Array, ""]


def losses(
    network: Any, images: Float[Array, "batch height width channel"], key: PRNGKeyArray | None, norm: Norm
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """(error of a pixel, divergence from N(0, I) in nats) of each image (Kingma & Welling 2014, appendix B).

    Args:
      network: has `encode`, which gives mean and standard deviation, and `decode`.
      key: draws the latent; its mean is decoded if None.
    """
    mean, std = network.encode(images)
    latents = mean if key is None else mean + std * jax.random.normal(key, mean.shape, mean.dtype)
    error = network.decode(latents) - images
    error = jnp.abs(error) if norm == "l1" else jnp.square(error)
    divergence = 0.5 * (mean**2 + std**2 - 1.0) - jnp.log(std)
    axes = tuple(range(1, images.ndim))
    return jnp.mean(error, axis=axes), jnp.sum(divergence, axis=tuple(range(1, mean.ndim)))


def autoencoder_step(
    state: TrainState, batch: Batch, carry: tuple[()], config: AutoencoderStep
) -> tuple[TrainState, tuple[()], Metrics]:
    """One optimizer step; see `training.step.train_step`."""

    def loss_of(params: Any, part: Batch, key: PRNGKeyArray) -> tuple[Array, Report]:
        error, divergence = losses(nnx.merge(config.graph, params), part.x, key, config.norm)
        loss = jnp.mean(error) + config.kl * jnp.mean(divergence)
        return loss, Report(loss, jnp.sum(error), jnp.sum(divergence))

    def gradient(index: int | Array, part: Batch) -> tuple[Any, Report]:
        key = step_key(config.seed, "codec", state.step, index)
        (_, seen), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params, part, key)
        return grads, seen

    grads, seen = averaged(gradient, batch, config.microbatches)
    metrics = Metrics(
        loss=seen.loss,
        grad_norm=optax.tree.norm(grads),
        learning_rate=jnp.asarray(config.learning_rate(state.step), jnp.float32),
        reconstruction=seen.reconstruction / len(batch.x),
        divergence=seen.divergence / len(batch.x),
    )
    return updated(state, grads, state.curriculum, config), carry, metrics
