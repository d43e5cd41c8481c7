"""The process of EDM (Karras et al. 2022): variance exploding, log-normal noise levels, a preconditioned network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffcurr.processes import base, weighting
from diffcurr.processes.base import Denoised
from diffcurr.processes.prediction import Level, expand


@dataclasses.dataclass(frozen=True)
class EDM(base.Process):
    """x = x0 + sigma noise with log sigma ~ N(p_mean, p_std^2); its native time is sigma.

    The network F is seen through D(x) = c_skip x + c_out F(c_in x, log(sigma) / 4) (table 1), and the loss is that of
    the public code: the weighted squared error of D, *summed* over pixels.

    Attributes:
      p_mean, p_std: of log sigma in training.
      sigma_data: standard deviation of the data.
      weighting: of D's squared error: `edm`, (sigma^2 + sigma_data^2) / (sigma sigma_data)^2, or one of
        `processes.weighting` in its form for x0.
      weighting_gamma, weighting_k: of the weight; the usual gamma if 0.
      sigma_min, sigma_max, rho: of the sampler's grid.
    """

    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_data: float = 0.5
    weighting: str = "edm"
    weighting_gamma: float = 0.0
    weighting_k: float = 1.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        base.check_choice("weighting", self.weighting, ("edm", *weighting.WEIGHTINGS))
        for name in ("p_std", "sigma_data", "sigma_min", "rho"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be above 0")
        if self.sigma_max <= self.sigma_min:
            raise ValueError(f"sigma_max = {self.sigma_max}: must be above sigma_min = {self.sigma_min}")

    def time(self, u: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        xp, special = base.libraries(u)
        return xp.exp(self.p_mean + self.p_std * special.ndtri(base.inside(u))).astype(u.dtype)

    def quantile(self, time: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        xp, special = base.libraries(time)
        return special.ndtr((xp.log(time) - self.p_mean) / self.p_std).astype(time.dtype)

    def alpha_sigma(
        self, time: Float[Array | np.ndarray, "*batch"]
    ) -> tuple[Float[Array | np.ndarray, "*batch"], Float[Array | np.ndarray, "*batch"]]:
        return base.libraries(time)[0].ones_like(time), time

    def level(self, time: Float[Array, "*batch"]) -> Level:
        one, zero = jnp.ones_like(time), jnp.zeros_like(time)
        return Level(one, time, zero, one)

    def loss(
        self,
        predict: base.Predict,
        x0: Float[Array, "batch height width channel"],
        u: Float[Array, " batch"],
        noise: Float[Array, "batch height width channel"],
    ) -> Float[Array, " batch"]:
        sigma = jnp.asarray(self.time(u))
        x = x0 + expand(sigma, x0) * noise
        error = jnp.square(self.denoise(predict, x, sigma).x0 - x0)
        return self.weight(sigma) * jnp.sum(error.astype(jnp.float32), axis=tuple(range(1, error.ndim)))

    def weight(self, sigma: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """Of the squared error of D."""
        if self.weighting == "edm":
            return (sigma**2 + self.sigma_data**2) / jnp.square(sigma * self.sigma_data)
        return weighting.weight(self.weighting, "x0", self.level(sigma), gamma=self.weighting_gamma, k=self.weighting_k)

    def denoise(
        self, predict: base.Predict, x: Float[Array, "batch height width channel"], time: Float[Array, " batch"]
    ) -> Denoised:
        variance = time**2 + self.sigma_data**2
        c_skip, c_in = self.sigma_data**2 / variance, jax.lax.rsqrt(variance)
        c_out = time * self.sigma_data * c_in
        output = predict(expand(c_in, x) * x, jnp.log(time) / 4.0)
        return Denoised(expand(c_skip, x) * x + expand(c_out, x) * output)

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
