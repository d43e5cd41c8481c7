"""What a forward process is, and the conversions between what a network may predict."""

import abc
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Predict = Callable[[Float[Array, "batch height width channel"], Float[Array, " batch"]], Array]
"""A network with its parameters and condition bound: (scaled x, time as the network sees it) -> its raw output."""

PREDICTIONS = ("epsilon", "x0", "v")


class Process(abc.ABC):
    """x_u = alpha(u) x0 + sigma(u) noise, for u in [0, 1); alpha/sigma falls in u."""

    @property
    @abc.abstractmethod
    def num_levels(self) -> int:
        """How many equally likely noise levels there are; for a continuous process, how finely to tabulate it."""

    @abc.abstractmethod
    def alpha_sigma(self, u: Float[Array, "*batch"]) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """(alpha(u), sigma(u))."""

    @abc.abstractmethod
    def exact_alpha_sigma(
        self, u: Float[np.ndarray, " level"]
    ) -> tuple[Float[np.ndarray, " level"], Float[np.ndarray, " level"]]:
        """The same in float64 on the host, for what is computed before training."""

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
        self, predict: Predict, x: Float[Array, "batch height width channel"], u: Float[Array, " batch"]
    ) -> Float[Array, "batch height width channel"]:
        """The network's estimate of x0 from x at noise level u."""

    @abc.abstractmethod
    def sampling_levels(self, steps: int) -> Float[np.ndarray, " step"]:
        """The u of each network evaluation of a sampler, from the noisiest to the cleanest."""

    def log_snr(self, u: Float[np.ndarray, " level"]) -> Float[np.ndarray, " level"]:
        """log(alpha(u)^2 / sigma(u)^2), in float64 on the host."""
        alpha, sigma = self.exact_alpha_sigma(u)
        return 2.0 * (np.log(alpha) - np.log(sigma))

    @property
    def learns_variance(self) -> bool:
        """Whether the network outputs a variance beside its prediction, that is, twice the channels."""
        return False

    @property
    def level_midpoints(self) -> Float[np.ndarray, " level"]:
        """The middle of each of the `num_levels` equally likely intervals of u."""
        return (np.arange(self.num_levels) + 0.5) / self.num_levels


def expand(per_example: Float[Array, " batch"], like: Float[Array, "batch *rest"]) -> Float[Array, "batch *_"]:
    """Appends axes of length 1, to broadcast a value per example over its pixels."""
    return per_example.reshape(per_example.shape + (1,) * (like.ndim - 1))


def target(
    prediction: str,
    x0: Float[Array, "batch *rest"],
    noise: Float[Array, "batch *rest"],
    alpha: Float[Array, " batch"],
    sigma: Float[Array, " batch"],
) -> Float[Array, "batch *rest"]:
    """What a network with this parameterisation should output; v = alpha noise - sigma x0 (Salimans & Ho 2022)."""
    if prediction == "epsilon":
        return noise
    if prediction == "x0":
        return x0
    return expand(alpha, x0) * noise - expand(sigma, x0) * x0


def to_x0(
    prediction: str,
    output: Float[Array, "batch *rest"],
    x: Float[Array, "batch *rest"],
    alpha: Float[Array, " batch"],
    sigma: Float[Array, " batch"],
) -> Float[Array, "batch *rest"]:
    """x0 from a network output in any parameterisation; inverse of `target` at x = alpha x0 + sigma noise."""
    if prediction == "epsilon":
        return (x - expand(sigma, x) * output) / expand(alpha, x)
    if prediction == "x0":
        return output
    a, s = expand(alpha, x), expand(sigma, x)
    return (a * x - s * output) / (a**2 + s**2)


def mean_over_pixels(x: Float[Array, "batch *rest"]) -> Float[Array, " batch"]:
    """Mean over every axis but the first, in float32."""
    return jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim)))
