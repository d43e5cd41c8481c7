"""Randomness as a function of (seed, stream, step, microbatch): nothing to save, nothing drawn twice."""

import zlib

import jax
from jaxtyping import Array, Int, PRNGKeyArray


def stream_key(seed: int, stream: str) -> PRNGKeyArray:
    """The root key of a named stream. Streams with different names are independent."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()))


def step_key(seed: int, stream: str, step: Int[Array, ""], microbatch: int | Int[Array, ""] = 0) -> PRNGKeyArray:
    """The key of one stream at one microbatch of one step."""
    return jax.random.fold_in(jax.random.fold_in(stream_key(seed, stream), step), microbatch)
