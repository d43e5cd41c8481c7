"""The train step: one compiled program for the whole curriculum.

How densely each cluster is drawn is an input of fixed shape, the rule runs on the device, and the next weights come
out: the host only hands them back. Training without a curriculum and every rule are settings of this step.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from diffcurr.batch import Batch
from diffcurr.codecs import Codec
from diffcurr.conditioning import Conditioning
from diffcurr.curriculum import quantiles
from diffcurr.curriculum.rules import Rule, Seen
from diffcurr.processes import Losses, Process
from diffcurr.training import augmentation
from diffcurr.training.alignment import Alignment
from diffcurr.training.randomness import step_key
from diffcurr.training.state import TrainState
from diffcurr.training.updating import Updating, averaged, updated

Weights = Float[Array, " cluster"]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StepConfig(Updating):
    """Everything about the step that does not change during a run; constants of the compiled program.

    Attributes:
      process: the forward process, with its loss.
      rule: the curriculum's.
      conditioning: what the network is told beside x, and how often it is not.
      edges: cluster edges, float [N + 1].
      stratified: whether u is stratified over each microbatch.
      unbiased: whether each loss is divided by the weight of its cluster (relative to their mean over u), so that
        weights change the variance of the gradient and not what is minimised. Clusters of weight 0 are left out.
      codec: encodes the images of a batch, which are then what is noised; None where x is noised as it is.
      dropout: whether the network drops activations, that is, takes a key.
      augment: probability of each of EDM's augmentations; above 0, the network is told them as `augment`.
      alignment: trains inner states of the network beside the curriculum; None where nothing does.
    """

    process: Process
    rule: Rule
    conditioning: Conditioning
    edges: Float[np.ndarray, " edge"]
    stratified: bool = False
    unbiased: bool = False
    codec: Codec | None = None
    dropout: bool = False
    augment: float = 0.0
    alignment: Alignment | None = None


class Draws(NamedTuple):
    """The random numbers of one microbatch."""

    u: Float[Array, " batch"]
    noise: Float[Array, "batch *shape"]
    dropped: Bool[Array, " batch"]


class Metrics(NamedTuple):
    """What one step reports; fetched by the host when it is convenient.

    Attributes:
      loss: denoising loss, mean over the global batch.
      grad_norm: global norm of the gradient, before clipping.
      learning_rate: learning rate of this step.
      stage: the stage this step trained in.
      weights: how densely each cluster was drawn.
      cluster_loss: sum of the losses of the examples in each cluster.
      cluster_noise_error: sum of the mean squared errors of the noise of the examples in each cluster.
      cluster_count: number of examples in each cluster.
      alignment: mean loss of the alignment, not weighted; None where there is none.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    stage: Int[Array, ""]
    weights: Float[Array, " cluster"]
    cluster_loss: Float[Array, " cluster"]
    cluster_noise_error: Float[Array, " cluster"]
    cluster_count: Float[Array, " cluster"]
    alignment: Any = None


class Told(NamedTuple):
    """What is told of a microbatch beside its gradient; `Metrics` says what each is, here of the microbatch."""

    loss: Float[Array, ""]
    cluster_loss: Float[Array, " cluster"]
    cluster_noise_error: Float[Array, " cluster"]
    cluster_count: Float[Array, " cluster"]
    alignment: Any = None


def draw(
    config: StepConfig, step: Int[Array, ""], microbatch: int | Int[Array, ""], weights: Weights, shape: tuple[int, ...]
) -> Draws:
    """The randomness of a microbatch: a function of (seed, stream, step, microbatch), and of the weights for u.

    Args:
      shape: shape of the microbatch's x.
    """

    def key(stream: str) -> PRNGKeyArray:
        return step_key(config.seed, stream, step, microbatch)

    return Draws(
        u=quantiles.draw(key("noise level"), weights, config.edges, shape[0], stratified=config.stratified),
        noise=jax.random.normal(key("noise"), shape, jnp.float32),
        dropped=jax.random.bernoulli(key("label dropout"), config.conditioning.dropout, shape[:1]),
    )


