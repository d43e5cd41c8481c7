"""Data points that need not fit in memory, read in blocks, each process its share of them."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped


class Rows(NamedTuple):
    """A block of one process's points.

    Attributes:
      x: the points, padded with zeros.
      number: 1 + the position of each in the data; 0 for padding.
    """

    x: Float[np.ndarray, "row dimension"]
    number: Int[np.ndarray, " row"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Points:
    """Data points of all processes, of which this process reads points p, p + P, p + 2 P, ...

    All processes have the same number of blocks of the same size. One block is kept; several are read again each time.

    Attributes:
      read: this process's points from the first to the last, in float32 arrays of any lengths.
      number: number of points, over all processes.
      dimension: number of values of a point.
      block: points that this process has in memory at a time, rounded up to fill its devices.
      piece: points of a block that a device computes with at once, at most.
      process_index: p.
      process_count: P.
      devices: number of this process's devices.
    """

    read: Callable[[], Iterable[Shaped[np.ndarray, "row *shape"]]]
    number: int
    dimension: int
    block: int
    piece: int = 512
    process_index: int = 0
    process_count: int = 1
    devices: int = dataclasses.field(default_factory=jax.local_device_count)

    @property
    def num_blocks(self) -> int:
        """Number of blocks of each process."""
        return -(-self._largest_share // self.block)

    @functools.cached_property
    def pieces(self) -> tuple[int, int]:
        """(number of pieces of a device's part of a block, points in a piece)."""
        of_a_device = -(-self._largest_share // (self.num_blocks * self.devices))
        number = -(-of_a_device // self.piece)
        return number, -(-of_a_device // number)

    @property
    def rows(self) -> int:
        """Number of rows of a block, with the padding."""
        number, size = self.pieces
        return self.devices * number * size

    @property
    def _largest_share(self) -> int:
        return -(-self.number // self.process_count)

    def __iter__(self) -> Iterator[Rows]:
        """This process's blocks.

        Raises:
          ValueError: if `read` gives another number of points than this process's share.
        """
        if self.num_blocks == 1:
            yield self._only_block
        else:
            yield from self._blocks()

    @functools.cached_property
    def _only_block(self) -> Rows:
        return next(self._blocks())

    def _blocks(self) -> Iterator[Rows]:
        share = len(range(self.process_index, self.number, self.process_count))
        arrays, left, given = iter(self.read()), np.zeros((0, self.dimension), np.float32), 0
        for _ in range(self.num_blocks):
            # A fresh array each time: on a CPU the block before may still be computed with in its place.
            x, number, filled = np.zeros((self.rows, self.dimension), np.float32), np.zeros(self.rows, np.int32), 0
            while filled < self.rows and given < share:
                if not len(left):
                    following = next(arrays, None)
                    if following is None:
                        raise ValueError(f"{given:,} examples could be read, where {share:,} were expected")
                    left = following.reshape(len(following), -1)
                part = left[: min(self.rows - filled, share - given)]
                left = left[len(part) :]
                x[filled : filled + len(part)] = part
                number[filled : filled + len(part)] = (
                    1 + self.process_index + self.process_count * np.arange(given, given + len(part))
                )
                filled, given = filled + len(part), given + len(part)
            yield Rows(x, number)
