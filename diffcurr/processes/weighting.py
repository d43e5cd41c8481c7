"""Loss weights from the literature, as functions of the noise level, for any prediction.

Most are given as the weight w of the squared error of the noise. The error that a prediction trains on has
|error of noise|^2 = c |error|^2 at the same x (`Prediction.noise_factor`), so its loss is weighted with c w: SNR w for
x0, SNR / (SNR + 1) w for v.
"""

import abc
import dataclasses
from typing import Annotated, Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Interval
from jaxtyping import Array, Float

from diffcurr import ranges
from diffcurr.processes.density import Path, sigma_of_levels
from diffcurr.processes.prediction import Level, Prediction


@runtime_checkable
class Process(Path, Protocol):
    """What weightings know of a process (`processes.base.Process`)."""

    @property
    def prediction(self) -> Prediction: ...

    def path_share(self, time: Any) -> Any: ...

    def time(self, u: Any) -> Any: ...

    def quantile(self, time: Any) -> Any: ...

    def log_snr(self, u: Any) -> Any: ...


class Weighting(ranges.Checked, abc.ABC):
    """The factor of each example's squared error."""

    @abc.abstractmethod
    def __call__(self, process: Process, time: Float[Array, " batch"], level: Level) -> Float[Array, " batch"]:
        """
        Args:
          process: whose prediction is trained.
          time: native time of each example.
          level: the noise levels at those times.
        """

    def check(self, process: Process) -> None:
        """Raises ValueError if the weighting does not fit a process."""
        del process


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Weighting):
    """1: the plain error of the prediction."""

    def __call__(self, process: Process, time: Array, level: Level) -> Float[Array, " batch"]:
        return jnp.ones_like(level.sigma)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkError(Weighting):
    """The weight with which the network's own output has weight 1: EDM's (Karras et al. 2022, table 1)."""

    def __call__(self, process: Process, time: Array, level: Level) -> Float[Array, " batch"]:
        return process.prediction.output_factor(level)


