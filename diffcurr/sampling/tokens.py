"""Tokens drawn one after another, and how well the tokens of pictures that were not trained on are predicted."""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from diffcurr.batch import Batch, in_chunks
from diffcurr.codecs import WithTokens
from diffcurr.conditioning import Condition
from diffcurr.metrics.evaluation import Measured
from diffcurr.metrics.intervals import mean_interval
from diffcurr.networks.base import TokenNetwork
from diffcurr.sampling.drawing import Sampler, Sampling
from diffcurr.sampling.guidance import in_pairs
from diffcurr.sampling.held_out import in_turn
from diffcurr.training import sharding
from diffcurr.training.tokens import nats_per_token

NAME = "bits_per_token"
CACHE = 2**31  # bytes of keys and values on one device at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenSampler(Sampler):
    """Draws the tokens of a picture row by row, each given those before it, and decodes them.

    The noise of a sample follows from its part, its row and the position alone.

    Attributes:
      codec: has tokens.
      shape: (rows, columns) of the tokens.
    """

    codec: WithTokens
    shape: tuple[int, int]

    def encoded(
        self, params: Any, key: PRNGKeyArray, part: Int[Array, ""], condition: Condition, rows: int, parts: int
    ) -> Int[Array, "row token_row token_column"]:
        network: TokenNetwork = nnx.merge(self.graph, params)
        row, behind = jnp.divmod(jnp.arange(rows * parts), parts)
        keys = jax.vmap(lambda part, row: jax.random.fold_in(jax.random.fold_in(key, part), row))(part + behind, row)
        draw = functools.partial(self._tokens, network)
        told = condition, self.conditioning.null(condition)
        tokens = in_chunks(draw, (keys, *told), sharding.batch_shards(self.mesh), self._at_once(network))
        return tokens.reshape(rows * parts, *self.shape)

    def decode(self, codec_params: Any, encoded: Array) -> Float[Array, "row height width channel"]:
        return self.codec.decode_tokens_with(codec_params, encoded)

    def _tokens(self, network: TokenNetwork, samples: tuple[Key[Array, " row"], Condition, Condition]) -> Array:
        """Tokens [sample, position] of samples, each with its key, its condition, and the one without information."""
        keys, condition, null = samples
        guided = bool(condition) and self.settings.guidance != 1.0
        told = jax.tree.map(in_pairs, condition, null) if guided else condition

        def place(carry: tuple[Any, Array], position: Array) -> tuple[tuple[Any, Array], Array]:
            cache, before = carry
            logits, cache = network.advance(cache, position, in_pairs(before, before) if guided else before, told)
            if guided:
                conditional, unconditional = logits[::2], logits[1::2]
                logits = unconditional + self.settings.guidance * (conditional - unconditional)
            tokens = jax.vmap(drawn, in_axes=(0, 0, None, None))(keys, logits, position, self.settings)
            return (cache, tokens), tokens

        first = network.empty_cache(len(keys) * (2 if guided else 1)), jnp.zeros(len(keys), jnp.int32)
        _, tokens = jax.lax.scan(place, first, jnp.arange(math.prod(self.shape)))
        return tokens.T

    def _at_once(self, network: TokenNetwork) -> int:
        """Samples of a device that are drawn at a time, so that their keys and values find room."""
        cache = jax.tree.leaves(jax.eval_shape(lambda: network.empty_cache(2)))  # a sample and its null condition
        return max(1, CACHE // sum(x.size * x.dtype.itemsize for x in cache))


def drawn(
    key: PRNGKeyArray, logits: Float[Array, " code"], position: Int[Array, ""], settings: Sampling
) -> Int[Array, ""]:
    """A token at a position of one sample."""
    logits = logits / settings.temperature
    logits = jnp.where(likely(logits, settings.top_k, settings.top_p), logits, -jnp.inf)
    return jax.random.categorical(jax.random.fold_in(key, position), logits).astype(jnp.int32)


def likely(logits: Float[Array, " code"], top_k: int, top_p: float) -> Bool[Array, " code"]:
    """Which codes may be drawn: the top_k likeliest (0: all), and of these, renormalised, as few as reach top_p.

    The code that passes top_p is among them (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration").
    Codes that are as likely as the last one are all in.
    """
    allowed = jnp.ones(logits.shape, bool)
    if 0 < top_k < len(logits):
        allowed = logits >= jax.lax.top_k(logits, top_k)[0][-1]
    if top_p < 1.0:
        falling = jnp.sort(jnp.where(allowed, logits, -jnp.inf), descending=True)
        shares = jax.nn.softmax(falling)
        needed = jnp.cumsum(shares) - shares < top_p  # of the first it always holds
        allowed &= logits >= jnp.min(jnp.where(needed, falling, jnp.inf))
    return allowed


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfPictures(abc.ABC):
    """What a network says of the tokens of pictures, over all devices.

    Attributes:
      graph: the network's static graph definition.
      codec, codec_params: see `TokenSampler`.
      mesh, param_shardings: where the parameters lie.
    """

    graph: Any
    codec: WithTokens
    codec_params: Callable[[], Any]
    mesh: Mesh
    param_shardings: Any

    @abc.abstractmethod
    def say(
        self, network: TokenNetwork, tokens: Int[Array, "batch row column"], condition: Condition
    ) -> Float[Array, "batch *rest"]:
        """What is computed of each picture."""

    def of(self, params: Any, images: Batch) -> Float[np.ndarray, "n *rest"]:
        """What is computed of each, in every process.

        Args:
          images: pictures, with what the network is told; in every process all of them.
        """
        codec_params = self.codec_params()
        return in_turn(lambda part, _: self._compiled(params, codec_params, part), images, self.mesh)

    @functools.cached_property
    def _compiled(self) -> Any:
        def compute(params: Any, codec_params: Any, batch: Batch) -> Float[Array, "n *rest"]:
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                encode = functools.partial(self.codec.tokens_with, codec_params)
                tokens = in_chunks(encode, batch.x, sharding.batch_shards(self.mesh), self.codec.images_at_once)
                return self.say(nnx.merge(self.graph, params), tokens, batch.condition)

        everywhere, by_row = sharding.replicated(self.mesh), sharding.batch_sharding(self.mesh)
        return jax.jit(compute, in_shardings=(self.param_shardings, everywhere, by_row), out_shardings=everywhere)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOutBits(OfPictures):
    """A function of parameters: how many bits a token of a held-out picture takes, given those before it.

    Attributes:
      images: the held-out pictures, with what the network is told; in every process all of them.
    """

    images: Batch

    def say(
        self, network: TokenNetwork, tokens: Int[Array, "batch row column"], condition: Condition
    ) -> Float[Array, " batch"]:
        return nats_per_token(network(tokens, condition), tokens)

    def __call__(self, params: Any) -> Measured:
        """`bits_per_token`, the mean over pictures and tokens, with its interval over pictures; in every process."""
        bits = self.of(params, self.images).astype(np.float64) / math.log(2)
        return {NAME: mean_interval(bits).as_json() | {"examples": len(bits)}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockFeatures(OfPictures):
    """What comes out of each block, averaged over the tokens of a picture, of which no condition is told."""

    def say(
        self, network: TokenNetwork, tokens: Int[Array, "batch row column"], condition: Condition
    ) -> Float[Array, "batch block width"]:
        return network.features(tokens, condition).swapaxes(0, 1)
