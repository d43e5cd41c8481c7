"""What one pass over the data gathers, in float64: means, the covariance, and some of the points themselves."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from diffcurr.difficulty.mixture import Moments
from diffcurr.difficulty.points import Points
from diffcurr.training import distributed

CHUNK = 4096  # points that are brought to float64 at a time
GATHERED = 2**20  # values that are summed over processes at a time


class Survey(NamedTuple):
    """The same in every process.

    Attributes:
      moments: means over the data, in float32.
      mean: the mean of the data.
      covariance: covariance of the data, divided by their number; None if it was not asked for.
      numbers: numbers of the points that were asked for, ascending.
      chosen: the points of these numbers.
    """

    moments: Moments
    mean: Float[np.ndarray, " dimension"]
    covariance: Float[np.ndarray, "dimension dimension"] | None
    numbers: Int[np.ndarray, " chosen"]
    chosen: Float[np.ndarray, "chosen dimension"]

    def points(self, index: Int[np.ndarray, " sample"]) -> Float[np.ndarray, "sample dimension"]:
        """Some of the points that were asked for, in the order of `index`."""
        return self.chosen[np.searchsorted(self.numbers, index)]


def survey(
    points: Points,
    index: Int[np.ndarray, " wanted"],
    *,
    covariance: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> Survey:
    """Reads all points once; called by all processes.

    Means and covariance of blocks are merged (Chan, Golub & LeVeque 1979), so that they are as accurate as those of
    all points at once. The covariance needs three arrays of its size, of 134 MB each at 4,096 dimensions.

    Args:
      index: numbers of the points that are wanted, in any order.
      covariance: whether to compute it: on the host, about `dimension`^2 operations a point.
      report: called with (points read, points in all) by this process's share of them.

    Raises:
      ValueError: in every process, if the data are constant or not finite.
    """
    index = np.unique(index)
    dim = points.dimension
    count, norm, spread, mean = 0, 0.0, 0.0, np.zeros(dim)
    scatter = np.zeros((dim, dim)) if covariance else None
    numbers, found = [np.zeros(0, np.int32)], [np.zeros((0, dim), np.float32)]
    share = len(range(points.process_index, points.number, points.process_count))
    for rows in points:
        wanted = np.isin(rows.number - 1, index) & (rows.number > 0)
        numbers.append(rows.number[wanted] - 1)
        found.append(rows.x[wanted])
        present = int(np.sum(rows.number > 0))  # the padding is behind them
        for start in range(0, present, CHUNK):
            x = rows.x[start : min(start + CHUNK, present)].astype(np.float64)
            with np.errstate(invalid="ignore", over="ignore"):  # such values are found below
                norm += float(np.sum(np.square(x)))
                of_chunk = x.mean(axis=0)
                x -= of_chunk
                apart, weight = of_chunk - mean, count * len(x) / (count + len(x))
                mean += apart * (len(x) / (count + len(x)))
                spread += float(np.sum(np.square(x))) + weight * float(apart @ apart)
                if scatter is not None:
                    scatter += x.T @ x
                    scatter += weight * np.outer(apart, apart)
            count += len(x)
            if report:
                report(count, share)

    with np.errstate(invalid="ignore", over="ignore"):
        whole = distributed.total(count * mean) / points.number
        apart = mean - whole
        norm, spread = distributed.total(np.array([norm, spread + count * float(apart @ apart)])) / points.number
        if scatter is not None:
            scatter += count * np.outer(apart, apart)
    if not np.isfinite(norm):
        raise ValueError("data hold values that are not finite: repair or drop those examples")
    if spread <= 1e-20 * norm:  # rounding in float64
        raise ValueError("data are constant: all points are the same, so there is nothing to measure")
    if scatter is not None:
        step = max(1, GATHERED // dim)
        for start in range(0, dim, step):
            scatter[start : start + step] = distributed.total(scatter[start : start + step]) / points.number
    chosen = distributed.gather(np.concatenate(numbers), np.concatenate(found))
    moments = Moments(*(np.asarray(value, np.float32) for value in (whole, norm, spread)))
    return Survey(moments, whole, scatter, index, chosen)
