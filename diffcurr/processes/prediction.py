"""What a network may predict, and the conversions between all of it: each is a linear combination of x0 and noise.

At a noise level x = alpha x0 + sigma noise, and a network's output stands for o = a x0 + b noise. The two equations
give x0 back from (x, o) whatever the prediction.
"""

import dataclasses
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffcurr import ranges
from diffcurr.processes.density import array_module

PerExample: TypeAlias = Float[Array, " batch"] | Float[np.ndarray, " batch"]


class Level(NamedTuple):
    """One noise level for each example, float [batch], NumPy's or JAX's.

    Attributes:
      alpha, sigma: x = alpha x0 + sigma noise.
      d_alpha, d_sigma: their derivatives in the process's native time, where it is continuous.
    """

    alpha: Any
    sigma: Any
    d_alpha: Any = None
    d_sigma: Any = None


def expand(per_example: Any, like: Float[Array, "batch *rest"]) -> Float[Array, "batch *_"]:
    """Appends axes of length 1 to float [batch], to broadcast a value per example over its pixels."""
    return per_example.reshape(per_example.shape + (1,) * (like.ndim - 1))


class Prediction(ranges.Checked):
    """A prediction o = a x0 + b noise, trained by its own squared error."""

    def coefficients(self, level: Level) -> tuple[PerExample, PerExample]:
        """(a, b) of o = a x0 + b noise."""
        raise NotImplementedError

    def check(self, level: Level) -> None:
        """
        Args:
          level: the noisiest of a process.

        Raises:
          ValueError: if x0 does not follow from the prediction there.
        """
        a, b = self.coefficients(level)
        if bool(np.any(level.alpha * b - level.sigma * a == 0.0)):
            raise ValueError(
                f"{type(self).__name__}: x0 does not follow from it where alpha = 0; choose velocity, v or x0"
            )

    def inputs(
        self, x: Float[Array, "batch *rest"], time: Float[Array, " batch"], level: Level
    ) -> tuple[Float[Array, "batch *rest"], Float[Array, " batch"]]:
        """x and time as the network sees them."""
        del level
        return x, time

    def target(
        self, x0: Float[Array, "batch *rest"], noise: Float[Array, "batch *rest"], level: Level
    ) -> Float[Array, "batch *rest"]:
        """What the network should output."""
        a, b = self.coefficients(level)
        return expand(a, x0) * x0 + expand(b, x0) * noise

    def to_x0(
        self, output: Float[Array, "batch *rest"], x: Float[Array, "batch *rest"], level: Level
    ) -> Float[Array, "batch *rest"]:
        """x0 from an output; inverse of `target` at x = alpha x0 + sigma noise."""
        a, b = self.coefficients(level)
        determinant = level.alpha * b - level.sigma * a
        return (expand(b, x) * x - expand(level.sigma, x) * output) / expand(determinant, x)

    def error(
        self,
        output: Float[Array, "batch *rest"],
        x: Float[Array, "batch *rest"],
        x0: Float[Array, "batch *rest"],
        noise: Float[Array, "batch *rest"],
        level: Level,
    ) -> Float[Array, "batch *rest"]:
        """The error whose square is trained on."""
        del x
        return output - self.target(x0, noise, level)

    def noise_factor(self, level: Level) -> Float[Array, " batch"]:
        """|error of the noise|^2 / |the error that is trained on|^2 at the same x: 1 / (b - a sigma / alpha)^2."""
        a, b = self.coefficients(level)
        return 1.0 / jnp.square(b - a * level.sigma / level.alpha)

    def output_factor(self, level: Level) -> Float[Array, " batch"]:
        """|error of the network's output|^2 / |the error that is trained on|^2 at the same x."""
        return jnp.ones_like(level.sigma)


@dataclasses.dataclass(frozen=True)
class Epsilon(Prediction):
    """The noise (Ho et al. 2020)."""

    def coefficients(self, level: Level) -> tuple[PerExample, PerExample]:
        xp = array_module(level.sigma)
        return xp.zeros_like(level.sigma), xp.ones_like(level.sigma)

    def target(self, x0: Array, noise: Array, level: Level) -> Array:
        return noise


@dataclasses.dataclass(frozen=True)
class X0(Prediction):
    """The clean data."""

    def coefficients(self, level: Level) -> tuple[PerExample, PerExample]:
        xp = array_module(level.sigma)
        return xp.ones_like(level.sigma), xp.zeros_like(level.sigma)

    def target(self, x0: Array, noise: Array, level: Level) -> Array:
        return x0


@dataclasses.dataclass(frozen=True)
class V(Prediction):
    """alpha noise - sigma x0 (Salimans & Ho 2022)."""

    def coefficients(self, level: Level) -> tuple[PerExample, PerExample]:
        return -level.sigma, level.alpha


@dataclasses.dataclass(frozen=True)
class Velocity(Prediction):
    """d x / d time of a continuous process (flow matching; Lipman et al. 2023)."""

    def coefficients(self, level: Level) -> tuple[PerExample, PerExample]:
        if level.d_alpha is None or level.d_sigma is None:
            raise ValueError("prediction 'velocity': needs continuous time; choose epsilon, x0 or v")
        return level.d_alpha, level.d_sigma


@dataclasses.dataclass(frozen=True)
class Score(Prediction):
    """The gradient of log p(x | x0), -noise / sigma (Song et al. 2021)."""

    def coefficients(self, level: Level) -> tuple[PerExample, PerExample]:
        return array_module(level.sigma).zeros_like(level.sigma), -1.0 / level.sigma


@dataclasses.dataclass(frozen=True)
class Preconditioned(Prediction):
    """EDM's preconditioning (Karras et al. 2022, table 1), for alpha = 1.

    The network F is seen through D(x) = c_skip x + c_out F(c_in x, log(sigma) / 4); the error is that of D to x0.

    Attributes:
      sigma_data: standard deviation of the data.
    """

    sigma_data: ranges.Positive = 0.5

    def check(self, level: Level) -> None:
        if bool(np.any(level.alpha != 1.0)):
            raise ValueError("prediction 'preconditioned': is for processes with alpha = 1, such as edm")

    def _scales(self, level: Level) -> tuple[Array, Array, Array]:
        """(c_skip, c_out, c_in)."""
        variance = level.sigma**2 + self.sigma_data**2
        c_in = jax.lax.rsqrt(variance)
        return self.sigma_data**2 / variance, level.sigma * self.sigma_data * c_in, c_in

    def inputs(self, x: Array, time: Array, level: Level) -> tuple[Array, Array]:
        _, _, c_in = self._scales(level)
        return expand(c_in, x) * x, jnp.log(level.sigma) / 4.0

    def to_x0(self, output: Array, x: Array, level: Level) -> Array:
        c_skip, c_out, _ = self._scales(level)
        return expand(c_skip, x) * x + expand(c_out, x) * output

    def error(self, output: Array, x: Array, x0: Array, noise: Array, level: Level) -> Array:
        return self.to_x0(output, x, level) - x0

    def noise_factor(self, level: Level) -> Float[Array, " batch"]:
        return 1.0 / jnp.square(level.sigma)

    def output_factor(self, level: Level) -> Float[Array, " batch"]:
        return (level.sigma**2 + self.sigma_data**2) / jnp.square(level.sigma * self.sigma_data)


PREDICTIONS: dict[str, type[Prediction]] = {
    "epsilon": Epsilon,
    "x0": X0,
    "v": V,
    "velocity": Velocity,
    "score": Score,
    "preconditioned": Preconditioned,
}
"""`process.prediction.name` in a config -> the class."""
