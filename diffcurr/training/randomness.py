"""Randomness as a function of (seed, stream, step, microbatch): nothing to save, nothing drawn twice."""

import zlib
from typing import TypeAlias

import jax
from jaxtyping import Array, Int, PRNGKeyArray

Number: TypeAlias = int | Int[Array, ""]


def stream_key(seed: Number, stream: str) -> PRNGKeyArray:
    """The root key of a named stream. Streams with different names are independent."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()))


def step_key(seed: Number, stream: str, step: Number, microbatch: Number = 0) -> PRNGKeyArray:
    """The key of one stream at one microbatch of one step."""
    return jax.random.fold_in(jax.random.fold_in(stream_key(seed, stream), step), microbatch)
