"""The discrete variance-preserving process of DDPM (Ho et al. 2020) and improved DDPM (Nichol & Dhariwal 2021)."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffcurr.processes import base

SCHEDULES = ("linear", "cosine")


@dataclasses.dataclass(frozen=True)
class DDPM(base.Process):
    """T discrete timesteps, drawn uniformly: u maps to t = floor(u T), and t = T - 1 is (almost) pure noise.

    Attributes:
      schedule: `linear` (beta from 1e-4 to 0.02 at T = 1000, scaled by 1000 / T otherwise, as improved DDPM does) or
        `cosine`.
      prediction: what the network outputs: `epsilon`, `x0` or `v`.
      num_timesteps: T.
    """

    schedule: str = "linear"
    prediction: str = "epsilon"
    num_timesteps: int = 1000

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule = {self.schedule!r}: choose one of {', '.join(SCHEDULES)}")
        if self.prediction not in base.PREDICTIONS:
            raise ValueError(f"prediction = {self.prediction!r}: choose one of {', '.join(base.PREDICTIONS)}")
        smallest = 21 if self.schedule == "linear" else 2  # below, the scaled linear schedule has a beta of 1 or more
        if self.num_timesteps < smallest:
            raise ValueError(
                f"num_timesteps = {self.num_timesteps}: the {self.schedule} schedule needs at least {smallest}"
            )

    @property
    def num_levels(self) -> int:
        return self.num_timesteps

    @functools.cached_property
    def betas(self) -> Float[np.ndarray, " timestep"]:
        """beta_t, the noise variance added at each timestep, float64."""
        if self.schedule == "linear":
            scale = 1000 / self.num_timesteps
            return np.linspace(1e-4 * scale, 0.02 * scale, self.num_timesteps)
        # Nichol & Dhariwal 2021, eq. 17, with their offset s = 0.008 and betas of at most 0.999.
        f = np.cos((np.arange(self.num_timesteps + 1) / self.num_timesteps + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1.0 - f[1:] / f[:-1], 0.999)

    @functools.cached_property
    def alphas_cumprod(self) -> Float[np.ndarray, " timestep"]:
        """alpha-bar_t = prod_{s <= t} (1 - beta_s), float64."""
        return np.cumprod(1.0 - self.betas)

    def timestep(self, u: Float[Array, "*batch"]) -> Int[Array, "*batch"]:
        """t = floor(u T); the clip guards against a product that rounds up to T."""
        return jnp.clip(jnp.floor(u * self.num_timesteps).astype(jnp.int32), 0, self.num_timesteps - 1)

    def alpha_sigma(self, u: Float[Array, "*batch"]) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        t = self.timestep(u)
        alphas = jnp.asarray(np.sqrt(self.alphas_cumprod), jnp.float32)
        sigmas = jnp.asarray(np.sqrt(1.0 - self.alphas_cumprod), jnp.float32)
        return alphas[t], sigmas[t]

    def exact_alpha_sigma(
        self, u: Float[np.ndarray, " level"]
    ) -> tuple[Float[np.ndarray, " level"], Float[np.ndarray, " level"]]:
        a = self.alphas_cumprod[np.floor(u * self.num_timesteps).astype(np.int64)]
        return np.sqrt(a), np.sqrt(1.0 - a)

    def loss(
        self,
        predict: base.Predict,
        x0: Float[Array, "batch height width channel"],
        u: Float[Array, " batch"],
        noise: Float[Array, "batch height width channel"],
    ) -> Float[Array, " batch"]:
        """Mean over pixels of the squared error of the prediction (Ho et al. 2020, eq. 14, for epsilon)."""
        alpha, sigma = self.alpha_sigma(u)
        x = base.expand(alpha, x0) * x0 + base.expand(sigma, x0) * noise
        output = predict(x, self.timestep(u).astype(jnp.float32))
        return base.mean_over_pixels(jnp.square(output - base.target(self.prediction, x0, noise, alpha, sigma)))

    def denoise(
        self, predict: base.Predict, x: Float[Array, "batch height width channel"], u: Float[Array, " batch"]
    ) -> Float[Array, "batch height width channel"]:
        alpha, sigma = self.alpha_sigma(u)
        output = predict(x, self.timestep(u).astype(jnp.float32))
        return base.to_x0(self.prediction, output, x, alpha, sigma)

    def sampling_levels(self, steps: int) -> Float[np.ndarray, " step"]:
        """Evenly spaced timesteps from T - 1 to 0, both included (the spacing of improved DDPM's `N` steps).

        Raises:
          ValueError: if steps is outside 1..T.
        """
        if not 1 <= steps <= self.num_timesteps:
            raise ValueError(f"steps = {steps}: choose between 1 and the {self.num_timesteps} timesteps")
        timesteps = np.round(np.linspace(self.num_timesteps - 1, 0, steps))
        return (timesteps + 0.5) / self.num_timesteps
