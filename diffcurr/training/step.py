"""The train step: one compiled program for the whole curriculum.

Which clusters are active is an input of fixed shape, pacing runs on the device, and the next mask comes out: the host
only hands it back. The vanilla baseline and every order and pacing are settings of this step.
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

from diffcurr.curriculum import pacing
from diffcurr.curriculum.pacing import PacingConfig
from diffcurr.curriculum.quantiles import cluster_of, masked_quantiles
from diffcurr.processes import Process
from diffcurr.training import augmentation, sharding
from diffcurr.training.randomness import step_key
from diffcurr.training.state import TrainState, init_state

Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class StepConfig:
    """Everything about the step that does not change during a run; constants of the compiled program.

    Attributes:
      graph: the network's static graph definition (`training.state.split_network`).
      process: the forward process, with its loss.
      optimizer: an Optax transformation.
      learning_rate: its schedule, to report.
      pacing: the curriculum's rule.
      edges: cluster edges, float [N + 1].
      seed: of the run; all randomness derives from it.
      stratified: whether u is stratified over each microbatch.
      ema_decay: per step; 0 keeps no history.
      ema_rampup: the average's half-life is at most this share of the steps so far; 0 for no such limit.
      microbatches: gradients are averaged over so many parts of the batch, one after another, to save memory.
      num_classes: 0 if the network takes no labels; otherwise also the label that stands for "no class".
      class_dropout: share of labels replaced by "no class".
      dropout: whether the network drops activations, that is, takes a `dropout_key`.
      augment: probability of each of EDM's augmentations; above 0, the network takes their `augment_labels`.
    """

    graph: Any
    process: Process
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    pacing: PacingConfig
    edges: Float[np.ndarray, " edge"]
    seed: int | Int[Array, ""] = 0
    stratified: bool = False
    ema_decay: float = 0.999
    ema_rampup: float = 0.0
    microbatches: int = 1
    num_classes: int = 0
    class_dropout: float = 0.0
    dropout: bool = False
    augment: float = 0.0


class Draws(NamedTuple):
    """The random numbers of one microbatch."""

    u: Float[Array, " batch"]
    noise: Float[Array, "batch height width channel"]
    drop_label: Bool[Array, " batch"]


class Metrics(NamedTuple):
    """What one step reports; fetched by the host when it is convenient.

    Attributes:
      loss: mean over the global batch.
      grad_norm: global norm of the gradient, before clipping.
      learning_rate: of this step.
      stage: the stage this step trained in.
      cluster_loss: sum of the losses of the examples in each cluster.
      cluster_count: number of examples in each cluster.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    stage: Int[Array, ""]
    cluster_loss: Float[Array, " cluster"]
    cluster_count: Float[Array, " cluster"]


def draw(
    config: StepConfig,
    step: Int[Array, ""],
    microbatch: int | Int[Array, ""],
    mask: Bool[Array, " cluster"],
    image_shape: tuple[int, ...],
) -> Draws:
    """The randomness of a microbatch: a function of (seed, stream, step, microbatch), and of the mask for u."""

    def key(stream: str) -> PRNGKeyArray:
        return step_key(config.seed, stream, step, microbatch)

    batch = image_shape[0]
    return Draws(
        u=masked_quantiles(key("noise level"), mask, config.edges, batch, stratified=config.stratified),
        noise=jax.random.normal(key("noise"), image_shape, jnp.float32),
        drop_label=jax.random.bernoulli(key("label dropout"), config.class_dropout, (batch,)),
    )