def microbatch_loss(
    params: Any,
    config: StepConfig,
    batch: Batch,
    draws: Draws,
    dropout_key: PRNGKeyArray | None = None,
    factor: Float[Array, " batch"] | None = None,
    step: int | Int[Array, ""] = 0,
) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Losses, Any]]:
    """What is minimised; and (the mean loss of denoising, the losses of the examples, that of the alignment or None).

    Args:
      batch: x is what is noised: encoded, if there is a codec.
      dropout_key: without one no activation is dropped.
      factor: factor of each example's denoising loss in the mean.
      step: the weight of the alignment may depend on it.
    """
    network, alignment = nnx.merge(config.graph, params), config.alignment
    condition = config.conditioning.drop(batch.condition, draws.dropped) if batch.condition else {}
    settings: dict[str, Any] = {"key": dropout_key} if config.dropout else {}
    kept: list[Array] = []

    def predict(x: Array, t: Array) -> Array:
        if alignment is None:
            return network(x, t, condition, **settings)
        output, tokens = network.with_block(alignment.block, x, t, condition, **settings)
        kept.append(tokens)
        return output

    losses = config.process.losses(predict, batch.x, draws.u, draws.noise)
    loss = jnp.mean(losses.loss if factor is None else factor * losses.loss)
    if alignment is None:
        return loss, (loss, losses, None)
    aligned = alignment.loss(network, kept[-1], batch.features)
    # Its weight is for a mean over pixels; a process may sum over them.
    pixels = config.process.over_pixels(jnp.ones((1, *batch.x.shape[1:])))[0]
    return loss + alignment.weight_at(step) * pixels * aligned, (loss, losses, aligned)


def importance(
    weights: Weights, edges: Float[np.ndarray, " edge"], cluster: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """1 / weight of each example's cluster, relative to the mean weight over u: draws times it are the process's own.

    Args:
      cluster: index of each example's cluster.
    """
    mean = jnp.sum(weights * jnp.asarray(np.diff(edges), jnp.float32))
    return (mean / jnp.where(weights > 0, weights, 1.0))[cluster]


def encode(
    codec: Codec, params: Any, images: Float[Array, "batch height width channel"], key: PRNGKeyArray
) -> Float[Array, "batch *latent"]:
    """Latents of images, drawn where the codec, of those weights, gives a distribution."""
    mean, std = codec.encode_with(params, images)
    return mean if std is None else mean + std * jax.random.normal(key, mean.shape, mean.dtype)


def train_step(
    state: TrainState, batch: Batch, weights: Weights, config: StepConfig, codec_params: Any = None
) -> tuple[TrainState, Weights, Metrics]:
    """One optimizer step on the clusters as they are weighted, and the rule's next move. Pure.

    Args:
      state: donated by `compile_step`.
      batch: the global batch.
      weights: float [N]: how densely each cluster is drawn, index 0 the hardest.
      config: static.
      codec_params: the codec's weights, where the config has a codec.

    Returns:
      (next state, next weights, metrics of this step).
    """

    def gradient(index: int | Array, part: Batch) -> tuple[Any, Told]:
        if config.augment:
            key = step_key(config.seed, "augmentation", state.step, index)
            images, labels = augmentation.augment(key, part.x, config.augment)
            part = Batch(images, part.condition | {"augment": labels})
        if config.codec is not None:
            key = step_key(config.seed, "codec", state.step, index)
            part = part._replace(x=encode(config.codec, codec_params, part.x, key))
        draws = draw(config, state.step, index, weights, part.x.shape)
        dropout_key = step_key(config.seed, "dropout", state.step, index)
        cluster = quantiles.cluster_of(draws.u, config.edges)
        factor = importance(weights, config.edges, cluster) if config.unbiased else None
        of_rule = config.rule.factors(state.curriculum)
        if of_rule is not None:
            factor = of_rule[cluster] * (1.0 if factor is None else factor)
        value_and_grad = jax.value_and_grad(microbatch_loss, has_aux=True)
        found, grads = value_and_grad(state.params, config, part, draws, dropout_key, factor, state.step)
        loss, losses, aligned = found[1]
        member = jax.nn.one_hot(cluster, weights.shape[0], dtype=jnp.float32)

        def of_cluster(values: Float[Array, " batch"]) -> Float[Array, " cluster"]:
            # Not a matrix product: 0 x inf would spread a non-finite loss over every cluster.
            return jnp.sum(jnp.where(member > 0, values[:, None], 0.0), axis=0)

        by_cluster = of_cluster(losses.loss), of_cluster(losses.noise_error), jnp.sum(member, axis=0)
        return grads, Told(loss, *by_cluster, aligned)

    grads, told = averaged(gradient, batch, config.microbatches)
    seen = Seen(*told[:4])  # the rule judges how well it denoises, and nothing else
    curriculum = config.rule.update(state.curriculum, seen)
    next_state = updated(state, grads, curriculum, config)
    metrics = Metrics(
        loss=seen.loss,
        grad_norm=optax.tree.norm(grads),
        learning_rate=jnp.asarray(config.learning_rate(state.step), jnp.float32),
        stage=config.rule.stage(state.curriculum),
        weights=weights,
        cluster_loss=seen.cluster_loss,
        cluster_noise_error=seen.cluster_noise_error,
        cluster_count=seen.cluster_count,
        alignment=None if told.alignment is None else told.alignment / config.microbatches,
    )
    return next_state, config.rule.weights(curriculum), metrics
