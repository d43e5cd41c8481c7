"""The train step of a network that predicts tokens: pictures are encoded inside it, by the codec's weights."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from diffcurr.batch import Batch
from diffcurr.codecs import WithTokens
from diffcurr.conditioning import Condition, Conditioning
from diffcurr.training.randomness import step_key
from diffcurr.training.state import TrainState
from diffcurr.training.updating import Updating, averaged, updated


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TokenStep(Updating):
    """Everything about the step that does not change during a run.

    Attributes:
      codec: encodes the pictures.
      conditioning: what the network is told, and how often it is not.
      dropout: whether the network drops activations, that is, takes a key.
    """

    codec: WithTokens
    conditioning: Conditioning
    dropout: bool


class Report(NamedTuple):
    """What a microbatch reports: the mean loss."""

    loss: Float[Array, ""]


class Metrics(NamedTuple):
    """What one step reports.

    Attributes:
      loss: mean over the tokens of the global batch, in nats.
      grad_norm: global norm of the gradient, before clipping.
      learning_rate: learning rate of this step.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]


def nats_per_token(
    logits: Float[Array, "batch token code"], tokens: Int[Array, "batch row column"]
) -> Float[Array, " batch"]:
    """Mean cross entropy over the tokens of each picture."""
    flat = tokens.reshape(len(tokens), -1)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, flat), axis=1)


def token_loss(
    params: Any,
    config: TokenStep,
    tokens: Int[Array, "batch row column"],
    condition: Condition,
    dropped: Bool[Array, " batch"],
    key: PRNGKeyArray | None = None,
) -> Float[Array, ""]:
    """Mean loss of a microbatch.

    Args:
      dropped: which examples' conditions are withheld.
      key: random key of dropout; nothing is dropped if None.
    """
    network = nnx.merge(config.graph, params)
    told = config.conditioning.drop(condition, dropped) if condition else {}
    logits = network(tokens, told, key=key if config.dropout else None)
    return jnp.mean(nats_per_token(logits, tokens))


def token_step(
    state: TrainState, batch: Batch, carry: tuple[()], config: TokenStep, codec_params: Any
) -> tuple[TrainState, tuple[()], Metrics]:
    """One optimizer step on pictures; see `training.step.train_step`."""

    def gradient(index: int | Array, part: Batch) -> tuple[Any, Report]:
        def key(stream: str) -> PRNGKeyArray:
            return step_key(config.seed, stream, state.step, index)

        tokens = config.codec.tokens_with(codec_params, part.x)
        dropped = jax.random.bernoulli(key("label dropout"), config.conditioning.dropout, tokens.shape[:1])
        examples = tokens, part.condition, dropped
        loss, grads = jax.value_and_grad(token_loss)(state.params, config, *examples, key("dropout"))
        return grads, Report(loss)

    grads, seen = averaged(gradient, batch, config.microbatches)
    rate = jnp.asarray(config.learning_rate(state.step), jnp.float32)
    metrics = Metrics(loss=seen.loss, grad_norm=optax.tree.norm(grads), learning_rate=rate)
    return updated(state, grads, state.curriculum, config), carry, metrics