def microbatch_loss(
    params: Any,
    config: StepConfig,
    batch: Batch,
    draws: Draws,
    dropout_key: PRNGKeyArray | None = None,
    augment_labels: Float[Array, "batch augment"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
    """Mean loss of a microbatch, and the loss of each of its examples; without a key nothing is dropped."""
    network = nnx.merge(config.graph, params)
    labels = None
    if config.num_classes:
        labels = jnp.where(draws.drop_label, config.num_classes, batch["label"])
    settings: dict[str, Any] = {"dropout_key": dropout_key} if config.dropout else {}
    settings |= {"augment_labels": augment_labels} if config.augment else {}
    losses = config.process.loss(lambda x, t: network(x, t, labels, **settings), batch["image"], draws.u, draws.noise)
    return jnp.mean(losses), losses


def train_step(
    state: TrainState, batch: Batch, mask: Bool[Array, " cluster"], config: StepConfig
) -> tuple[TrainState, Bool[Array, " cluster"], Metrics]:
    """One optimizer step on the active clusters, and the curriculum's next move. Pure.

    Args:
      state: donated by `compile_step`.
      batch: global batch: `image` float [B, H, W, C], `label` int [B].
      mask: bool [N]: the active clusters, index 0 the hardest.
      config: static.

    Returns:
      (next state, next mask, metrics of this step).
    """
    num_clusters = mask.shape[0]

    def gradient(index: int | Array, part: Batch) -> tuple[Any, Array, Array, Array]:
        draws = draw(config, state.step, index, mask, part["image"].shape)
        dropout_key, augment_labels = step_key(config.seed, "dropout", state.step, index), None
        if config.augment:
            key = step_key(config.seed, "augmentation", state.step, index)
            images, augment_labels = augmentation.augment(key, part["image"], config.augment)
            part = {**part, "image": images}
        value_and_grad = jax.value_and_grad(microbatch_loss, has_aux=True)
        (loss, losses), grads = value_and_grad(state.params, config, part, draws, dropout_key, augment_labels)
        member = jax.nn.one_hot(cluster_of(draws.u, config.edges), num_clusters, dtype=jnp.float32)
        # Not a matrix product: 0 x inf would spread a non-finite loss over every cluster.
        cluster_loss = jnp.sum(jnp.where(member > 0, losses[:, None], 0.0), axis=0)
        return grads, loss, cluster_loss, jnp.sum(member, axis=0)

    if config.microbatches == 1:
        grads, loss, cluster_loss, cluster_count = gradient(0, batch)
    else:
        grads, loss, cluster_loss, cluster_count = _accumulate(gradient, batch, config.microbatches)

    updates, opt_state = config.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    next_pacing = pacing.update(state.pacing, loss, config.pacing)
    next_state = TrainState(
        step=state.step + 1,
        params=params,
        ema=optax.incremental_update(params, state.ema, 1.0 - _ema_decay(config, state.step)),
        opt_state=opt_state,
        pacing=next_pacing,
    )
    metrics = Metrics(
        loss=loss,
        grad_norm=optax.tree.norm(grads),
        learning_rate=jnp.asarray(config.learning_rate(state.step), jnp.float32),
        stage=state.pacing.stage,
        cluster_loss=cluster_loss,
        cluster_count=cluster_count,
    )
    return next_state, pacing.active_clusters(next_pacing, config.pacing), metrics


def _ema_decay(config: StepConfig, step: Int[Array, ""]) -> float | Float[Array, ""]:
    """EDM's average (Karras et al. 2022, training_loop of the public code) follows the parameters closely at first."""
    if not config.ema_rampup:
        return config.ema_decay
    return jnp.minimum(config.ema_decay, jnp.exp2(-1.0 / (config.ema_rampup * step.astype(jnp.float32))))


def _accumulate(gradient: Callable[..., tuple[Any, Array, Array, Array]], batch: Batch, microbatches: int) -> Any:
    """Gradient and loss averaged, cluster sums added, over microbatches one after another."""
    # Microbatch m takes rows m, m + M, ...: each device keeps the rows it already holds.
    parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
    first = jax.eval_shape(gradient, jnp.int32(0), jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)

    def body(total: Any, inputs: tuple[Array, Batch]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(*inputs)), None

    (grads, loss, *sums), _ = jax.lax.scan(body, zeros, (jnp.arange(microbatches), parts))
    grads = jax.tree.map(lambda g: g / microbatches, grads)
    return (grads, loss / microbatches, *sums)


class CompiledStep(NamedTuple):
    """The step for one mesh, with the shardings of what goes in and out.

    Attributes:
      step: (state, batch, mask) -> (state, mask, metrics); donates the state.
      initial_mask: state -> mask of its next step, for the start of a run and after a restore.
      abstract_state: shapes, dtypes and shardings of the state.
      batch_sharding: of every array of the batch.
    """

    step: Any
    initial_mask: Any
    abstract_state: TrainState
    batch_sharding: Any


def compile_step(config: StepConfig, abstract_params: Any, mesh: Mesh) -> CompiledStep:
    """Pins every sharding, so that the step compiles once whatever is fed back into it."""
    abstract = jax.eval_shape(
        functools.partial(init_state, optimizer=config.optimizer, pacing_config=config.pacing), abstract_params
    )
    shardings = sharding.state_shardings(mesh, abstract)
    everywhere, by_row = sharding.replicated(mesh), sharding.batch_sharding(mesh)

    def on_mesh(state: TrainState, batch: Batch, mask: Bool[Array, " cluster"]) -> tuple[TrainState, Array, Metrics]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # networks keep their activations spread over it
            return train_step(state, batch, mask, config)

    on_mesh.__name__ = "train_step"
    step = jax.jit(
        on_mesh,
        in_shardings=(shardings, by_row, everywhere),
        out_shardings=(shardings, everywhere, everywhere),
        donate_argnums=0,
    )
    initial_mask = jax.jit(
        lambda state: pacing.active_clusters(state.pacing, config.pacing),
        in_shardings=(shardings,),
        out_shardings=everywhere,
    )
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
    return CompiledStep(step, initial_mask, abstract, by_row)
