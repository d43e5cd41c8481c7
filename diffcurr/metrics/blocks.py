"""Many examples, a block at a time, so that no more of them are in memory."""

import hashlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Shaped

BLOCK = 4096  # examples that are in memory at once


def blocks(number: int) -> Iterator[slice]:
    """Slices that cut so many examples into blocks."""
    return (slice(start, start + BLOCK) for start in range(0, number, BLOCK))


def sha256_of(examples: Shaped[np.ndarray, "example ..."]) -> bytes:
    """The SHA-256 of their values."""
    content = hashlib.sha256()
    for block in blocks(len(examples)):
        content.update(np.ascontiguousarray(examples[block]).data)
    return content.digest()
