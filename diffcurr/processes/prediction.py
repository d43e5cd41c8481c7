"""What a network may predict, and the conversions between all of it: each is a linear combination of x0 and noise.

At a noise level x = alpha x0 + sigma noise, and a network's output stands for o = a x0 + b noise. The two equations
give x0 and noise back from (x, o) whatever the prediction.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

PREDICTIONS = ("epsilon", "x0", "v", "velocity", "score")


class Level(NamedTuple):
    """One noise level for each example.

    Attributes:
      alpha, sigma: x = alpha x0 + sigma noise.
      d_alpha, d_sigma: their derivatives in the process's native time; only `velocity` needs them.
    """

    alpha: Float[Array, "*batch"]
    sigma: Float[Array, "*batch"]
    d_alpha: Float[Array, "*batch"] | None = None
    d_sigma: Float[Array, "*batch"] | None = None


def expand(per_example: Float[Array, "*batch"], like: Float[Array, "batch *rest"]) -> Float[Array, "batch *_"]:
    """Appends axes of length 1, to broadcast a value per example over its pixels."""
    return per_example.reshape(per_example.shape + (1,) * (like.ndim - 1))


def coefficients(prediction: str, level: Level) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """(a, b) of o = a x0 + b noise.

    `v` is Salimans & Ho 2022's, alpha noise - sigma x0; `velocity` is flow matching's, d x / d time; `score` is
    the gradient of log p(x | x0), -noise / sigma.

    Raises:
      ValueError: for another prediction.
    """
    zero, one = jnp.zeros_like(level.sigma), jnp.ones_like(level.sigma)
    if prediction == "epsilon":
        return zero, one
    if prediction == "x0":
        return one, zero
    if prediction == "v":
        return -level.sigma, level.alpha
    if prediction == "velocity":
        if level.d_alpha is None or level.d_sigma is None:
            raise ValueError("velocity: this process gives no derivatives of alpha and sigma")
        return level.d_alpha, level.d_sigma
    if prediction == "score":
        return zero, -1.0 / level.sigma
    raise ValueError(f"prediction = {prediction!r}: choose one of {', '.join(PREDICTIONS)}")


def target(
    prediction: str, x0: Float[Array, "batch *rest"], noise: Float[Array, "batch *rest"], level: Level
) -> Float[Array, "batch *rest"]:
    """What a network with this prediction should output."""
    a, b = coefficients(prediction, level)
    if prediction == "epsilon":
        return noise
    if prediction == "x0":
        return x0
    return expand(a, x0) * x0 + expand(b, x0) * noise


def to_x0(
    prediction: str, output: Float[Array, "batch *rest"], x: Float[Array, "batch *rest"], level: Level
) -> Float[Array, "batch *rest"]:
    """x0 from an output; inverse of `target` at x = alpha x0 + sigma noise."""
    a, b = coefficients(prediction, level)
    determinant = level.alpha * b - level.sigma * a
    return (expand(b, x) * x - expand(level.sigma, x) * output) / expand(determinant, x)


def to_noise(
    prediction: str, output: Float[Array, "batch *rest"], x: Float[Array, "batch *rest"], level: Level
) -> Float[Array, "batch *rest"]:
    """The noise from an output."""
    a, b = coefficients(prediction, level)
    determinant = level.alpha * b - level.sigma * a
    return (expand(level.alpha, x) * output - expand(a, x) * x) / expand(determinant, x)


def convert(
    output: Float[Array, "batch *rest"], x: Float[Array, "batch *rest"], level: Level, *, source: str, to: str
) -> Float[Array, "batch *rest"]:
    """An output of one prediction as that of another."""
    return target(to, to_x0(source, output, x, level), to_noise(source, output, x, level), level)


def squared_error_factor(prediction: str, level: Level) -> Float[Array, " batch"]:
    """|error of noise|^2 / |error of the output|^2 at the same x: 1 / (b - a sigma / alpha)^2."""
    a, b = coefficients(prediction, level)
    return 1.0 / jnp.square(b - a * level.sigma / level.alpha)
