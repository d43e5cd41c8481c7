"""Fixed densities over noise levels, as weights of clusters.

Each is written as its authors have it: over log-SNR, over the noise-to-signal ratio, or over the share u of a process's
own draws. A cluster's weight is its mass under the density, divided by its width in u: its mass under the process's
own. So the same density can be asked of any process, and with more clusters it is followed more closely.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import scipy  # loads its modules when they are named
from annotated_types import Interval
from jaxtyping import Float

from diffcurr import ranges
from diffcurr.curriculum.levels import Levels


class Density(ranges.Checked, abc.ABC):
    """A distribution over noise levels."""

    @abc.abstractmethod
    def weights(self, levels: Levels) -> Float[np.ndarray, " cluster"]:
        """How densely each cluster is drawn, relative to the process's own distribution; their mean over u is 1.

        Raises:
          ValueError: if the density does not fit the clusters.
        """


def _normalised(mass: Float[np.ndarray, " cluster"], levels: Levels) -> Float[np.ndarray, " cluster"]:
    if not mass.sum() > 0:
        low, high = levels.log_snr[-1], levels.log_snr[0]
        raise ValueError(f"the density has no mass where the process has noise levels, log-SNR {low:.3g} to {high:.3g}")
    return mass / mass.sum() / levels.widths


class Continuous(Density):
    """A density that is known by its distribution function. Mass beyond the process's noise levels is left out."""

    @abc.abstractmethod
    def less_noise(self, levels: Levels) -> Float[np.ndarray, " edge"]:
        """The share of draws with less noise than each edge."""

    def weights(self, levels: Levels) -> Float[np.ndarray, " cluster"]:
        return _normalised(np.diff(self.less_noise(levels)), levels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform(Continuous):
    """The process's own distribution."""

    def less_noise(self, levels: Levels) -> Float[np.ndarray, " edge"]:
        return levels.edges


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table(Density):
    """A weight for each cluster.

    Attributes:
      at: the weights, index 0 the hardest cluster's; relative to each other.
    """

    at: Sequence[ranges.NotNegative] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "at", tuple(self.at))  # hashable
        if self.at and not any(self.at):
            raise ValueError(f"at = {self.at}: one weight must be above 0")

    def weights(self, levels: Levels) -> Float[np.ndarray, " cluster"]:
        if len(self.at) != len(levels.widths):
            raise ValueError(f"at = {self.at}: give a weight for each of the {len(levels.widths)} clusters")
        return _normalised(np.asarray(self.at, np.float64) * levels.widths, levels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Laplace(Continuous):
    """log-SNR ~ Laplace(mean, scale) (Hang et al. 2024, arXiv 2407.03297).

    Attributes:
      mean: mean of log-SNR.
      scale: mean distance from it.
    """

    mean: float = 0.0
    scale: ranges.Positive = 0.5

    def less_noise(self, levels: Levels) -> Float[np.ndarray, " edge"]:
        return scipy.stats.laplace.sf(levels.edge_log_snr, self.mean, self.scale)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogNormal(Continuous):
    """log(sigma / alpha) ~ N(mean, std^2): EDM's, and on flow's linear path the logit-normal of the share of noise.

    (Karras et al. 2022; Esser et al. 2024, whose (0, 1) is the default.)

    Attributes:
      mean, std: mean and standard deviation of log(sigma / alpha); a larger mean draws more noise.
    """

    mean: float = 0.0
    std: ranges.Positive = 1.0

    def less_noise(self, levels: Levels) -> Float[np.ndarray, " edge"]:
        return scipy.stats.norm.cdf(-levels.edge_log_snr / 2, self.mean, self.std)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beta(Continuous):
    """u ~ Beta(a, b) (Zheng et al. 2024, B-TTDM, over timesteps).

    Attributes:
      a, b: with a < b less noise is drawn more often.
    """

    a: ranges.Positive = 1.0
    b: ranges.Positive = 1.0

    def less_noise(self, levels: Levels) -> Float[np.ndarray, " edge"]:
        return scipy.special.betainc(self.a, self.b, levels.edges)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mode(Continuous):
    """SD3's mode sampling (Esser et al. 2024, eq. 20): t = 1 - v - scale (cos^2(pi v / 2) - 1 + v), v uniform.

    t is the share of noise sigma / (alpha + sigma), on flow's linear path its time from data to noise.

    Attributes:
      scale: above 0 the middle is drawn more often, below 0 the ends.
    """

    scale: Annotated[float, Interval(ge=-1, le=2 / (np.pi - 2))] = 1.29

    def less_noise(self, levels: Levels) -> Float[np.ndarray, " edge"]:
        v = np.linspace(0.0, 1.0, 100_001)
        t = 1 - v - self.scale * (np.cos(np.pi / 2 * v) ** 2 - 1 + v)
        return np.interp(scipy.special.expit(-levels.edge_log_snr / 2), t[::-1], 1 - v[::-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shift(Continuous):
    """The process's own distribution moved to more noise, t' = s t / (1 + (s - 1) t) (Esser et al. 2024, eq. 23).

    t is the share of noise sigma / (alpha + sigma): so sigma / alpha is multiplied by s.

    Attributes:
      scale: s, for a resolution the square root of its number of values over 4,096.
    """

    scale: ranges.Positive = 1.0

    def less_noise(self, levels: Levels) -> Float[np.ndarray, " edge"]:
        before = levels.edge_log_snr + 2 * np.log(self.scale)
        found = np.interp(-before, -levels.log_snr, levels.midpoints, left=0.0, right=1.0)
        # The edges at both ends are those of the outermost levels, of which none is cut in two.
        found[0], found[-1] = (0.0 if self.scale >= 1 else found[0]), (1.0 if self.scale <= 1 else found[-1])
        return found


DENSITIES: dict[str, type[Density]] = {
    "uniform": Uniform,
    "table": Table,
    "laplace": Laplace,
    "log_normal": LogNormal,
    "beta": Beta,
    "mode": Mode,
    "shift": Shift,
}
"""`curriculum.density.name` in a config -> the class."""


def named(settings: Mapping[str, Any]) -> Density:
    """The density that a mapping names, with its settings beside the name.

    Raises:
      ValueError: for a name or a setting that there is not, or a value that is refused.
    """
    given = dict(settings)
    name = given.pop("name", None)
    if name not in DENSITIES:
        raise ValueError(f"name = {name!r}: choose one of {', '.join(DENSITIES)}")
    known = [one.name for one in dataclasses.fields(DENSITIES[name])]  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            raise ValueError(f"{key} = {given[key]!r}: {name} has {', '.join(known) or 'no settings'}")
    return DENSITIES[name](**given)
