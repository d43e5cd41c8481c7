"""Draws where the error still falls."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffcurr import ranges
from diffcurr.curriculum.rules.base import Seen
from diffcurr.curriculum.rules.fitted import Fitted, remembered


class ProgressState(NamedTuple):
    """Two moving averages of each cluster's error of the noise: sums of errors and of examples, the past fading.

    Attributes:
      error, examples: over the last examples.
      old_error, old_examples: over `Progress.lag` times as many.
    """

    error: Float[Array, " cluster"]
    examples: Float[Array, " cluster"]
    old_error: Float[Array, " cluster"]
    old_examples: Float[Array, " cluster"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress(Fitted):
    """Draws a cluster the more, the faster its error falls for the examples spent on it, relative to the error.

    The fall is log(e_old / e) between a long and a short moving average of the error. Both fade with the examples
    seen in the cluster, so it is a fall per example, and being relative it is the same for errors of the noise, of x0
    or of v. Of the weights, the share `floor` is uniform and the rest follows the falls; with no fall above the noise
    of the averages (`least`) they are uniform. So no cluster is ever drawn less than `floor` times as often as without
    the rule.

    Attributes:
      floor: the share of the draws that is the process's own.
      memory: examples of each cluster in the short average.
      lag: length of the long average, as a multiple of `memory`.
      least: added to each fall, so that smaller falls hardly count.
    """

    floor: ranges.Share = 0.5
    memory: ranges.Positive = 1000.0
    lag: ranges.Positive = 4.0
    least: ranges.Positive = 0.02

    def init(self) -> ProgressState:
        return ProgressState(*(jnp.zeros((self.clusters,), jnp.float32) for _ in ProgressState._fields))

    def update(self, state: ProgressState, seen: Seen) -> ProgressState:
        return ProgressState(
            *remembered(state.error, state.examples, seen, self.memory),
            *remembered(state.old_error, state.old_examples, seen, self.lag * self.memory),
        )

    def weights(self, state: ProgressState) -> Float[Array, " cluster"]:
        known = (state.error > 0) & (state.old_error > 0)
        now = jnp.where(known, state.error / jnp.where(known, state.examples, 1.0), 1.0)
        before = jnp.where(known, state.old_error / jnp.where(known, state.old_examples, 1.0), 1.0)
        fall = jnp.maximum(jnp.log(before / now), 0.0) + self.least
        return self.floor + (1.0 - self.floor) * self.relative(fall)
