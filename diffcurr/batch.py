"""A batch of examples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Batch(NamedTuple):
    """Examples as the process noises them and the network is told of them.

    Attributes:
      x: float [batch, *shape]: pixels in [-1, 1], or latents. As `condition`, NumPy's on the host, JAX's on devices.
      condition: what the network is told beside x, by name; the first axis of each array is the batch's.
      features: features of the clean pictures, [batch, token, feature], that the network is aligned with and not
        told. None where it is not aligned.
    """

    x: Any
    condition: dict[str, Any]
    features: Any = None


def in_chunks(function: Callable[[Any], Any], examples: Any, shards: int, at_once: int) -> Any:
    """function(examples), computed for a few examples of each device at a time, to save memory. Jit-able.

    Args:
      examples: arrays of one length, which are spread over devices by their first axis.
      shards: into how many parts they are cut; must divide their number.
      at_once: examples on one device at a time; 0 for all of them.
    """
    number = jax.tree.leaves(examples)[0].shape[0]
    local = number // shards
    chunks = next(n for n in range(1, local + 1) if local % n == 0 and local // n <= (at_once or local))
    if chunks == 1:
        return function(examples)
    # Chunk k takes examples k, k + chunks, ...: each device keeps the examples it already holds.
    parts = jax.tree.map(lambda x: x.reshape(-1, chunks, *x.shape[1:]).swapaxes(0, 1), examples)
    return jax.tree.map(lambda y: y.swapaxes(0, 1).reshape(number, *y.shape[2:]), jax.lax.map(function, parts))
