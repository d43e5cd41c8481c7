"""What the relative entropy of a data set costs, counted, and the time that follows for an accelerator."""

from typing import NamedTuple

# In `mixture.add_block`, for one image, one sample and one pair of levels, with an exponential as ten operations.
OPERATIONS = 30
FLOAT = 4  # bytes


class Work(NamedTuple):
    """What one curve costs.

    Attributes:
      pairs: images x samples x pairs of levels.
      flops: floating-point operations: the two matrix products, and those of each pair.
      traffic: bytes of the images, which are read for each part, and of the sums, which each piece reads and writes.
      distances: bytes of A and B, if they were read from memory at each pair of levels. Where a piece's fit in the
        memory on the chip, they are not.
    """

    pairs: float
    flops: float
    traffic: float
    distances: float


def work(images: int, dimension: int, samples: int, levels: int, *, parts: int = 10, piece: int = 8192) -> Work:
    """Counts what one curve costs.

    Args:
      images: number of images, or latents.
      dimension: values of each.
      samples: number of samples in all.
      levels: number T of noise levels.
      parts: number of parts in which the samples are computed.
      piece: images that are computed with at once.
    """
    pairs = float(images) * samples * (levels - 1)
    sums = 2 * 4 * FLOAT * samples * (levels - 1)  # two sums of a peak and a total, read and written
    return Work(
        pairs=pairs,
        flops=4.0 * images * samples * dimension + OPERATIONS * pairs,
        traffic=float(FLOAT) * images * dimension * parts + sums * images / piece,
        distances=2.0 * FLOAT * pairs,
    )


def bound(needed: Work, flops: float, bandwidth: float, chips: int) -> tuple[float, float]:
    """No chips finish sooner: (seconds with A and B in the chips' own memory, seconds with both read at each level).

    Each is the larger of operations / peak and bytes / bandwidth. The peak is that of matrix products, which
    exponentials do not reach, so the true time is longer.

    Args:
      flops: peak of one chip, operations a second.
      bandwidth: bandwidth of one chip's memory, bytes a second.
      chips: number of chips, over which the images are spread.
    """
    computing = needed.flops / (flops * chips)
    near, far = (moved / (bandwidth * chips) for moved in (needed.traffic, needed.traffic + needed.distances))
    return max(computing, near), max(computing, far)
