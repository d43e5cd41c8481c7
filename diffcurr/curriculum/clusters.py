"""Clusters: where [0, 1) is cut into intervals of similar difficulty.

Every function here returns ``edges``, float64 of shape [n + 1] with 0 = edges[0] < ... < edges[n] = 1. Cluster k
(1..n, index k - 1 in arrays) is the interval [edges[k - 1], edges[k]); cluster 1 is the hardest, as in the paper.
They run once, before training, in NumPy float64.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float

from diffcurr import ranges
from diffcurr.curriculum.gating import ONSET, SHARPNESS, gated_information


def uniform(n: int) -> Float[np.ndarray, "{n}+1"]:
    """Clusters of equal width in u, that is, of equal mass under the process's own training distribution.

    Raises:
      ValueError: if n < 1.
    """
    if n < 1:
        raise ValueError(f"clusters = {n}: there must be at least one cluster")
    return np.linspace(0.0, 1.0, n + 1)


def by_log_snr(log_snr: Float[np.ndarray, " timestep"], n: int) -> Float[np.ndarray, "{n}+1"]:
    """Clusters whose members lie closest to their cluster's centre in log-SNR.

    Minimises sum_k sum_{t in C_k} |s_t - s_{c_k}| over all partitions of the timesteps into n intervals, with
    s = log-SNR and c_k the cluster's middle timestep (the median, since s is monotone), exactly, by dynamic
    programming in O(n T^2).

    Args:
      log_snr: log(alpha^2 / sigma^2) at T equally likely timesteps, falling (neighbours may be equal, where one
        timestep is more likely than others); timestep t covers the quantiles [t / T, (t + 1) / T).
      n: number of clusters, 1 <= n <= T.

    Raises:
      ValueError: if n is outside 1..T, or log_snr is not finite or does not fall.
    """
    s = np.asarray(log_snr, dtype=np.float64)
    num_timesteps = len(s)
    if not 1 <= n <= num_timesteps:
        raise ValueError(f"clusters = {n}: choose between 1 and the {num_timesteps} timesteps that there are")
    if not np.all(np.isfinite(s)) or not np.all(np.diff(s) <= 0) or (num_timesteps > 1 and s[0] == s[-1]):
        raise ValueError("log_snr must be finite and fall from the first timestep to the last")

    # cost[a, b] of one cluster a..b, inclusive, from prefix sums: what lies before the median has the larger s.
    prefix = np.concatenate([[0.0], np.cumsum(s)])
    first, last = np.meshgrid(np.arange(num_timesteps), np.arange(num_timesteps), indexing="ij")
    middle = (first + last) // 2
    before = prefix[np.minimum(middle, last)] - prefix[first]
    after = prefix[last + 1] - prefix[middle + 1]
    count_before, count_after = middle - first, last - middle
    cost = before - count_before * s[middle] + count_after * s[middle] - after
    cost = np.where(first <= last, cost, np.inf)

    # best[b]: least cost of timesteps 0..b in the clusters made so far; start[k][b]: where the last of them begins.
    best = cost[0]
    starts = []
    for _ in range(n - 1):
        candidates = best[:-1, None] + cost[1:]  # [a - 1, b]: a new last cluster a..b
        starts.append(1 + np.argmin(candidates, axis=0))
        best = np.concatenate([[np.inf], np.min(candidates, axis=0)[1:]])
    boundaries = [num_timesteps]
    for start in reversed(starts):
        boundaries.append(int(start[boundaries[-1] - 1]))
    boundaries.append(0)
    return np.array(boundaries[::-1], dtype=np.float64) / num_timesteps


def by_relative_entropy(
    curve: Float[np.ndarray | Array, " pair"], n: int, min_width: float | None = None, power: float = 1.0
) -> Float[np.ndarray, "{n}+1"]:
    """Clusters that hold equal shares of the cumulative relative entropy of consecutive marginals.

    The curve falls by many orders of magnitude, so equal shares of it crowd into the least noise, more the finer the
    timesteps are: a divergence grows with the square of a step. Its square root grows with the step itself;
    sqrt(2 D_KL) is the length of a small step in the Fisher-Rao metric. So with `power` 1/2 each cluster is an equally
    long piece of the path from data to noise, nearly however finely that is cut.

    Args:
      curve: D_KL(p_{t-1} || p_t) at timesteps t = 1..T-1 of T equally likely ones, in nats; counted to timestep t,
        which covers the quantiles [t / T, (t + 1) / T).
      n: number of clusters, 1 <= n <= T.
      min_width: least width of a cluster in u, at most 1 / n; a quarter of 1 / n if None.
      power: the curve is raised to it first; above 0.

    Raises:
      ValueError: if n, min_width or power is out of range, or the curve is not finite, has negative values or none
        above 0.
    """
    if not power > 0:
        raise ValueError(f"power = {power}: must be above 0")
    return _equal_shares(np.asarray(curve, np.float64), n, min_width, power, skipped=1)


def by_information(
    curve: Float[np.ndarray | Array, " level"], n: int, min_width: float | None = None
) -> Float[np.ndarray, "{n}+1"]:
    """Clusters that hold equal shares of the information about the data.

    Args:
      curve: information per unit of u at T equally likely noise levels (`gating.gated_information`); a common factor
        does not matter. Level t covers the quantiles [t / T, (t + 1) / T).
      n: number of clusters, 1 <= n <= T.
      min_width: least width of a cluster in u, at most 1 / n; a quarter of 1 / n if None.

    Raises:
      ValueError: if n or min_width is out of range, or the curve is not finite, has negative values or none above 0.
    """
    return _equal_shares(np.asarray(curve, np.float64), n, min_width)


def _equal_shares(
    curve: Float[np.ndarray, " value"], n: int, min_width: float | None, power: float = 1.0, skipped: int = 0
) -> Float[np.ndarray, "{n}+1"]:
    """Clusters with equal shares of a curve raised to a power, none narrower than it may be.

    Args:
      skipped: levels before the first value of the curve.
    """
    num_levels = len(curve) + skipped
    width = 1 / (4 * n) if min_width is None else min_width
    if not 1 <= n <= num_levels:
        raise ValueError(f"clusters = {n}: choose between 1 and the {num_levels} timesteps that there are")
    if not 0 < width <= 1 / n:
        raise ValueError(f"min_width = {width}: must be above 0 and at most 1 / n = {1 / n}")
    if not np.all(np.isfinite(curve)) or np.any(curve < 0) or not np.any(curve > 0):
        raise ValueError("the curve must be finite, nowhere negative and somewhere above 0")
    mass = curve**power
    cumulative = np.concatenate([np.zeros(1 + skipped), np.cumsum(mass)]) / np.sum(mass)
    edges = np.interp(np.arange(n + 1) / n, cumulative, np.arange(num_levels + 1) / num_levels)
    edges[0], edges[-1] = 0.0, 1.0
    for k in range(1, n):
        edges[k] = max(edges[k], edges[k - 1] + width)
    for k in range(n - 1, 0, -1):
        edges[k] = min(edges[k], edges[k + 1] - width)
    return from_edges(edges.tolist())


def from_edges(edges: Sequence[float | int]) -> Float[np.ndarray, " edge"]:
    """Clusters at edges of the caller's own choice, checked.

    Raises:
      ValueError: if the edges do not start at 0, end at 1 and rise strictly.
    """
    result = np.asarray(edges, dtype=np.float64)
    if result.ndim != 1 or len(result) < 2 or result[0] != 0.0 or result[-1] != 1.0:
        raise ValueError(f"edges = {list(edges)}: the first must be 0 and the last 1")
    # Compared in float32, the precision of u: edges that differ by less enclose an empty cluster.
    falls = np.flatnonzero(np.diff(result.astype(np.float32)) <= 0)
    if len(falls):
        k = int(falls[0])
        raise ValueError(
            f"edges = {list(edges)}: they must rise strictly, but {edges[k]} is followed by {edges[k + 1]}"
        )
    return result


class Clustering(ranges.Checked, abc.ABC):
    """How the clusters are found, as a part of a config."""

    needs_curve: ClassVar[str] = ""
    """The curve that the edges follow from and that has to be measured first, by its name in
    `difficulty.curves.CURVES`; "" for none."""

    measured_by: ClassVar[tuple[str, ...]] = ()
    """Sections of the config that say how that curve is measured, beside those of what is trained."""

    def check(self, n: int) -> None:
        """Raises ValueError if there can be no n such clusters, before a curve is measured."""
        del n

    @abc.abstractmethod
    def edges(
        self,
        n: int,
        log_snr: Float[np.ndarray, " timestep"],
        curve: Float[np.ndarray | Array, " value"] | None = None,
    ) -> Float[np.ndarray, " edge"]:
        """The edges of n clusters.

        Args:
          log_snr: log-SNR at the process's T equally likely noise levels, falling.
          curve: values of the curve that `needs_curve` names; None where it names none.

        Raises:
          ValueError: if there are no such clusters.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform(Clustering):
    """Clusters of equal width in u (`uniform`)."""

    def edges(self, n: int, log_snr: np.ndarray, curve: np.ndarray | Array | None = None) -> Float[np.ndarray, " edge"]:
        return uniform(n)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSNR(Clustering):
    """Clusters whose members lie closest to their centre in log-SNR (`by_log_snr`)."""

    def edges(self, n: int, log_snr: np.ndarray, curve: np.ndarray | Array | None = None) -> Float[np.ndarray, " edge"]:
        return by_log_snr(log_snr, n)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelativeEntropy(Clustering):
    """Clusters with equal shares of the relative entropy of consecutive marginals (`by_relative_entropy`).

    Attributes:
      power: the curve is raised to it first.
    """

    power: ranges.Positive = 1.0
    needs_curve = "relative_entropy"
    measured_by = ("analysis",)

    def edges(self, n: int, log_snr: np.ndarray, curve: np.ndarray | Array | None = None) -> Float[np.ndarray, " edge"]:
        if curve is None:
            raise ValueError("clusters by relative entropy need the curve, which has not been measured")
        # Sampling may leave a measured curve a little below 0 where it is tiny.
        return by_relative_entropy(np.maximum(np.asarray(curve), 0.0), n, power=self.power)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Information(Clustering):
    """Clusters with equal shares of the information about the data, gated (`by_information`).

    It is the error of the noise over log-SNR (`gating.gated_information`), of a network that is trained for a few steps
    before the run begins, or of an earlier run.

    Attributes:
      run: workdir of an earlier run on the same data, whose metrics give the error; with "" a probe measures it.
      probe_steps: length of the probe: the run's own network, batches and learning rate, without a curriculum. The
        error is the mean over the second half.
      gate: c, sigma / alpha below which nothing is left to learn but the grid of pixel values; 0 finds it: the cleanest
        level whose error is above `onset` times the largest.
      onset: see `gate`.
      sharpness: n of the gate s^n / (s^n + c^n), s = sigma / alpha.
      min_width: least width of a cluster in u, so that a batch has examples of each; 0 is a quarter of 1 / N.
    """

    run: str = ""
    probe_steps: ranges.Steps = 300
    gate: ranges.NotNegative = 0.0
    onset: ranges.ShareBelowOne = ONSET
    sharpness: ranges.Positive = SHARPNESS
    min_width: ranges.Share = 0.001
    needs_curve = "information"

    def check(self, n: int) -> None:
        if self.min_width > 1 / n:
            raise ValueError(f"clustering.min_width = {self.min_width}: {n} clusters can be {1 / n:.3g} wide at most")

    def edges(self, n: int, log_snr: np.ndarray, curve: np.ndarray | Array | None = None) -> Float[np.ndarray, " edge"]:
        if curve is None:
            raise ValueError("clusters by information need the error of the noise, which has not been measured")
        settings = {"at": self.gate, "share": self.onset, "sharpness": self.sharpness}
        return by_information(
            gated_information(np.asarray(curve, np.float64), log_snr, **settings), n, self.min_width or None
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edges(Clustering):
    """Clusters at given edges.

    Attributes:
      at: the edges, 0 = edges[0] < ... < edges[N] = 1.
    """

    at: Sequence[ranges.Share] = ()

    def edges(self, n: int, log_snr: np.ndarray, curve: np.ndarray | Array | None = None) -> Float[np.ndarray, " edge"]:
        try:
            found = from_edges(self.at)
        except ValueError as error:
            raise ValueError(str(error).replace("edges = ", "clustering.at = ", 1)) from error
        if len(found) != n + 1:
            raise ValueError(f"clustering.at = {tuple(self.at)}: clusters = {n} needs {n + 1} edges")
        return found


CLUSTERINGS: dict[str, type[Clustering]] = {
    "uniform": Uniform,
    "log_snr": LogSNR,
    "relative_entropy": RelativeEntropy,
    "information": Information,
    "edges": Edges,
}
"""`curriculum.clustering.name` in a config -> the class."""
