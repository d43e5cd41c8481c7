"""The discrete variance-preserving process of DDPM (Ho et al. 2020) and improved DDPM (Nichol & Dhariwal 2021)."""

import dataclasses
import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # loads its modules when they are named
from annotated_types import Interval
from jaxtyping import Array, Float

from diffcurr import ranges
from diffcurr.processes import base
from diffcurr.processes.density import array_module
from diffcurr.processes.prediction import Epsilon, Level, expand

SCHEDULES = ("linear", "cosine", "sqrt_linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPM(base.Process):
    """T discrete timesteps; its native time t = 0..T - 1, and t = T - 1 is (almost) pure noise.

    Attributes:
      schedule: `linear` (beta from 1e-4 to 0.02 at T = 1000, scaled by 1000 / T otherwise, as improved DDPM does),
        `cosine`, or `sqrt_linear` (sqrt(beta) linear, beta from 0.00085 to 0.012: Rombach et al. 2022, for latents).
      num_timesteps: T.
      learn_variance: the network also outputs where log variance lies between log beta~ and log beta; the variational
        bound, in bits per dimension, is added to the loss for it alone (Nichol & Dhariwal 2021, eq. 15 and 16, the
        bound not rescaled: the hybrid loss of ADM and DiT).
    """

    schedule: Annotated[str, ranges.OneOf(SCHEDULES)] = "linear"
    num_timesteps: Annotated[int, Interval(ge=2, le=2**16)] = 1000
    learn_variance: bool = False

    def __post_init__(self) -> None:
        ranges.Checked.__post_init__(self)
        if self.schedule == "linear" and self.num_timesteps < 21:  # the scaled schedule has a beta of 1 or more
            raise ValueError(f"num_timesteps = {self.num_timesteps}: the linear schedule needs at least 21")
        if self.learn_variance and not isinstance(self.prediction, Epsilon):
            raise ValueError("learn_variance: needs prediction = 'epsilon'")
        super().__post_init__()

    @property
    def num_levels(self) -> int:
        return self.num_timesteps

    @property
    def learns_variance(self) -> bool:
        return self.learn_variance

    @functools.cached_property
    def betas(self) -> Float[np.ndarray, " timestep"]:
        """beta_t, the noise variance added at each timestep, float64."""
        if self.schedule == "linear":
            scale = 1000 / self.num_timesteps
            return np.linspace(1e-4 * scale, 0.02 * scale, self.num_timesteps)
        if self.schedule == "sqrt_linear":
            return np.linspace(0.00085**0.5, 0.012**0.5, self.num_timesteps) ** 2
        # Nichol & Dhariwal 2021, eq. 17, with their offset s = 0.008 and betas of at most 0.999.
        f = np.cos((np.arange(self.num_timesteps + 1) / self.num_timesteps + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1.0 - f[1:] / f[:-1], 0.999)

    @functools.cached_property
    def alphas_cumprod(self) -> Float[np.ndarray, " timestep"]:
        """alpha-bar_t = prod_{s <= t} (1 - beta_s), float64."""
        return np.cumprod(1.0 - self.betas)

    def path_time(self, q: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        xp = array_module(q)
        t = xp.floor(q * self.num_timesteps)
        return xp.clip(t, 0, self.num_timesteps - 1).astype(q.dtype)  # guards against a product that rounds up to T

    def path_share(self, time: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        return (time + 0.5) / self.num_timesteps

    def alpha_sigma(
        self, time: Float[Array | np.ndarray, "*batch"]
    ) -> tuple[Float[Array | np.ndarray, "*batch"], Float[Array | np.ndarray, "*batch"]]:
        xp, a = array_module(time), self.alphas_cumprod
        t = time.astype(xp.int32)
        return xp.asarray(np.sqrt(a), time.dtype)[t], xp.asarray(np.sqrt(1.0 - a), time.dtype)[t]

    def time_at(self, log_snr: Float[np.ndarray, " level"]) -> Float[np.ndarray, " level"]:
        known = np.log(self.alphas_cumprod) - np.log1p(-self.alphas_cumprod)
        self._check_range(log_snr, known[-1:], known[:1])
        return np.interp(-log_snr, -known, np.arange(self.num_timesteps, dtype=np.float64))

    def level_at(self, log_snr: Float[np.ndarray, " level"]) -> Level:
        self.time_at(log_snr)  # which refuses what is out of range
        return Level(np.sqrt(scipy.special.expit(log_snr)), np.sqrt(scipy.special.expit(-log_snr)))

    @property
    def clean_time(self) -> float:
        return -1.0

    def sampling_times(self, steps: int, last_step: float = 0.0) -> Float[np.ndarray, " step"]:
        """Evenly spaced timesteps from T - 1 to 0, both included (the spacing of improved DDPM's `N` steps)."""
        base.check_no_last_step(last_step)
        if not 1 <= steps <= self.num_timesteps:
            raise ValueError(f"steps = {steps}: choose between 1 and the {self.num_timesteps} timesteps")
        return np.round(np.linspace(self.num_timesteps - 1, 0, steps))

    def bound(
        self,
        output: Float[Array, "batch height width channel"],
        variance: Float[Array, "batch height width channel"],
        x0: Float[Array, "batch height width channel"],
        x: Float[Array, "batch height width channel"],
        time: Float[Array, " batch"],
    ) -> Float[Array, " batch"]:
        """The variational bound's term of each timestep in bits per dimension (Nichol & Dhariwal 2021, eq. 4 to 7).

        D_KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)); at t = 0 the negative log-likelihood of x0's pixel values, which
        are multiples of 2 / 255 from -1.

        Args:
          variance: 0 for log variance log beta~, 1 for log beta.
        """
        epsilon = jax.lax.stop_gradient(output)  # the bound trains the variance alone
        a, betas = self.alphas_cumprod, self.betas
        before = np.append(1.0, a[:-1])
        posterior = betas * (1.0 - before) / (1.0 - a)
        log_posterior = np.log(np.append(posterior[1], posterior[1:]))  # 0 at t = 0: the next one is taken
        tables = (betas * np.sqrt(before) / (1.0 - a), np.sqrt(1.0 - betas) * (1.0 - before) / (1.0 - a))
        t = time.astype(jnp.int32)

        def at(table: Float[np.ndarray, " timestep"]) -> Array:
            return expand(jnp.asarray(table, jnp.float32)[t], x)

        from_x0, from_x = map(at, tables)
        estimate = self.prediction.to_x0(epsilon, x, self.level(time))
        mean, true_mean = from_x0 * estimate + from_x * x, from_x0 * x0 + from_x * x
        log_variance = variance * at(np.log(betas)) + (1.0 - variance) * at(log_posterior)
        difference = at(log_posterior) - log_variance
        divergence = 0.5 * (
            jnp.exp(difference) - 1.0 - difference + jnp.square(true_mean - mean) * jnp.exp(-log_variance)
        )
        likelihood = _discretised_log_likelihood(x0, mean, 0.5 * log_variance)
        bits = base.mean_over_pixels(jnp.where(expand(time, x) == 0, -likelihood, divergence)) / np.log(2.0)
        return bits.astype(jnp.float32)


def _discretised_log_likelihood(
    x: Float[Array, "*shape"], mean: Float[Array, "*shape"], log_scale: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Log-probability of the bin of width 2 / 255 around x under a Gaussian; the outermost bins are open.

    With ADM's approximation of the normal distribution function, which its public losses contain.
    """

    def cdf(z: Array) -> Array:
        return 0.5 * (1.0 + jnp.tanh(np.sqrt(2.0 / np.pi) * (z + 0.044715 * z**3)))

    def log(p: Array) -> Array:
        return jnp.log(jnp.maximum(p, 1e-12))

    upper = cdf(jnp.exp(-log_scale) * (x - mean + 1.0 / 255.0))
    lower = cdf(jnp.exp(-log_scale) * (x - mean - 1.0 / 255.0))
    return jnp.where(x < -0.999, log(upper), jnp.where(x > 0.999, log(1.0 - lower), log(upper - lower)))
