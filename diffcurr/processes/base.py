"""What a forward process is."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float

from diffcurr.processes.prediction import Level

Predict = Callable[[Float[Array, "batch height width channel"], Float[Array, " batch"]], Array]
"""A network with its parameters and condition bound: (scaled x, time as the network sees it) -> its raw output."""


class Denoised(NamedTuple):
    """What a process makes of a network's output.

    Attributes:
      x0: the estimate of the clean data.
      variance: with a learned variance, where it lies between the posterior's (0) and beta (1), in logarithm.
    """

    x0: Float[Array, "batch height width channel"]
    variance: Float[Array, "batch height width channel"] | None = None


class Process(abc.ABC):
    """x = alpha x0 + sigma noise at a noise level, which has three names.

    The quantile u in [0, 1): the share of the process's own training distribution that has less noise; the native time
    of its authors; and log-SNR. Noise grows with u. Methods of levels take NumPy arrays (then they compute in float64,
    for what is done before training) or JAX's.
    """

    @property
    def num_levels(self) -> int:
        """How many equally likely noise levels there are; for a continuous process, how finely to tabulate it."""
        return 1000

    @abc.abstractmethod
    def time(self, u: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        """Native time of a quantile."""

    @abc.abstractmethod
    def quantile(self, time: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        """Quantile of a native time; the middle of its interval where many quantiles share one."""

    @abc.abstractmethod
    def alpha_sigma(
        self, time: Float[Array | np.ndarray, "*batch"]
    ) -> tuple[Float[Array | np.ndarray, "*batch"], Float[Array | np.ndarray, "*batch"]]:
        """(alpha, sigma) at a native time."""

    @abc.abstractmethod
    def loss(
        self,
        predict: Predict,
        x0: Float[Array, "batch height width channel"],
        u: Float[Array, " batch"],
        noise: Float[Array, "batch height width channel"],
    ) -> Float[Array, " batch"]:
        """Training loss of each example, before any mean over the batch."""

    @abc.abstractmethod
    def denoise(
        self, predict: Predict, x: Float[Array, "batch height width channel"], time: Float[Array, " batch"]
    ) -> Denoised:
        """The network's estimate of x0 from x at a native time."""

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

    @property
    def learns_variance(self) -> bool:
        """Whether the network outputs a variance beside its prediction, that is, twice the channels."""
        return False

    @property
    def level_midpoints(self) -> Float[np.ndarray, " level"]:
        """The middle of each of the `num_levels` equally likely intervals of u."""
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

    def level(self, time: Float[Array, "*batch"]) -> Level:
        """What conversions between predictions need to know of a native time."""
        alpha, sigma = self.alpha_sigma(time)
        return Level(jnp.asarray(alpha), jnp.asarray(sigma))


def libraries(array: Array | np.ndarray) -> tuple[Any, Any]:
    """(array functions, special functions): NumPy's and SciPy's, or JAX's, whichever the array is of."""
    return (np, scipy.special) if isinstance(array, np.ndarray | np.generic) else (jnp, jax.scipy.special)


def inside(u: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
    """u kept from 0 and 1, where log SNR is infinite for a continuous process."""
    return libraries(u)[0].clip(u, 2.0**-25, 1.0 - 2.0**-24)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} = {value!r}: choose one of {', '.join(choices)}")


def check_no_last_step(last_step: float) -> None:
    """Raises ValueError if a last step is given, for processes whose grid is their own."""
    if last_step:
        raise ValueError(f"last_step = {last_step}: only flow lets it be chosen; give 0")


def mean_over_pixels(x: Float[Array, "batch *rest"]) -> Float[Array, " batch"]:
    """Mean over every axis but the first, in float32."""
    return jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim)))
