"""Codes that are not used, brought back to where the data is: a codebook would otherwise use a few of its codes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

NEAREST = 1e-6  # squared distance that is added, so that vectors which are codes already may be drawn too


def candidates(
    key: PRNGKeyArray, vectors: Float[Array, "vector dim"], codes: Float[Array, "vector dim"], number: int
) -> Float[Array, "number dim"]:
    """Vectors to put codes at, drawn in proportion to their squared distance from the codes that they have.

    It is the draw of k-means++ (Arthur & Vassilvitskii 2007), without replacement: vectors of a dense spot that has its
    codes are seldom drawn. Where there are fewer vectors than `number`, they are repeated.
    """
    squares = jnp.sum(jnp.square(vectors - codes), axis=-1) + NEAREST
    order = jnp.log(squares) + jax.random.gumbel(key, squares.shape)
    _, chosen = jax.lax.top_k(order, min(number, len(vectors)))
    return vectors[jnp.resize(chosen, (number,))]


def aged(
    unused: Int[Array, " code"], counts: Float[Array, " code"], after: int
) -> tuple[Int[Array, " code"], Bool[Array, " code"]]:
    """(steps since each code was used, which codes are to be brought back now).

    Args:
      unused: the steps before this one.
      counts: how often the codes were used in this step.
      after: steps without use after which a code is brought back.
    """
    unused = jnp.where(counts > 0, 0, unused + 1)
    dead = unused >= after
    return jnp.where(dead, 0, unused), dead


def spread(counts: Float[Array, " code"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(share of the codes that are used, perplexity of the codes' frequencies), given how often each was used.

    The perplexity is that many codes, used equally often, would have the same entropy.
    """
    shares = counts / jnp.maximum(jnp.sum(counts), 1.0)
    entropy = -jnp.sum(jnp.where(shares > 0, shares * jnp.log(jnp.where(shares > 0, shares, 1.0)), 0.0))
    return jnp.mean((counts > 0).astype(jnp.float32)), jnp.exp(entropy)
