"""Flow matching with the paths and conventions of SiT (Ma et al. 2024; Lipman et al. 2023; Esser et al. 2024)."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffcurr.processes import base, prediction, weighting
from diffcurr.processes.base import Denoised
from diffcurr.processes.prediction import Level, expand

PATHS = ("linear", "trigonometric")
DISTRIBUTIONS = ("uniform", "logit_normal")
PREDICTIONS = ("velocity", "x0")


@dataclasses.dataclass(frozen=True)
class Flow(base.Process):
    """x = alpha(t) x0 + sigma(t) noise, alpha rising from 0 to 1. As in SiT, its native time t is 1 at *data*.

    So the easy end is t = 0 and t falls in u. (REPA and others run time the other way: their t is 1 - t here.)

    Attributes:
      path: `linear` (t, 1 - t) or `trigonometric` (sin(pi t / 2), cos(pi t / 2)).
      prediction: `velocity` (d x / d t = alpha' x0 + sigma' noise) or `x0`.
      distribution: of t in training: `uniform`, or `logit_normal` (Esser et al. 2024): logit(t) ~ N(mean, std^2).
      mean, std: of the logit-normal distribution.
      weighting: of the prediction's squared error (see `processes.weighting`).
      weighting_gamma, weighting_k: of the weight; the usual gamma if 0.
    """

    path: str = "linear"
    prediction: str = "velocity"
    distribution: str = "uniform"
    mean: float = 0.0
    std: float = 1.0
    weighting: str = "constant"
    weighting_gamma: float = 0.0
    weighting_k: float = 1.0

    def __post_init__(self) -> None:
        base.check_choice("path", self.path, PATHS)
        base.check_choice("prediction", self.prediction, PREDICTIONS)
        base.check_choice("distribution", self.distribution, DISTRIBUTIONS)
        base.check_choice("weighting", self.weighting, weighting.WEIGHTINGS)
        if self.std <= 0:
            raise ValueError(f"std = {self.std}: must be above 0")

    def time(self, u: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        if self.distribution == "uniform":
            return (1.0 - base.inside(u)).astype(u.dtype)
        _, special = base.libraries(u)
        return special.expit(self.mean - self.std * special.ndtri(base.inside(u))).astype(u.dtype)

    def quantile(self, time: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        if self.distribution == "uniform":
            return 1.0 - time
        _, special = base.libraries(time)
        return special.ndtr((self.mean - special.logit(time)) / self.std).astype(time.dtype)

    def alpha_sigma(
        self, time: Float[Array | np.ndarray, "*batch"]
    ) -> tuple[Float[Array | np.ndarray, "*batch"], Float[Array | np.ndarray, "*batch"]]:
        if self.path == "linear":
            return time, 1.0 - time
        xp, _ = base.libraries(time)
        return xp.sin(np.pi / 2 * time), xp.cos(np.pi / 2 * time)

    def level(self, time: Float[Array, "*batch"]) -> Level:
        alpha, sigma = map(jnp.asarray, self.alpha_sigma(time))
        if self.path == "linear":
            return Level(alpha, sigma, jnp.ones_like(alpha), -jnp.ones_like(sigma))
        return Level(alpha, sigma, np.pi / 2 * sigma, -np.pi / 2 * alpha)

    def loss(
        self,
        predict: base.Predict,
        x0: Float[Array, "batch height width channel"],
        u: Float[Array, " batch"],
        noise: Float[Array, "batch height width channel"],
    ) -> Float[Array, " batch"]:
        """Mean over pixels of the squared error of the prediction, weighted."""
        time = jnp.asarray(self.time(u))
        level = self.level(time)
        x = expand(level.alpha, x0) * x0 + expand(level.sigma, x0) * noise
        wanted = prediction.target(self.prediction, x0, noise, level)
        error = base.mean_over_pixels(jnp.square(predict(x, time) - wanted))
        factor = weighting.weight(
            self.weighting, self.prediction, level, gamma=self.weighting_gamma, k=self.weighting_k
        )
        return factor * error

    def denoise(
        self, predict: base.Predict, x: Float[Array, "batch height width channel"], time: Float[Array, " batch"]
    ) -> Denoised:
        return Denoised(prediction.to_x0(self.prediction, predict(x, time), x, self.level(time)))

    @property
    def clean_time(self) -> float:
        return 1.0

    def sampling_times(self, steps: int, last_step: float = 0.0) -> Float[np.ndarray, " step"]:
        """Evenly spaced from t = 0 (noise) to 1 - last_step; with a last step as long as the others if it is 0."""
        if steps < 1:
            raise ValueError(f"steps = {steps}: must be at least 1")
        if not 0.0 <= last_step < 1.0:
            raise ValueError(f"last_step = {last_step}: must lie in [0, 1)")
        return np.linspace(0.0, 1.0 - (last_step or 1 / steps), steps)
