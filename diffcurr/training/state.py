"""What a training run carries from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int

from diffcurr.curriculum.rules import Rule


class TrainState(NamedTuple):
    """Everything that changes during training; a pytree.

    Attributes:
      step: optimizer steps taken.
      params: the network's parameters, a nested dict, float32.
      ema: their exponential moving average, of the same structure.
      opt_state: the optimizer's.
      curriculum: the rule's.
    """

    step: Int[Array, ""]
    params: Any
    ema: Any
    opt_state: Any
    curriculum: Any


def split_network(network: nnx.Module) -> tuple[Any, Any]:
    """A network's static graph definition and its parameters as a nested dict of arrays."""
    graph, params = nnx.split(network, nnx.Param)
    return graph, nnx.to_pure_dict(params)


def init_state(params: Any, optimizer: optax.GradientTransformation, rule: Rule) -> TrainState:
    """The state before the first step. The average starts as a copy: `params` are donated apart from it."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        curriculum=rule.init(),
    )
