"""How densely a process's path is drawn in training: the distribution whose quantile u is.

A process says how its path runs from data to noise along a share q in [0, 1); a density says which q are drawn. The
complement 1 - q is kept beside q, so that both ends are exact.
"""

import abc
import dataclasses
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # loads its modules when they are named
from jaxtyping import Array, Float

from diffcurr import ranges


class Share(NamedTuple):
    """A place on a process's path.

    Attributes:
      q: the share of the path that has less noise.
      complement: 1 - q.
    """

    q: Float[Array | np.ndarray, "*batch"]
    complement: Float[Array | np.ndarray, "*batch"]


def array_module(x: Array | np.ndarray) -> Any:
    """The module of array functions for x: NumPy, or JAX's."""
    return np if isinstance(x, np.ndarray | np.generic) else jnp


def special_module(x: Array | np.ndarray) -> Any:
    """The module of special functions for x: SciPy's, or JAX's."""
    return scipy.special if array_module(x) is np else jax.scipy.special


def inside(u: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
    """u kept from 0 and 1, where log SNR is infinite for a continuous process; in float32 1 - u is below 1 too."""
    return array_module(u).clip(u, 2.0**-24, 1.0 - 2.0**-24)


@runtime_checkable
class Path(Protocol):
    """What densities know of a process (`processes.base.Process`)."""

    @property
    def num_levels(self) -> int: ...

    @property
    def level_midpoints(self) -> Float[np.ndarray, " level"]: ...

    def path_time(self, q: Any) -> Any: ...

    def alpha_sigma(self, time: Any) -> tuple[Any, Any]: ...


def sigma_of_levels(process: Path) -> Float[np.ndarray, " level"]:
    """sigma at each of a process's levels, which are equally spaced along its path, from the cleanest; float64."""
    _, sigma = process.alpha_sigma(process.path_time(process.level_midpoints))
    return np.asarray(sigma)


class Density(ranges.Checked, abc.ABC):
    """A distribution over the path, for u given as NumPy arrays (then in float64) or JAX's."""

    @abc.abstractmethod
    def share(self, u: Float[Array | np.ndarray, "*batch"], process: Path) -> Share:
        """The place on the path below which a share u of the training draws lies.

        Args:
          process: whose path it is.
        """

    @abc.abstractmethod
    def quantile(self, share: Share, process: Path) -> Float[Array | np.ndarray, "*batch"]:
        """Inverse of `share`."""

    def check(self, process: Path) -> None:
        """Raises ValueError if the density does not fit a process."""
        del process


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform(Density):
    """The process's own: uniform along its path."""

    def share(self, u: Float[Array | np.ndarray, "*batch"], process: Path) -> Share:
        return Share(u, 1.0 - inside(u))

    def quantile(self, share: Share, process: Path) -> Float[Array | np.ndarray, "*batch"]:
        return share.q


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitNormal(Density):
    """logit(1 - q) ~ N(mean, std^2): on flow's linear path, the logit of t (Esser et al. 2024).

    Attributes:
      mean, std: mean and standard deviation of the logit; a larger mean draws less noise.
    """

    mean: float = 0.0
    std: ranges.Positive = 1.0

    def share(self, u: Float[Array | np.ndarray, "*batch"], process: Path) -> Share:
        special = special_module(u)
        logit = self.mean - self.std * special.ndtri(inside(u))
        return Share(special.expit(-logit).astype(u.dtype), special.expit(logit).astype(u.dtype))

    def quantile(self, share: Share, process: Path) -> Float[Array | np.ndarray, "*batch"]:
        special = special_module(share.q)
        return special.ndtr((self.mean - special.logit(share.complement)) / self.std).astype(share.q.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed(Density):
    """SpeeD's asymmetric draw (Wang et al. 2025, as in their public code).

    SpeeD draws half of a batch from p, k times as likely below tau. The other half is mirrored, t -> |m - t|, about the
    level m from which sigma is almost constant: 642 for DDPM's linear schedule with T = 1000, not tau. Here each level
    is drawn from the mean of the two distributions, so the halves need not be paired.

    Attributes:
      tau: the noise level, of the process's equally spaced ones, from which little is left to learn.
      k: levels below tau are so many times as likely as those above.
      slope: m follows the first level at which sigma grows by less than this from one level to the next.
      about: `slope`; or `tau`, as it was before this setting, to continue runs of that time.
    """

    tau: ranges.Steps = 700
    k: ranges.Positive = 5.0
    slope: ranges.Positive = 1e-4
    about: Annotated[str, ranges.OneOf(("slope", "tau"))] = "slope"

    def check(self, process: Path) -> None:
        if not 0 < self.tau < process.num_levels:
            raise ValueError(f"density.tau = {self.tau}: a level between 0 and {process.num_levels}")
        self.mirror(process)

    def mirror(self, process: Path) -> int:
        """The level m about which half of the draws is mirrored.

        Raises:
          ValueError: if sigma does not begin to grow by less than `slope` a level somewhere between the first level and
            the last, and go on so. In processes whose sigma grows evenly or without bound no slope is small enough.
        """
        if self.about == "tau":
            return self.tau
        steepness = np.gradient(sigma_of_levels(process))  # half the difference of the two neighbours, as SpeeD's code
        flat = steepness < self.slope
        first = int(np.argmax(flat))
        if not (0 < first < len(flat) - 1 and np.all(flat[first:])):
            begin, end = steepness[0], steepness[-2]
            between = f"choose one between {end:.3g} and {begin:.3g}"
            remedy = between if end < 0.9 * begin else "that of this process does not; choose another density"
            raise ValueError(f"density.slope = {self.slope}: sigma must flatten to it towards noise, {remedy}")
        return first + 1

    def probabilities(self, process: Path) -> Float[np.ndarray, " level"]:
        """How likely each level is drawn."""
        t = np.arange(process.num_levels)
        p = np.where(t < self.tau, self.k, 1.0)
        p /= p.sum()
        mirrored = np.bincount(np.abs(self.mirror(process) - t), weights=p, minlength=process.num_levels)
        return (p + mirrored) / 2

    def share(self, u: Float[Array | np.ndarray, "*batch"], process: Path) -> Share:
        xp, p = array_module(u), self.probabilities(process)
        cumulative = xp.asarray(np.cumsum(p), u.dtype)
        level = xp.clip(xp.searchsorted(cumulative, u, side="right"), 0, len(p) - 1)
        into = (u - cumulative[level]) / xp.asarray(p, u.dtype)[level] + 1.0
        # Kept from the borders of a level, so that rounding does not move it to the next one.
        q = ((level + xp.clip(into, 1e-3, 1.0 - 1e-3)) / len(p)).astype(u.dtype)
        return Share(q, 1.0 - q)

    def quantile(self, share: Share, process: Path) -> Float[Array | np.ndarray, "*batch"]:
        xp, p = array_module(share.q), self.probabilities(process)
        place = xp.clip(share.q * len(p), 0.0, len(p) * (1.0 - 2.0**-24))
        level = xp.floor(place).astype(xp.int32)
        below = xp.asarray(np.cumsum(p) - p, share.q.dtype)[level]
        return (below + (place - level) * xp.asarray(p, share.q.dtype)[level]).astype(share.q.dtype)


DENSITIES: dict[str, type[Density]] = {"uniform": Uniform, "logit_normal": LogitNormal, "speed": Speed}
"""`process.density.name` in a config -> the class."""
