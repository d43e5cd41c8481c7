"""Flow matching with the paths and conventions of SiT (Ma et al. 2024; Lipman et al. 2023; Esser et al. 2024)."""

import dataclasses
from typing import Annotated

import numpy as np
from jaxtyping import Array, Float

from diffcurr import ranges
from diffcurr.processes import base
from diffcurr.processes.density import Share, array_module, inside
from diffcurr.processes.prediction import Level, Prediction, Velocity

PATHS = ("linear", "trigonometric")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow(base.Process):
    """x = alpha(t) x0 + sigma(t) noise, alpha rising from 0 to 1. As in SiT, its native time t is 1 at *data*.

    So the easy end is t = 0 and t falls in u. (REPA and others run time the other way: their t is 1 - t here.)

    Attributes:
      path: `linear` (t, 1 - t) or `trigonometric` (sin(pi t / 2), cos(pi t / 2)).
    """

    prediction: Prediction = Velocity()
    path: Annotated[str, ranges.OneOf(PATHS)] = "linear"

    def path_time(self, q: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        return (1.0 - inside(q)).astype(q.dtype)

    def path_share(self, time: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        return 1.0 - time

    def time_of(self, share: Share) -> Float[Array | np.ndarray, "*batch"]:
        return share.complement

    def share_of(self, time: Float[Array | np.ndarray, "*batch"]) -> Share:
        return Share(1.0 - time, time)

    def alpha_sigma(
        self, time: Float[Array | np.ndarray, "*batch"]
    ) -> tuple[Float[Array | np.ndarray, "*batch"], Float[Array | np.ndarray, "*batch"]]:
        if self.path == "linear":
            return time, 1.0 - time
        xp = array_module(time)
        return xp.sin(np.pi / 2 * time), xp.cos(np.pi / 2 * time)

    def level(self, time: Float[Array | np.ndarray, "*batch"]) -> Level:
        alpha, sigma = self.alpha_sigma(time)
        if self.path == "linear":
            one = array_module(time).ones_like(alpha)
            return Level(alpha, sigma, one, -one)
        return Level(alpha, sigma, np.pi / 2 * sigma, -np.pi / 2 * alpha)

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
