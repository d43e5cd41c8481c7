"""Draws where the data still tell something, measured by the run itself (InfoNoise, arXiv 2602.18647)."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffcurr import ranges
from diffcurr.curriculum import gating
from diffcurr.curriculum.rules.base import Seen
from diffcurr.curriculum.rules.fitted import Fitted, remembered


class InformationState(NamedTuple):
    """What the run has measured.

    Attributes:
      step: steps taken.
      error: sum of the errors of the noise in each cluster, the past fading.
      examples: number of examples of that sum.
    """

    step: Int[Array, ""]
    error: Float[Array, " cluster"]
    examples: Float[Array, " cluster"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Information(Fitted):
    """Gives each noise level the share of the gradient that its information asks for.

    By the I-MMSE relation (Guo et al. 2005) the information about the data per log-SNR is half the squared error of the
    noise, e, summed over pixels. So the wanted share of the gradient per log-SNR is

        rho = e SNR^-aim g,  g = s^n / (s^n + c^n),  s = sigma / alpha,

    and a cluster's weight is the mean over its levels of rho |d log-SNR / d u|, divided by what the process's own loss
    gives to a unit of e there: the gradient per log-SNR is then the same under every process, prediction and weighting.
    The gate g leaves out levels with so little noise that nothing but the grid of pixel values is left to learn.

    Attributes:
      aim: from likelihood to samples. 0 counts errors of the noise, whose sum bounds the likelihood; 1 counts errors
        of x0, e / SNR, which are largest at the noisiest levels, where sampling begins.
      sharpness: n.
      gate: c; 0 finds it: s of the first cluster, from the clean end, whose e is above `onset` times the largest.
      onset: see `gate`.
      memory: examples of each cluster over which e is averaged.
      warm_up: steps with weights 1.
    """

    aim: ranges.Share = 0.0
    sharpness: ranges.Positive = gating.SHARPNESS
    gate: ranges.NotNegative = 0.0
    onset: ranges.ShareBelowOne = gating.ONSET
    memory: ranges.Positive = 1000.0
    warm_up: ranges.StepsOrNever = 200

    def init(self) -> InformationState:
        zeros = jnp.zeros((self.clusters,), jnp.float32)
        return InformationState(jnp.zeros((), jnp.int32), zeros, zeros.copy())

    def update(self, state: InformationState, seen: Seen) -> InformationState:
        return InformationState(state.step + 1, *remembered(state.error, state.examples, seen, self.memory))

    def weights(self, state: InformationState) -> Float[Array, " cluster"]:
        known = state.examples > 0
        error = state.error / jnp.where(known, state.examples, 1.0)
        weights = self.relative(jnp.where(known, error * self._asked(error, known), 0.0) + jnp.finfo(jnp.float32).tiny)
        # A cluster that was never drawn has no error: it is drawn as the process would.
        return jnp.where(known & (state.step >= self.warm_up), weights, 1.0)

    def _asked(self, error: Float[Array, " cluster"], known: Array) -> Float[Array, " cluster"]:
        """Weight of each cluster for a unit of e."""
        levels = self.known
        ratio = np.exp(-levels.log_snr / 2)
        if self.gate:
            c: gating.Value = self.gate
        else:
            c = gating.onset(error, jnp.asarray(np.exp(-levels.centres / 2), jnp.float32), self.onset, known)
        gate = gating.gate(jnp.asarray(ratio, jnp.float32), c, self.sharpness)
        asked = levels.log_snr_slope * np.exp(-self.aim * levels.log_snr) / levels.noise_weight
        asked /= np.max(asked)
        return jnp.sum(jnp.asarray(levels.averaging, jnp.float32) * gate * jnp.asarray(asked, jnp.float32), axis=1)
