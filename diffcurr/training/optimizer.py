"""Optimizers, with their learning rates over a run."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Annotated

import optax
from annotated_types import Interval

from diffcurr import ranges

SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "constant": lambda rate, warmup, steps: (
        optax.warmup_constant_schedule(0.0, rate, warmup) if warmup else optax.constant_schedule(rate)
    ),
    "cosine": lambda rate, warmup, steps: optax.warmup_cosine_decay_schedule(0.0, rate, warmup, steps),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(ranges.Checked, abc.ABC):
    """What every optimizer has.

    Attributes:
      learning_rate: the largest during the run.
      warmup_steps: steps of a linear rise from 0.
      schedule: `constant` after the warm-up, or `cosine` to 0 at the last step.
      clip_norm: largest global norm of the gradient; 0 for no clipping.
    """

    learning_rate: ranges.Positive = 1e-4
    warmup_steps: ranges.StepsOrNever = 0
    schedule: Annotated[str, ranges.OneOf(SCHEDULES)] = "constant"
    clip_norm: ranges.NotNegative = 1.0

    def rate(self, steps: int) -> optax.Schedule:
        """The learning rate as a function of the step, for a run of `steps` steps.

        Raises:
          ValueError: if a cosine schedule has no step left after the warm-up.
        """
        if self.schedule == "cosine" and self.warmup_steps >= steps:
            raise ValueError(f"warmup_steps = {self.warmup_steps}: must be fewer than the run's {steps} steps")
        return SCHEDULES[self.schedule](self.learning_rate, self.warmup_steps, steps)

    @abc.abstractmethod
    def update(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """The transformation of a gradient into an update, without clipping."""

    def transformation(self, steps: int) -> optax.GradientTransformation:
        """Clipping, then the update, for a run of `steps` steps."""
        update = self.update(self.rate(steps))
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), update) if self.clip_norm else update


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015).

    Attributes:
      b1, b2: decay rates of the first and second moments.
      eps: added to the root of the second moment.
    """

    b1: ranges.ShareBelowOne = 0.9
    b2: ranges.ShareBelowOne = 0.999
    eps: Annotated[float, Interval(ge=1e-30, le=1)] = 1e-8

    def update(self, rate: optax.Schedule) -> optax.GradientTransformation:
        return optax.adam(rate, self.b1, self.b2, self.eps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    Attributes:
      weight_decay: share of each parameter that is subtracted, times the learning rate.
    """

    weight_decay: ranges.NotNegative = 0.0

    def update(self, rate: optax.Schedule) -> optax.GradientTransformation:
        return optax.adamw(rate, self.b1, self.b2, self.eps, weight_decay=self.weight_decay)


OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "adamw": AdamW}
"""`optimizer.name` in a config -> the class."""
