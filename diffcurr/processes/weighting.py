"""Loss weights from the literature, as functions of the noise level, for any prediction.

Most are given as the weight w of the squared error of the noise. The error that a prediction trains on has
|error of noise|^2 = c |error|^2 at the same x (`Prediction.noise_factor`), so its loss is weighted with c w: SNR w for
x0, SNR / (SNR + 1) w for v.
"""

import abc
import dataclasses
from typing import Annotated, Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from annotated_types import Interval
from jaxtyping import Array, Float

from diffcurr import ranges
from diffcurr.processes.prediction import Level, Prediction


@runtime_checkable
class Process(Protocol):
    """What weightings know of a process (`processes.base.Process`)."""

    @property
    def prediction(self) -> Prediction: ...

    @property
    def num_levels(self) -> int: ...

    @property
    def level_midpoints(self) -> Float[np.ndarray, " level"]: ...

    def path_time(self, q: Any) -> Any: ...

    def path_share(self, time: Any) -> Any: ...

    def alpha_sigma(self, time: Any) -> tuple[Any, Any]: ...


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
class Speed(Weighting):
    """SpeeD's change-aware weight (Wang et al. 2025): the slopes of sigma_t^2 below tau, 1 above.

    Attributes:
      tau: the noise level, of the process's equally spaced ones, from which little is left to learn.
      limit: SpeeD's lambda: the slopes are scaled to [1 - limit, limit].
    """

    tau: ranges.Steps = 700
    limit: Annotated[float, Interval(gt=0.5, le=1)] = 0.6

    def check(self, process: Process) -> None:
        if not 0 < self.tau < process.num_levels:
            raise ValueError(f"weighting.tau = {self.tau}: a level between 0 and {process.num_levels}")

    def table(self, process: Process) -> Float[np.ndarray, " level"]:
        """The weight at each of the process's levels."""
        _, sigma = process.alpha_sigma(process.path_time(process.level_midpoints))
        slope = np.gradient(np.square(sigma))[: self.tau]
        low, high = 1.0 - self.limit, self.limit
        scaled = low + (high - low) * (slope - slope.min()) / (slope.max() - slope.min())
        return np.append(scaled, np.ones(process.num_levels - self.tau))

    def __call__(self, process: Process, time: Array, level: Level) -> Float[Array, " batch"]:
        index = jnp.floor(process.path_share(time) * process.num_levels).astype(jnp.int32)
        return jnp.asarray(self.table(process), jnp.float32)[index]


WEIGHTINGS: dict[str, type[Weighting]] = {
    "constant": Constant,
    "edm": NetworkError,
    "min_snr": MinSNR,
    "soft_min_snr": SoftMinSNR,
    "p2": P2,
    "speed": Speed,
}
"""`process.weighting.name` in a config -> the class."""
