"""What a forward process is."""

import abc
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffcurr import ranges
from diffcurr.processes.density import Density, Share, Uniform, array_module, inside, special_module
from diffcurr.processes.prediction import Epsilon, Level, Prediction, expand
from diffcurr.processes.weighting import Constant, Weighting

__all__ = ["Denoised", "Losses", "Predict", "Process", "array_module", "inside", "special_module"]

ROUNDING = 1e-9  # of a log-SNR, in float64

Predict = Callable[[Float[Array, "batch *shape"], Float[Array, " batch"]], Array]
"""A network with its parameters and condition bound: (scaled x, time as the network sees it) -> its raw output."""


class Denoised(NamedTuple):
    """What a process makes of a network's output.

    Attributes:
      x0: the estimate of the clean data.
      variance: where a learned variance lies between the posterior's (0) and beta (1), in logarithm.
    """

    x0: Float[Array, "batch *shape"]
    variance: Float[Array, "batch *shape"] | None = None


class Losses(NamedTuple):
    """The losses of each example, before any mean over the batch.

    Attributes:
      loss: what is trained on.
      noise_error: mean squared error of the noise, which compares noise levels, predictions and weightings.
    """

    loss: Float[Array, " batch"]
    noise_error: Float[Array, " batch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Process(ranges.Checked, abc.ABC):
    """x = alpha x0 + sigma noise at a noise level, which has three names.

    The quantile u in [0, 1): the share of the process's own training distribution that has less noise; the native time
    of its authors; and log-SNR. Noise grows with u. Methods of levels take NumPy arrays (then they compute in float64,
    for what is done before training) or JAX's.

    A process says its path, `path_time` and `alpha_sigma`, and its sampler's grid; how densely the path is drawn, what
    the network predicts and how its error is weighted are parts of it.

    Attributes:
      prediction: what the network outputs.
      weighting: weight of the squared error at each noise level.
      density: how densely the path is drawn in training.
    """

    prediction: Prediction = Epsilon()
    weighting: Weighting = Constant()
    density: Density = Uniform()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.density.check(self)
        self.weighting.check(self)
        self.prediction.check(self.level(self.sampling_times(2)[:1]))

    ################################################################ the path

    @property
    def num_levels(self) -> int:
        """How many equally spaced noise levels there are; for a continuous process, how finely to tabulate it."""
        return 1000

    @abc.abstractmethod
    def path_time(self, q: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        """Native time at a share q of the path, for q near 0 exact."""

    @abc.abstractmethod
    def path_share(self, time: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        """Inverse of `path_time`; the middle of the interval where many shares have one time."""

    @abc.abstractmethod
    def alpha_sigma(
        self, time: Float[Array | np.ndarray, "*batch"]
    ) -> tuple[Float[Array | np.ndarray, "*batch"], Float[Array | np.ndarray, "*batch"]]:
        """(alpha, sigma) at a native time."""

    @abc.abstractmethod
    def sampling_times(self, steps: int, last_step: float = 0.0) -> Float[np.ndarray, " step"]:
        """The native time of each network evaluation of a sampler, from the noisiest to the cleanest, float64.

        Args:
          last_step: length of the step from the last of them to `clean_time`, where it may be chosen; the process's
            own choice if 0.

        Raises:
          ValueError: for a number of steps that the process cannot make, or a last step that it does not let choose.
        """

    @property
    @abc.abstractmethod
    def clean_time(self) -> float:
        """The native time of clean data."""

    def level(self, time: Float[Array | np.ndarray, "*batch"]) -> Level:
        """What predictions need to know of a native time."""
        return Level(*self.alpha_sigma(time))

    def time_at(self, log_snr: Float[np.ndarray, " level"]) -> Float[np.ndarray, " level"]:
        """Native time at a log-SNR, by bisection in float64; a discrete process answers between its timesteps.

        Raises:
          ValueError: if the process has no such noise level.
        """
        low, high = np.zeros_like(log_snr, np.float64), np.ones_like(log_snr, np.float64)
        with np.errstate(divide="ignore"):  # log-SNR is infinite at an end of some paths
            self._check_range(log_snr, self._log_snr_on_path(high), self._log_snr_on_path(low))
            for _ in range(64):
                middle = (low + high) / 2
                too_noisy = self._log_snr_on_path(middle) < log_snr
                low, high = np.where(too_noisy, low, middle), np.where(too_noisy, middle, high)
        return np.asarray(self.path_time(low))

    def _log_snr_on_path(self, q: Float[np.ndarray, " level"]) -> Float[np.ndarray, " level"]:
        alpha, sigma = self.alpha_sigma(np.asarray(self.path_time(q)))
        return 2.0 * (np.log(alpha) - np.log(sigma))

    @staticmethod
    def _check_range(
        log_snr: Float[np.ndarray, " level"], low: Float[np.ndarray, " *_"], high: Float[np.ndarray, " *_"]
    ) -> None:
        if np.any(log_snr < low - ROUNDING) or np.any(log_snr > high + ROUNDING):
            raise ValueError(
                f"log-SNR {np.min(log_snr):.4g} to {np.max(log_snr):.4g}: the process's noise levels lie in "
                f"{np.max(low):.4g} to {np.min(high):.4g}"
            )

    def level_at(self, log_snr: Float[np.ndarray, " level"]) -> Level:
        """The noise level at a log-SNR; see `time_at`."""
        return self.level(self.time_at(log_snr))

    ###################################################### quantiles of the path

    def time_of(self, share: Share) -> Float[Array | np.ndarray, "*batch"]:
        """Native time at a place on the path."""
        return self.path_time(share.q)

    def share_of(self, time: Float[Array | np.ndarray, "*batch"]) -> Share:
        """The place of a native time on the path."""
        q = self.path_share(time)
        return Share(q, 1.0 - q)

    def time(self, u: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        """Native time of a quantile."""
        return self.time_of(self.density.share(u, self))

    def quantile(self, time: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        """Quantile of a native time; the middle of its interval where many quantiles share one."""
        return self.density.quantile(self.share_of(time), self)

    @property
    def level_midpoints(self) -> Float[np.ndarray, " level"]:
        """The middle of each of `num_levels` equally wide intervals of [0, 1)."""
        return (np.arange(self.num_levels) + 0.5) / self.num_levels

    def exact_alpha_sigma(
        self, u: Float[np.ndarray, " level"]
    ) -> tuple[Float[np.ndarray, " level"], Float[np.ndarray, " level"]]:
        """(alpha, sigma) of quantiles in float64 on the host, for what is computed before training."""
        alpha, sigma = self.alpha_sigma(self.time(np.asarray(u, np.float64)))
        return np.asarray(alpha), np.asarray(sigma)

    def log_snr(self, u: Float[np.ndarray, " level"]) -> Float[np.ndarray, " level"]:
        """log(alpha(u)^2 / sigma(u)^2), in float64 on the host."""
        alpha, sigma = self.exact_alpha_sigma(u)
        return 2.0 * (np.log(alpha) - np.log(sigma))

    @property
    def noise_weight(self) -> Float[np.ndarray, " level"]:
        """The loss that a unit of squared error of the noise has at each of `num_levels` levels; a factor aside."""
        time = jnp.asarray(self.time(self.level_midpoints), jnp.float32)
        level = self.level(time)
        return np.asarray(self.weighting(self, time, level) / self.prediction.noise_factor(level), np.float64)

    ##################################################### training and sampling

    def losses(
        self,
        predict: Predict,
        x0: Float[Array, "batch *shape"],
        u: Float[Array, " batch"],
        noise: Float[Array, "batch *shape"],
    ) -> Losses:
        """The weighted squared error of the prediction at quantiles u."""
        time = jnp.asarray(self.time(u))
        level = self.level(time)
        x = expand(level.alpha, x0) * x0 + expand(level.sigma, x0) * noise
        output, variance = self.split(predict(*self.prediction.inputs(x, time, level)))
        error = self.over_pixels(jnp.square(self.prediction.error(output, x, x0, noise, level)))
        loss = self.weighting(self, time, level) * error
        if variance is not None:
            loss = loss + self.bound(output, variance, x0, x, time)
        per_pixel = self.over_pixels(jnp.ones((1, *x0.shape[1:])))[0]  # of a sum, the number of pixels
        return Losses(loss, self.prediction.noise_factor(level) * error / per_pixel)

    def denoise(
        self,
        predict: Predict,
        x: Float[Array, "batch *shape"],
        time: Float[Array, " batch"],
        level: Level | None = None,
    ) -> Denoised:
        """The network's estimate of x0 from x at a native time.

        Args:
          level: the noise level there, for a time between those of a discrete process (`level_at`).
        """
        level = self.level(time) if level is None else level
        output, variance = self.split(predict(*self.prediction.inputs(x, time, level)))
        return Denoised(self.prediction.to_x0(output, x, level), variance)

    @staticmethod
    def over_pixels(squared: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
        """The loss of each example from the squared errors of its pixels: their mean."""
        return mean_over_pixels(squared)

    def split(self, output: Array) -> tuple[Array, Array | None]:
        """(prediction, variance in [0, 1] for outputs in [-1, 1]) of a network's output."""
        if not self.learns_variance:
            return output, None
        output, variance = jnp.split(output, 2, axis=-1)
        return output, (variance + 1.0) / 2.0

    @property
    def learns_variance(self) -> bool:
        """Whether the network outputs a variance beside its prediction, that is, twice the channels."""
        return False

    def bound(
        self,
        output: Float[Array, "batch *shape"],
        variance: Float[Array, "batch *shape"],
        x0: Float[Array, "batch *shape"],
        x: Float[Array, "batch *shape"],
        time: Float[Array, " batch"],
    ) -> Float[Array, " batch"]:
        """What is added to the loss of each example for the learned variance."""
        raise NotImplementedError


def check_no_last_step(last_step: float) -> None:
    """Raises ValueError if a last step is given, for processes whose grid is their own."""
    if last_step:
        raise ValueError(f"last_step = {last_step}: only flow lets it be chosen; give 0")


def mean_over_pixels(x: Float[Array, "batch *rest"]) -> Float[Array, " batch"]:
    """Mean over every axis but the first, in float32."""
    return jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim)))
