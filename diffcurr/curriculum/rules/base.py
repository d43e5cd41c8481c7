"""What a rule is: it decides how densely each cluster is drawn at the next step, from what the last one saw."""

import abc
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffcurr import ranges
from diffcurr.curriculum.levels import Levels


class Seen(NamedTuple):
    """What one step saw; each is a mean or a sum over the global batch, so that every process decides the same.

    Attributes:
      loss: mean training loss; all that the paper's rules need, so that a trainer may leave the others out.
      cluster_loss: float [N]: sum of the training losses of the examples in each cluster.
      cluster_noise_error: float [N]: sum of the mean squared errors of the noise of the examples in each cluster.
      cluster_count: float [N]: number of examples in each cluster.
    """

    loss: Float[Array, ""]
    cluster_loss: Any = None
    cluster_noise_error: Any = None
    cluster_count: Any = None


class Rule(ranges.Checked, abc.ABC):
    """What every rule has. Its settings are static, part of the compiled program; its state is a pytree of arrays."""

    DERIVED: ClassVar[tuple[str, ...]] = ("clusters", "seed")

    @abc.abstractmethod
    def init(self) -> Any:
        """The state before the first step."""

    @abc.abstractmethod
    def weights(self, state: Any) -> Float[Array, " cluster"]:
        """How densely each cluster is drawn at the next step; index 0 is the hardest cluster."""

    def factors(self, state: Any) -> Float[Array, " cluster"] | None:
        """What the loss of each example is multiplied with at the next step, by cluster; None for nothing."""
        del state
        return None

    @abc.abstractmethod
    def update(self, state: Any, seen: Seen) -> Any:
        """The state after a step."""

    def on(self, levels: Levels) -> "Rule":
        """The rule for these clusters and noise levels, for a rule that looks at them.

        Raises:
          ValueError: if it does not fit them.
        """
        del levels
        return self

    @property
    def num_stages(self) -> int:
        """Number of stages, for a rule that has them; in the last one every cluster is active."""
        return 1

    def stage(self, state: Any) -> Int[Array, ""]:
        """The number of the stage, from 1."""
        del state
        return jnp.ones((), jnp.int32)
