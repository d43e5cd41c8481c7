"""Weights the loss of each noise level by a variance that is learned with the network."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from diffcurr import ranges
from diffcurr.curriculum.rules.base import Seen
from diffcurr.curriculum.rules.fitted import Fitted


class UncertaintyState(NamedTuple):
    """What is learned.

    Attributes:
      parameters: parameters of the logarithm of each cluster's variance.
      optimizer: moments of Adam.
    """

    parameters: Float[Array, " parameter"]
    optimizer: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncertainty(Fitted):
    """Minimises L / exp(s) + s over the network and over s, the log-variance of a noise level (Kendall et al. 2018).

    At the optimum exp(s) is the mean loss L there, so that every level contributes as much to the gradient. Noise
    levels are drawn as without the rule. The gradient for s needs only each cluster's sum of losses, so it is taken
    here, by Adam.

    Attributes:
      features: 0 for a free s in each cluster (ANT-UW; Go et al. 2023 with 5 uniform clusters); otherwise s is a linear
        function of so many Fourier features of log(sigma / alpha) / 4 at the cluster's centre (EDM2, 128 of them;
        Karras et al. 2024, who take each example's own level: with many clusters the same).
      learning_rate: learning rate of s; the default is ANT-UW's.
      seed: seed of the frequencies and phases of the features.
    """

    features: ranges.Channels = 0
    learning_rate: ranges.Positive = 0.025

    def init(self) -> UncertaintyState:
        parameters = jnp.zeros((self.features or self.clusters,), jnp.float32)
        return UncertaintyState(parameters, self._adam.init(parameters))

    @property
    def _adam(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)

    @property
    def _map(self) -> Float[np.ndarray, "cluster parameter"]:
        """Takes the parameters to s of each cluster."""
        if not self.features:
            return np.eye(self.clusters, dtype=np.float32)
        levels, rng = self.known, np.random.default_rng(self.seed)
        centres = -(levels.averaging @ levels.log_snr) / 8
        frequencies, phases = 2 * np.pi * rng.normal(size=self.features), 2 * np.pi * rng.uniform(size=self.features)
        waves = np.sqrt(2.0) * np.cos(centres[:, None] * frequencies + phases)
        return (waves / np.sqrt(self.features)).astype(np.float32)

    def weights(self, state: UncertaintyState) -> Float[Array, " cluster"]:
        return jnp.ones((self.clusters,), jnp.float32)

    def factors(self, state: UncertaintyState) -> Float[Array, " cluster"]:
        return jnp.exp(-jnp.asarray(self._map) @ state.parameters)

    def update(self, state: UncertaintyState, seen: Seen) -> UncertaintyState:
        total = jnp.maximum(jnp.sum(seen.cluster_count), 1.0)
        of_s = (seen.cluster_count - self.factors(state) * seen.cluster_loss) / total
        updates, optimizer = self._adam.update(of_s @ jnp.asarray(self._map), state.optimizer, state.parameters)
        return UncertaintyState(state.parameters + updates, optimizer)
