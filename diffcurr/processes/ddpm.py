"""The discrete variance-preserving process of DDPM (Ho et al. 2020) and improved DDPM (Nichol & Dhariwal 2021)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffcurr.processes import base, prediction, weighting
from diffcurr.processes.base import Denoised
from diffcurr.processes.prediction import expand

SCHEDULES = ("linear", "cosine")
PREDICTIONS = ("epsilon", "x0", "v")
DISTRIBUTIONS = ("uniform", "speed")


@dataclasses.dataclass(frozen=True)
class DDPM(base.Process):
    """T discrete timesteps; its native time t = 0..T - 1, and t = T - 1 is (almost) pure noise.

    Attributes:
      schedule: `linear` (beta from 1e-4 to 0.02 at T = 1000, scaled by 1000 / T otherwise, as improved DDPM does) or
        `cosine`.
      prediction: what the network outputs: `epsilon`, `x0` or `v`.
      num_timesteps: T.
      learn_variance: the network also outputs where log variance lies between log beta~ and log beta; the variational
        bound, in bits per dimension, is added to the loss for it alone (Nichol & Dhariwal 2021, eq. 15 and 16, the
        bound not rescaled: the hybrid loss of ADM and DiT).
      weighting: of the squared error: `constant`, `min_snr`, `soft_min_snr`, `p2` (see `processes.weighting`), or
        `speed`.
      weighting_gamma, weighting_k: of the weight; the usual gamma if 0.
      distribution: how t is drawn: `uniform`, or `speed`: SpeeD's asymmetric draw (Wang et al. 2025).
      speed_tau: the timestep from which SpeeD holds that little is left to learn.
      speed_k: with `speed`, timesteps below tau are so many times as likely as those above.
      speed_lambda: with the `speed` weight, below tau the weights are the slopes of sigma_t^2, scaled to
        [1 - lambda, lambda]; above it they are 1.
    """

    schedule: str = "linear"
    prediction: str = "epsilon"
    num_timesteps: int = 1000
    learn_variance: bool = False
    weighting: str = "constant"
    weighting_gamma: float = 0.0
    weighting_k: float = 1.0
    distribution: str = "uniform"
    speed_tau: int = 700
    speed_k: float = 5.0
    speed_lambda: float = 0.6

    def __post_init__(self) -> None:
        base.check_choice("schedule", self.schedule, SCHEDULES)
        base.check_choice("prediction", self.prediction, PREDICTIONS)
        base.check_choice("weighting", self.weighting, (*weighting.WEIGHTINGS, "speed"))
        base.check_choice("distribution", self.distribution, DISTRIBUTIONS)
        smallest = 21 if self.schedule == "linear" else 2  # below, the scaled linear schedule has a beta of 1 or more
        if self.num_timesteps < smallest:
            raise ValueError(
                f"num_timesteps = {self.num_timesteps}: the {self.schedule} schedule needs at least {smallest}"
            )
        if "speed" in (self.distribution, self.weighting):
            if not 0 < self.speed_tau < self.num_timesteps:
                raise ValueError(f"speed_tau = {self.speed_tau}: a timestep between 0 and {self.num_timesteps}")
            if self.speed_k <= 0:
                raise ValueError(f"speed_k = {self.speed_k}: must be above 0")
            if not 0.5 < self.speed_lambda <= 1:
                raise ValueError(f"speed_lambda = {self.speed_lambda}: must lie in (0.5, 1]")
        if self.learn_variance and self.prediction != "epsilon":
            raise ValueError(f"learn_variance: needs prediction = 'epsilon', not {self.prediction!r}")

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
        # Nichol & Dhariwal 2021, eq. 17, with their offset s = 0.008 and betas of at most 0.999.
        f = np.cos((np.arange(self.num_timesteps + 1) / self.num_timesteps + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1.0 - f[1:] / f[:-1], 0.999)

    @functools.cached_property
    def alphas_cumprod(self) -> Float[np.ndarray, " timestep"]:
        """alpha-bar_t = prod_{s <= t} (1 - beta_s), float64."""
        return np.cumprod(1.0 - self.betas)

    @functools.cached_property
    def probabilities(self) -> Float[np.ndarray, " timestep"]:
        """How likely each timestep is drawn.

        SpeeD draws half of a batch from p, k times as likely below tau, and mirrors it, t -> |tau - t|, for the other
        half. Here each t is drawn from the mean of the two distributions, so the halves need not be paired.
        """
        t = np.arange(self.num_timesteps)
        if self.distribution == "uniform":
            return np.full(self.num_timesteps, 1 / self.num_timesteps)
        p = np.where(t < self.speed_tau, self.speed_k, 1.0)
        p /= p.sum()
        mirrored = np.bincount(np.abs(self.speed_tau - t), weights=p, minlength=self.num_timesteps)
        return (p + mirrored) / 2

    @functools.cached_property
    def _cumulative(self) -> Float[np.ndarray, " timestep"]:
        """Probability of the timesteps up to each, itself included."""
        return np.cumsum(self.probabilities)

    def time(self, u: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        (xp, _), dtype = base.libraries(u), u.dtype
        if self.distribution == "uniform":
            t = xp.floor(u * self.num_timesteps)
        else:
            t = xp.searchsorted(xp.asarray(self._cumulative, dtype), u, side="right")
        return xp.clip(t, 0, self.num_timesteps - 1).astype(dtype)  # guards against a product that rounds up to T

    def quantile(self, time: Float[Array | np.ndarray, "*batch"]) -> Float[Array | np.ndarray, "*batch"]:
        xp, _ = base.libraries(time)
        middle = xp.asarray(self._cumulative - self.probabilities / 2, time.dtype)
        return middle[time.astype(xp.int32)]

    def alpha_sigma(
        self, time: Float[Array | np.ndarray, "*batch"]
    ) -> tuple[Float[Array | np.ndarray, "*batch"], Float[Array | np.ndarray, "*batch"]]:
        (xp, _), a = base.libraries(time), self.alphas_cumprod
        t = time.astype(xp.int32)
        return xp.asarray(np.sqrt(a), time.dtype)[t], xp.asarray(np.sqrt(1.0 - a), time.dtype)[t]

    def loss(
        self,
        predict: base.Predict,
        x0: Float[Array, "batch height width channel"],
        u: Float[Array, " batch"],
        noise: Float[Array, "batch height width channel"],
    ) -> Float[Array, " batch"]:
        """Mean over pixels of the squared error of the prediction (Ho et al. 2020, eq. 14, for epsilon), weighted."""
        time = jnp.asarray(self.time(u))
        level = self.level(time)
        x = expand(level.alpha, x0) * x0 + expand(level.sigma, x0) * noise
        output, variance = self._split(predict(x, time))
        error = base.mean_over_pixels(jnp.square(output - prediction.target(self.prediction, x0, noise, level)))
        if self.weighting == "speed":
            error = error * jnp.asarray(self._speed_weights, jnp.float32)[time.astype(jnp.int32)]
        else:
            error = error * weighting.weight(
                self.weighting, self.prediction, level, gamma=self.weighting_gamma, k=self.weighting_k
            )
        if variance is not None:
            error = error + self.bound(jax.lax.stop_gradient(output), variance, x0, x, time)
        return error

    def denoise(
        self, predict: base.Predict, x: Float[Array, "batch height width channel"], time: Float[Array, " batch"]
    ) -> Denoised:
        output, variance = self._split(predict(x, time))
        return Denoised(prediction.to_x0(self.prediction, output, x, self.level(time)), variance)

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
        epsilon: Float[Array, "batch height width channel"],
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
        a, betas = self.alphas_cumprod, self.betas
        before = np.append(1.0, a[:-1])
        posterior = betas * (1.0 - before) / (1.0 - a)
        log_posterior = np.log(np.append(posterior[1], posterior[1:]))  # 0 at t = 0: the next one is taken
        tables = (betas * np.sqrt(before) / (1.0 - a), np.sqrt(1.0 - betas) * (1.0 - before) / (1.0 - a))
        t = time.astype(jnp.int32)

        def at(table: Float[np.ndarray, " timestep"]) -> Array:
            return expand(jnp.asarray(table, jnp.float32)[t], x)

        from_x0, from_x = map(at, tables)
        estimate = prediction.to_x0("epsilon", epsilon, x, self.level(time))
        mean, true_mean = from_x0 * estimate + from_x * x, from_x0 * x0 + from_x * x
        log_variance = variance * at(np.log(betas)) + (1.0 - variance) * at(log_posterior)
        difference = at(log_posterior) - log_variance
        divergence = 0.5 * (
            jnp.exp(difference) - 1.0 - difference + jnp.square(true_mean - mean) * jnp.exp(-log_variance)
        )
        likelihood = _discretised_log_likelihood(x0, mean, 0.5 * log_variance)
        bits = base.mean_over_pixels(jnp.where(expand(time, x) == 0, -likelihood, divergence)) / np.log(2.0)
        return bits.astype(jnp.float32)

    @functools.cached_property
    def _speed_weights(self) -> Float[np.ndarray, " timestep"]:
        slope = np.gradient(1.0 - self.alphas_cumprod)[: self.speed_tau]
        low, high = 1.0 - self.speed_lambda, self.speed_lambda
        scaled = low + (high - low) * (slope - slope.min()) / (slope.max() - slope.min())
        return np.append(scaled, np.ones(self.num_timesteps - self.speed_tau))

    def _split(self, output: Array) -> tuple[Array, Array | None]:
        """(prediction, variance in [0, 1] for outputs in [-1, 1]) of a network's output."""
        if not self.learn_variance:
            return output, None
        output, variance = jnp.split(output, 2, axis=-1)
        return output, (variance + 1.0) / 2.0


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
