"""The train step: one compiled program for the whole curriculum.

How densely each cluster is drawn is an input of fixed shape, the rule runs on the device, and the next weights come
out: the host only hands them back. Training without a curriculum and every rule are settings of this step.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from diffcurr.batch import Batch
from diffcurr.codecs import Codec
from diffcurr.conditioning import Conditioning
from diffcurr.curriculum import quantiles
from diffcurr.curriculum.rules import Rule, Seen
from diffcurr.processes import Losses, Process
from diffcurr.training import augmentation, sharding
from diffcurr.training.randomness import step_key
from diffcurr.training.state import TrainState, init_state

Weights = Float[Array, " cluster"]


@dataclasses.dataclass(frozen=True, eq=False)
class StepConfig:
    """Everything about the step that does not change during a run; constants of the compiled program.

    Attributes:
      graph: the network's static graph definition (`training.state.split_network`).
      process: the forward process, with its loss.
      optimizer: an Optax transformation.
      learning_rate: its schedule, to report.
      rule: the curriculum's.
      conditioning: what the network is told beside x, and how often it is not.
      edges: cluster edges, float [N + 1].
      seed: the run's seed; all randomness derives from it.
      stratified: whether u is stratified over each microbatch.
      ema_decay: per step; 0 keeps no history.
      ema_rampup: the average's half-life is at most this share of the steps so far; 0 for no such limit.
      microbatches: gradients are averaged over so many parts of the batch, one after another, to save memory.
      codec: encodes the images of a batch, which are then what is noised; None where x is noised as it is.
      dropout: whether the network drops activations, that is, takes a key.
      augment: probability of each of EDM's augmentations; above 0, the network is told them as `augment`.
    """

    graph: Any
    process: Process
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    rule: Rule
    conditioning: Conditioning
    edges: Float[np.ndarray, " edge"]
    seed: int | Int[Array, ""] = 0
    stratified: bool = False
    ema_decay: float = 0.999
    ema_rampup: float = 0.0
    microbatches: int = 1
    codec: Codec | None = None
    dropout: bool = False
    augment: float = 0.0


class Draws(NamedTuple):
    """The random numbers of one microbatch."""

    u: Float[Array, " batch"]
    noise: Float[Array, "batch *shape"]
    dropped: Bool[Array, " batch"]


class Metrics(NamedTuple):
    """What one step reports; fetched by the host when it is convenient.

    Attributes:
      loss: mean over the global batch.
      grad_norm: global norm of the gradient, before clipping.
      learning_rate: learning rate of this step.
      stage: the stage this step trained in.
      weights: how densely each cluster was drawn.
      cluster_loss: sum of the losses of the examples in each cluster.
      cluster_noise_error: sum of the mean squared errors of the noise of the examples in each cluster.
      cluster_count: number of examples in each cluster.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    stage: Int[Array, ""]
    weights: Float[Array, " cluster"]
    cluster_loss: Float[Array, " cluster"]
    cluster_noise_error: Float[Array, " cluster"]
    cluster_count: Float[Array, " cluster"]


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
    params: Any, config: StepConfig, batch: Batch, draws: Draws, dropout_key: PRNGKeyArray | None = None
) -> tuple[Float[Array, ""], Losses]:
    """Mean loss of a microbatch, and the losses of each of its examples; without a key no activation is dropped."""
    network = nnx.merge(config.graph, params)
    condition = config.conditioning.drop(batch.condition, draws.dropped) if batch.condition else {}
    settings: dict[str, Any] = {"key": dropout_key} if config.dropout else {}
    losses = config.process.losses(lambda x, t: network(x, t, condition, **settings), batch.x, draws.u, draws.noise)
    return jnp.mean(losses.loss), losses


def encode(
    codec: Codec, images: Float[Array, "batch height width channel"], key: PRNGKeyArray
) -> Float[Array, "batch *latent"]:
    """Latents of images, drawn where the codec gives a distribution."""
    mean, std = codec.encode(images)
    return mean if std is None else mean + std * jax.random.normal(key, mean.shape, mean.dtype)


