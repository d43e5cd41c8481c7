"""What every train step does around its loss: it averages microbatches, and moves parameters and their average."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from diffcurr.batch import Batch
from diffcurr.training import power_average
from diffcurr.training.state import TrainState


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Updating:
    """The settings of a step that every task shares; constants of the compiled program.

    Attributes:
      graph: the network's static graph definition (`training.state.split_network`).
      optimizer: an Optax transformation.
      learning_rate: schedule of the learning rate, to report.
      seed: the run's seed; all randomness derives from it.
      ema_decay: per step; 0 keeps no history.
      ema_rampup: the average's half-life is at most this share of the steps so far; 0 for no such limit.
      ema_gammas: exponents of the profiles of further averages (`training.power_average`).
      microbatches: gradients are averaged over so many parts of the batch, one after another, to save memory.
    """

    graph: Any
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    seed: int | Int[Array, ""] = 0
    ema_decay: float = 0.999
    ema_rampup: float = 0.0
    ema_gammas: tuple[float, ...] = ()
    microbatches: int = 1


def averaged(gradient: Callable[[Any, Batch], tuple[Any, Any]], batch: Batch, microbatches: int) -> tuple[Any, Any]:
    """Gradient and loss averaged, sums added, over microbatches one after another.

    Args:
      gradient: (number of the microbatch, its examples) -> (gradient, a NamedTuple of `loss`, a mean, and of sums over
        examples).
    """
    if microbatches == 1:
        return gradient(0, batch)
    # Microbatch m takes examples m, m + M, ...: each device keeps the examples it already holds.
    parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
    first = jax.eval_shape(gradient, jnp.int32(0), jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)

    def body(total: Any, inputs: tuple[Array, Batch]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(*inputs)), None

    (grads, seen), _ = jax.lax.scan(body, zeros, (jnp.arange(microbatches), parts))
    return jax.tree.map(lambda g: g / microbatches, grads), seen._replace(loss=seen.loss / microbatches)


def updated(state: TrainState, grads: Any, curriculum: Any, config: Updating) -> TrainState:
    """The state after an optimizer step with these gradients.

    Args:
      curriculum: the rule's next state.
    """
    updates, opt_state = config.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(
        step=state.step + 1,
        params=params,
        ema=optax.incremental_update(params, state.ema, 1.0 - ema_decay(config, state.step)),
        opt_state=opt_state,
        curriculum=curriculum,
        averages=tuple(
            power_average.update(average, params, state.step + 1, gamma)
            for average, gamma in zip(state.averages, config.ema_gammas, strict=True)
        ),
    )


def ema_decay(config: Updating, step: Int[Array, ""]) -> float | Float[Array, ""]:
    """EDM's average (Karras et al. 2022, training_loop of the public code) follows the parameters closely at first."""
    if not config.ema_rampup:
        return config.ema_decay
    return jnp.minimum(config.ema_decay, jnp.exp2(-1.0 / (config.ema_rampup * step.astype(jnp.float32))))
