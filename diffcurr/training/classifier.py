"""The step that trains a classifier: softmax cross entropy, in the same loop as a diffusion model's."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from diffcurr.batch import Batch


class ClassifierState(NamedTuple):
    """Parameters and the optimizer's state; a pytree."""

    params: Any
    opt_state: Any


class ClassifierMetrics(NamedTuple):
    """Mean loss of a batch and global norm of its gradient."""

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]


Step = Callable[[ClassifierState, Batch, None], tuple[ClassifierState, None, ClassifierMetrics]]


def compile_classifier_step(graph: Any, optimizer: optax.GradientTransformation) -> Step:
    """(state, batch, None) -> (state, None, metrics), for a network that returns (features, logits)."""

    def loss_of(params: Any, batch: Batch) -> Array:
        _, logits = nnx.merge(graph, params)(batch.x)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.condition["label"])
        return jnp.mean(losses)

    def step(state: ClassifierState, batch: Batch, carry: None) -> tuple[ClassifierState, None, ClassifierMetrics]:
        loss, gradient = jax.value_and_grad(loss_of)(state.params, batch)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return ClassifierState(params, opt_state), carry, ClassifierMetrics(loss, optax.tree.norm(gradient))

    return jax.jit(step, donate_argnums=0)