class NoiseWeighting(Weighting):
    """A weight of the squared error of the noise that depends on the signal-to-noise ratio."""

    @abc.abstractmethod
    def of_snr(self, snr: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """The weight at alpha^2 / sigma^2."""

    def __call__(self, process: Process, time: Array, level: Level) -> Float[Array, " batch"]:
        return process.prediction.noise_factor(level) * self.of_snr(jnp.square(level.alpha / level.sigma))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinSNR(NoiseWeighting):
    """min(SNR, gamma) on x0 (Hang et al. 2023).

    Attributes:
      gamma: the signal-to-noise ratio above which the weight of x0 is constant.
    """

    gamma: ranges.Positive = 5.0

    def of_snr(self, snr: Array) -> Float[Array, " batch"]:
        return jnp.minimum(1.0, self.gamma / snr)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftMinSNR(NoiseWeighting):
    """Min-SNR's smooth form, SNR gamma / (SNR + gamma) on x0 (Crowson et al. 2024).

    With gamma = 1 / sigma_data^2 it is (sigma sigma_data)^2 / (sigma^2 + sigma_data^2)^2 on the output of EDM's
    network.

    Attributes:
      gamma: the signal-to-noise ratio at which the weight of x0 is half its limit.
    """

    gamma: ranges.Positive = 4.0

    def of_snr(self, snr: Array) -> Float[Array, " batch"]:
        return self.gamma / (snr + self.gamma)


@dataclasses.dataclass(frozen=True, kw_only=True)
class P2(NoiseWeighting):
    """(k + SNR)^-gamma (Choi et al. 2022).

    Attributes:
      gamma: how strongly the least noisy levels are weighted down.
      k: the signal-to-noise ratio at which that begins.
    """

    gamma: ranges.Positive = 1.0
    k: ranges.Positive = 1.0

    def of_snr(self, snr: Array) -> Float[Array, " batch"]:
        return (self.k + snr) ** -self.gamma


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sigmoid(NoiseWeighting):
    """SiD2's sigmoid(bias - log SNR) of the error of the noise, integrated over log SNR (Hoogeboom et al. 2024).

    On x0 it is e^bias sigmoid(log SNR - bias). The paper's loss is an integral over log SNR, and so has the factor
    |d log SNR / dt| for its t, which is drawn uniformly. Here u is uniform, so the weight has the factor
    |d log SNR / du|. The expected loss is then the paper's integral, over the levels that are drawn at all, whatever
    the density: that only changes how often each of them is seen.

    Attributes:
      bias: the log SNR above which x0's weight, this factor aside, is constant; the lower, the more weight has noise.
    """

    bias: float = 0.0

    def check(self, process: Process) -> None:
        if np.ptp(process.time(process.level_midpoints)) == 0:
            raise ValueError("weighting 'sigmoid': the density draws a single noise level; choose a wider one")

    def of_snr(self, snr: Array) -> Float[Array, " batch"]:
        return jax.nn.sigmoid(self.bias - jnp.log(snr))

    def slopes(self, process: Process) -> tuple[Float[np.ndarray, " level"], Float[np.ndarray, " level"]]:
        """(u, |d log SNR / du| there) at the middle of as many equal shares of the draws as there are levels.

        So it is finite also where a continuous process's log SNR is not: in the outermost half shares it is taken as
        constant.
        """
        # Where a density draws a timestep of a discrete process often, it is met several times and must count once.
        u, index = np.unique(process.quantile(process.time(process.level_midpoints)), return_index=True)
        return u, np.abs(np.gradient(process.log_snr(process.level_midpoints)[index], u))

    def __call__(self, process: Process, time: Array, level: Level) -> Float[Array, " batch"]:
        u, slope = (jnp.asarray(table, jnp.float32) for table in self.slopes(process))
        return super().__call__(process, time, level) * jnp.interp(process.quantile(time), u, slope)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed(Weighting):
    """SpeeD's change-aware weight (Wang et al. 2025, as in their public code): slopes of sigma^2 below tau, 1 above.

    Attributes:
      tau: the noise level, of the process's equally spaced ones, from which little is left to learn.
      limit: SpeeD's lambda: the slopes are scaled to [1 - limit, limit].
      over: the levels whose slopes have these extremes, `all`; or `below` tau, as it was before this setting.
    """

    tau: ranges.Steps = 700
    limit: Annotated[float, Interval(gt=0.5, le=1)] = 0.6
    over: Annotated[str, ranges.OneOf(("all", "below"))] = "all"

    def check(self, process: Process) -> None:
        if not 0 < self.tau < process.num_levels:
            raise ValueError(f"weighting.tau = {self.tau}: a level between 0 and {process.num_levels}")
        if self.over == "below" and self.tau == 1:
            raise ValueError("weighting.tau = 1: the one slope below it cannot be scaled; give more, or over = 'all'")

    def table(self, process: Process) -> Float[np.ndarray, " level"]:
        """The weight at each of the process's levels."""
        slope = np.gradient(np.square(sigma_of_levels(process)))
        slope = slope if self.over == "all" else slope[: self.tau]
        low, high = 1.0 - self.limit, self.limit
        scaled = low + (high - low) * (slope - slope.min()) / (slope.max() - slope.min())
        return np.append(scaled[: self.tau], np.ones(process.num_levels - self.tau))

    def __call__(self, process: Process, time: Array, level: Level) -> Float[Array, " batch"]:
        index = jnp.floor(process.path_share(time) * process.num_levels).astype(jnp.int32)
        return jnp.asarray(self.table(process), jnp.float32)[index]


WEIGHTINGS: dict[str, type[Weighting]] = {
    "constant": Constant,
    "edm": NetworkError,
    "min_snr": MinSNR,
    "soft_min_snr": SoftMinSNR,
    "p2": P2,
    "sigmoid": Sigmoid,
    "speed": Speed,
}
"""`process.weighting.name` in a config -> the class."""
