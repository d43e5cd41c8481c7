"""The process of EDM (Karras et al. 2022): variance exploding, log-normal noise levels, a preconditioned network."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffcurr import ranges
from diffcurr.processes import base
from diffcurr.processes.density import array_module, inside, special_module
from diffcurr.processes.prediction import Level, Preconditioned, Prediction
from diffcurr.processes.weighting import NetworkError, Weighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDM(base.Process):
    """x = x0 + sigma noise with log sigma ~ N(p_mean, p_std^2); its native time is sigma.

    The loss is that of the public code: squared errors are *summed* over pixels.

    Attributes:
      p_mean, p_std: mean and standard deviation of log sigma in training.
      sigma_min, sigma_max, rho: the sampler's grid (eq. 5).
    """

    prediction: Prediction = Preconditioned()
    weighting: Weighting = NetworkError()
    p_mean: float = -1.2
    p_std: ranges.Positive = 1.2
    sigma_min: ranges.Positive = 0.002
    sigma_max: ranges.Positive = 80.0
    rho: ranges.Positive = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma_max <= self.sigma_min:
            raise ValueError(f"sigma_max = {self.sigma_max}: must be above sigma_min = {self.sigma_min}")

    def path_time(self, q: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        xp, special = array_module(q), special_module(q)
        return xp.exp(self.p_mean + self.p_std * special.ndtri(inside(q))).astype(q.dtype)

    def path_share(self, time: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        xp, special = array_module(time), special_module(time)
        return special.ndtr((xp.log(time) - self.p_mean) / self.p_std).astype(time.dtype)

    def alpha_sigma(
        self, time: Float[Array | np.ndarray, "*batch"]
    ) -> tuple[Float[Array | np.ndarray, "*batch"], Float[Array | np.ndarray, "*batch"]]:
        return array_module(time).ones_like(time), time

    def level(self, time: Float[Array | np.ndarray, "*batch"]) -> Level:
        xp = array_module(time)
        one, zero = xp.ones_like(time), xp.zeros_like(time)
        return Level(one, time, zero, one)

    @staticmethod
    def over_pixels(squared: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
        return jnp.sum(squared.astype(jnp.float32), axis=tuple(range(1, squared.ndim)))

    @property
    def clean_time(self) -> float:
        return 0.0

    def sampling_times(self, steps: int, last_step: float = 0.0) -> Float[np.ndarray, " step"]:
        """Evenly spaced in sigma^(1 / rho) from sigma_max to sigma_min (eq. 5)."""
        base.check_no_last_step(last_step)
        if steps < 2:
            raise ValueError(f"steps = {steps}: must be at least 2")
        first, last = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return np.linspace(first, last, steps) ** self.rho