def train_step(
    state: TrainState, batch: Batch, weights: Weights, config: StepConfig
) -> tuple[TrainState, Weights, Metrics]:
    """One optimizer step on the clusters as they are weighted, and the rule's next move. Pure.

    Args:
      state: donated by `compile_step`.
      batch: the global batch.
      weights: float [N]: how densely each cluster is drawn, index 0 the hardest.
      config: static.

    Returns:
      (next state, next weights, metrics of this step).
    """

    def gradient(index: int | Array, part: Batch) -> tuple[Any, Seen]:
        if config.augment:
            key = step_key(config.seed, "augmentation", state.step, index)
            images, labels = augmentation.augment(key, part.x, config.augment)
            part = Batch(images, part.condition | {"augment": labels})
        if config.codec is not None:
            part = part._replace(x=encode(config.codec, part.x, step_key(config.seed, "codec", state.step, index)))
        draws = draw(config, state.step, index, weights, part.x.shape)
        dropout_key = step_key(config.seed, "dropout", state.step, index)
        value_and_grad = jax.value_and_grad(microbatch_loss, has_aux=True)
        (loss, losses), grads = value_and_grad(state.params, config, part, draws, dropout_key)
        member = jax.nn.one_hot(quantiles.cluster_of(draws.u, config.edges), weights.shape[0], dtype=jnp.float32)

        def of_cluster(values: Float[Array, " batch"]) -> Float[Array, " cluster"]:
            # Not a matrix product: 0 x inf would spread a non-finite loss over every cluster.
            return jnp.sum(jnp.where(member > 0, values[:, None], 0.0), axis=0)

        return grads, Seen(loss, of_cluster(losses.loss), of_cluster(losses.noise_error), jnp.sum(member, axis=0))

    if config.microbatches == 1:
        grads, seen = gradient(0, batch)
    else:
        grads, seen = _accumulate(gradient, batch, config.microbatches)

    updates, opt_state = config.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    curriculum = config.rule.update(state.curriculum, seen)
    next_state = TrainState(
        step=state.step + 1,
        params=params,
        ema=optax.incremental_update(params, state.ema, 1.0 - _ema_decay(config, state.step)),
        opt_state=opt_state,
        curriculum=curriculum,
    )
    metrics = Metrics(
        loss=seen.loss,
        grad_norm=optax.tree.norm(grads),
        learning_rate=jnp.asarray(config.learning_rate(state.step), jnp.float32),
        stage=config.rule.stage(state.curriculum),
        weights=weights,
        cluster_loss=seen.cluster_loss,
        cluster_noise_error=seen.cluster_noise_error,
        cluster_count=seen.cluster_count,
    )
    return next_state, config.rule.weights(curriculum), metrics


def _ema_decay(config: StepConfig, step: Int[Array, ""]) -> float | Float[Array, ""]:
    """EDM's average (Karras et al. 2022, training_loop of the public code) follows the parameters closely at first."""
    if not config.ema_rampup:
        return config.ema_decay
    return jnp.minimum(config.ema_decay, jnp.exp2(-1.0 / (config.ema_rampup * step.astype(jnp.float32))))


def _accumulate(
    gradient: Callable[[Any, Batch], tuple[Any, Seen]], batch: Batch, microbatches: int
) -> tuple[Any, Seen]:
    """Gradient and loss averaged, cluster sums added, over microbatches one after another."""
    # Microbatch m takes examples m, m + M, ...: each device keeps the examples it already holds.
    parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
    first = jax.eval_shape(gradient, jnp.int32(0), jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)

    def body(total: Any, inputs: tuple[Array, Batch]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(*inputs)), None

    (grads, seen), _ = jax.lax.scan(body, zeros, (jnp.arange(microbatches), parts))
    return jax.tree.map(lambda g: g / microbatches, grads), seen._replace(loss=seen.loss / microbatches)


def abstract_state(optimizer: optax.GradientTransformation, rule: Rule, abstract_params: Any, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state; they do not depend on where the clusters are."""
    abstract = jax.eval_shape(functools.partial(init_state, optimizer=optimizer, rule=rule), abstract_params)
    shardings = sharding.state_shardings(mesh, abstract)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)


class CompiledStep(NamedTuple):
    """The step for one mesh, with the shardings of what goes in and out.

    Attributes:
      step: (state, batch, weights) -> (state, weights, metrics); donates the state.
      initial_weights: state -> weights of its next step, for the start of a run and after a restore.
      abstract_state: shapes, dtypes and shardings of the state.
      batch_sharding: sharding of every array of the batch.
    """

    step: Any
    initial_weights: Any
    abstract_state: TrainState
    batch_sharding: Any


def compile_step(config: StepConfig, state: TrainState, mesh: Mesh) -> CompiledStep:
    """Pins every sharding, so that the step compiles once whatever is fed back into it.

    Args:
      state: of `abstract_state`.
    """
    shardings = jax.tree.map(lambda x: x.sharding, state)
    everywhere, by_example = sharding.replicated(mesh), sharding.batch_sharding(mesh)

    def on_mesh(state: TrainState, batch: Batch, weights: Weights) -> tuple[TrainState, Weights, Metrics]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # networks keep their activations spread over it
            return train_step(state, batch, weights, config)

    on_mesh.__name__ = "train_step"
    step = jax.jit(
        on_mesh,
        in_shardings=(shardings, by_example, everywhere),
        out_shardings=(shardings, everywhere, everywhere),
        donate_argnums=0,
    )
    initial_weights = jax.jit(
        lambda state: config.rule.weights(state.curriculum),
        in_shardings=(shardings,),
        out_shardings=everywhere,
    )
    return CompiledStep(step, initial_weights, state, by_example)
