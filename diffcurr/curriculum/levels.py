"""What a curriculum may know of a process's noise levels: arrays, and nothing of the process."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


def midpoints(number: int) -> Float[np.ndarray, "{number}"]:
    """u in the middle of each of so many equally wide intervals."""
    return (np.arange(number) + 0.5) / number


def slope(log_snr: Float[np.ndarray, " level"]) -> Float[np.ndarray, " level"]:
    """|d log-SNR / d u| at equally likely levels."""
    return np.abs(np.gradient(log_snr, midpoints(len(log_snr))))


class _Levels(NamedTuple):
    edges: Float[np.ndarray, " edge"]
    log_snr: Float[np.ndarray, " level"]
    noise_weight: Float[np.ndarray, " level"]


class Levels(_Levels):
    """The clusters beside the noise levels that they hold; NumPy, float64.

    Attributes:
      edges: float [N + 1], edges of the clusters in u.
      log_snr: float [M], log(alpha^2 / sigma^2) in the middle of each of M equally wide intervals of u; falls.
      noise_weight: float [M], the loss of one unit of squared error of the noise at those levels. A common factor does
        not matter.
    """

    @property
    def widths(self) -> Float[np.ndarray, " cluster"]:
        """Widths of the clusters in u."""
        return np.diff(self.edges)

    @property
    def midpoints(self) -> Float[np.ndarray, " level"]:
        """u in the middle of each of the M intervals."""
        return midpoints(len(self.log_snr))

    @property
    def centres(self) -> Float[np.ndarray, " cluster"]:
        """Mean of log-SNR over each cluster."""
        return self.averaging @ self.log_snr

    @property
    def edge_log_snr(self) -> Float[np.ndarray, " edge"]:
        """log-SNR at the edges; at both ends that of the outermost levels, since the limit may be infinite."""
        return np.interp(self.edges, self.midpoints, self.log_snr)

    @property
    def log_snr_slope(self) -> Float[np.ndarray, " level"]:
        """|d log-SNR / d u| at the M levels."""
        return slope(self.log_snr)

    @functools.cached_property
    def averaging(self) -> Float[np.ndarray, "cluster level"]:
        """Matrix that takes values at the M levels to their means over each cluster."""
        borders = np.linspace(0.0, 1.0, len(self.log_snr) + 1)
        low = np.maximum(borders[:-1], self.edges[:-1, None])
        high = np.minimum(borders[1:], self.edges[1:, None])
        return np.maximum(high - low, 0.0) / self.widths[:, None]
