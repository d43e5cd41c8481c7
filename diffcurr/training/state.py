"""What a training run carries from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int

from diffcurr.curriculum.rules import Rule
from diffcurr.networks.sharded import name_layers


class TrainState(NamedTuple):
    """Everything that changes during training; a pytree.

    Attributes:
      step: optimizer steps taken.
      params: the network's parameters, a nested dict, float32.
      ema: their exponential moving average, of the same structure.
      opt_state: the optimizer's.
      curriculum: the rule's.
      averages: further averages of the parameters, of power-function profiles, each of the same structure; none unless
        `ema.widths` asks for them.
    """

    step: Int[Array, ""]
    params: Any
    ema: Any
    opt_state: Any
    curriculum: Any
    averages: tuple[Any, ...] = ()


def split_network(network: nnx.Module) -> tuple[Any, Any]:
    """A network's static graph definition and its parameters as a nested dict of arrays."""
    name_layers(network)
    graph, params = nnx.split(network, nnx.Param)
    return graph, nnx.to_pure_dict(params)


def init_state(params: Any, optimizer: optax.GradientTransformation, rule: Rule, averages: int = 0) -> TrainState:
    """The state before the first step. Averages start as copies: `params` are donated apart from them.

    Args:
      averages: number of further averages.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        curriculum=rule.init(),
        averages=tuple(jax.tree.map(jnp.copy, params) for _ in range(averages)),
    )
