"""How densely a process's path is drawn in training: the distribution whose quantile u is.

A process says how its path runs from data to noise along a share q in [0, 1); a density says which q are drawn. The
complement 1 - q is kept beside q, so that both ends are exact.
"""

import abc
import dataclasses
from typing import Any, NamedTuple

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
    """u kept from 0 and 1, where log SNR is infinite for a continuous process."""
    return array_module(u).clip(u, 2.0**-25, 1.0 - 2.0**-24)


class Density(ranges.Checked, abc.ABC):
    """A distribution over the path, for u given as NumPy arrays (then in float64) or JAX's."""

    @abc.abstractmethod
    def share(self, u: Float[Array | np.ndarray, "*batch"], num_levels: int) -> Share:
        """The place on the path below which a share u of the training draws lies.

        Args:
          num_levels: the process's number of levels.
        """

    @abc.abstractmethod
    def quantile(self, share: Share, num_levels: int) -> Float[Array | np.ndarray, "*batch"]:
        """Inverse of `share`."""

    def check(self, num_levels: int) -> None:
        """Raises ValueError if the density does not fit a process with so many levels."""
        del num_levels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform(Density):
    """The process's own: uniform along its path."""

    def share(self, u: Float[Array | np.ndarray, "*batch"], num_levels: int) -> Share:
        return Share(u, 1.0 - inside(u))

    def quantile(self, share: Share, num_levels: int) -> Float[Array | np.ndarray, "*batch"]:
        return share.q


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitNormal(Density):
    """logit(1 - q) ~ N(mean, std^2): on flow's linear path, the logit of t (Esser et al. 2024).

    Attributes:
      mean, std: mean and standard deviation of the logit; a larger mean draws less noise.
    """

    mean: float = 0.0
    std: ranges.Positive = 1.0

    def share(self, u: Float[Array | np.ndarray, "*batch"], num_levels: int) -> Share:
        special = special_module(u)
        logit = self.mean - self.std * special.ndtri(inside(u))
        return Share(special.expit(-logit).astype(u.dtype), special.expit(logit).astype(u.dtype))

    def quantile(self, share: Share, num_levels: int) -> Float[Array | np.ndarray, "*batch"]:
        special = special_module(share.q)
        return special.ndtr((self.mean - special.logit(share.complement)) / self.std).astype(share.q.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed(Density):
    """SpeeD's asymmetric draw (Wang et al. 2025).

    SpeeD draws half of a batch from p, k times as likely below tau, and mirrors it, t -> |tau - t|, for the other half.
    Here each level is drawn from the mean of the two distributions, so the halves need not be paired.

    Attributes:
      tau: the noise level, of the process's equally spaced ones, from which little is left to learn.
      k: levels below tau are so many times as likely as those above.
    """

    tau: ranges.Steps = 700
    k: ranges.Positive = 5.0

    def check(self, num_levels: int) -> None:
        if not 0 < self.tau < num_levels:
            raise ValueError(f"density.tau = {self.tau}: a level between 0 and {num_levels}")

    def probabilities(self, num_levels: int) -> Float[np.ndarray, " level"]:
        """How likely each level is drawn."""
        t = np.arange(num_levels)
        p = np.where(t < self.tau, self.k, 1.0)
        p /= p.sum()
        mirrored = np.bincount(np.abs(self.tau - t), weights=p, minlength=num_levels)
        return (p + mirrored) / 2

    def share(self, u: Float[Array | np.ndarray, "*batch"], num_levels: int) -> Share:
        xp, p = array_module(u), self.probabilities(num_levels)
        cumulative = xp.asarray(np.cumsum(p), u.dtype)
        level = xp.clip(xp.searchsorted(cumulative, u, side="right"), 0, num_levels - 1)
        into = (u - cumulative[level]) / xp.asarray(p, u.dtype)[level] + 1.0
        # Kept from the borders of a level, so that rounding does not move it to the next one.
        q = ((level + xp.clip(into, 1e-3, 1.0 - 1e-3)) / num_levels).astype(u.dtype)
        return Share(q, 1.0 - q)

    def quantile(self, share: Share, num_levels: int) -> Float[Array | np.ndarray, "*batch"]:
        xp, p = array_module(share.q), self.probabilities(num_levels)
        place = xp.clip(share.q * num_levels, 0.0, num_levels * (1.0 - 2.0**-24))
        level = xp.floor(place).astype(xp.int32)
        below = xp.asarray(np.cumsum(p) - p, share.q.dtype)[level]
        return (below + (place - level) * xp.asarray(p, share.q.dtype)[level]).astype(share.q.dtype)


DENSITIES: dict[str, type[Density]] = {"uniform": Uniform, "logit_normal": LogitNormal, "speed": Speed}
"""`process.density.name` in a config -> the class."""
