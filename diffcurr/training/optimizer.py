"""Optimizers, with their learning rates over a run."""

import abc
import dataclasses
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp
import optax
from annotated_types import Interval
from jaxtyping import Array, Float, Int

from diffcurr import ranges
from diffcurr.training import muon

SCHEDULES: dict[str, str] = {"constant": "", "cosine": "", "inverse_sqrt": "decay_from", "wsd": "decay_share"}
"""`optimizer.schedule` -> the setting that belongs to it, which the others leave at 0."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(ranges.Checked, abc.ABC):
    """What every optimizer has.

    Class attributes:
      endless: the schedules that do not depend on the number of steps of a run.

    Attributes:
      learning_rate: the largest during the run.
      warmup_steps: steps of a linear rise from 0.
      schedule: `constant` after the warm-up; `cosine` to 0 at the last step; `inverse_sqrt`, constant until the step
        `decay_from` and from there on in proportion to 1 / sqrt(step) (EDM2, Karras et al. 2024); or
        `wsd`, constant and then linear to 0 over the share `decay_share` of all steps (Hu et al. 2024, MiniCPM).
      decay_from: step from which the rate falls, with `inverse_sqrt`; 0 with the other schedules.
      decay_share: share of all steps, at the end, in which the rate falls, with `wsd`; 0 with the other schedules.
      clip_norm: largest global norm of the gradient; 0 for no clipping.
    """

    endless: ClassVar[tuple[str, ...]] = ("constant", "inverse_sqrt")

    learning_rate: ranges.Positive = 1e-4
    warmup_steps: ranges.StepsOrNever = 0
    schedule: Annotated[str, ranges.OneOf(SCHEDULES)] = "constant"
    decay_from: ranges.StepsOrNever = 0
    decay_share: ranges.Share = 0.0
    clip_norm: ranges.NotNegative = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for schedule, setting in SCHEDULES.items():
            value = getattr(self, setting) if setting else 0
            if value and schedule != self.schedule:
                raise ValueError(f"{setting} = {value}: is for schedule = {schedule!r}; give 0 with {self.schedule!r}")
            if setting and not value and schedule == self.schedule:
                raise ValueError(f"{setting} = {value}: schedule = {schedule!r} needs it above 0")
        if self.schedule == "inverse_sqrt" and self.decay_from < self.warmup_steps:
            raise ValueError(
                f"decay_from = {self.decay_from}: must be at least warmup_steps = {self.warmup_steps}, in which the "
                f"learning rate still rises"
            )

    def rate(self, steps: int) -> optax.Schedule:
        """The learning rate as a function of the step, for a run of `steps` steps.

        Raises:
          ValueError: if a schedule that ends with the run has no step left after the warm-up.
        """
        rate, warmup = self.learning_rate, self.warmup_steps
        steady = optax.warmup_constant_schedule(0.0, rate, warmup) if warmup else optax.constant_schedule(rate)
        match self.schedule:
            case "cosine":
                if warmup >= steps:
                    raise ValueError(f"warmup_steps = {warmup}: must be fewer than the run's {steps} steps")
                return optax.warmup_cosine_decay_schedule(0.0, rate, warmup, steps)
            case "inverse_sqrt":

                def falling(step: Int[Array, ""] | int) -> Float[Array, ""]:
                    return steady(step) / jnp.sqrt(jnp.maximum(step / self.decay_from, 1.0))

                return falling
            case "wsd":
                falls = max(1, round(self.decay_share * steps))
                if warmup + falls > steps:
                    raise ValueError(
                        f"decay_share = {self.decay_share}: warmup_steps = {warmup} and {falls} steps in which the "
                        f"rate falls are more than the run's {steps} steps"
                    )
                return optax.join_schedules([steady, optax.linear_schedule(rate, 0.0, falls)], [steps - falls])
        return steady

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon(AdamW):
    """Muon (Jordan et al. 2024) for matrices, made nearly orthogonal each by itself; AdamW for all other parameters.

    Which is which, `diffcurr.training.muon` says: biases, tables and the first and last layers are AdamW's. Updates of
    both have about the same size, so that one learning rate and weight decay serve both (Liu et al. 2025).

    Attributes:
      momentum: decay rate of a matrix's mean gradient.
      rms: root mean square of the elements of a matrix's update at learning rate 1.
    """

    momentum: ranges.ShareBelowOne = 0.95
    rms: ranges.Positive = 0.2

    def update(self, rate: optax.Schedule) -> optax.GradientTransformation:
        settings = {"momentum": self.momentum, "rms": self.rms, "weight_decay": self.weight_decay}
        return muon.muon(rate, super().update(rate), **settings)


def apart(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """The transformation for each part of a dict of parameters by itself, clipping and state too."""

    def init(params: optax.Params) -> dict[str, Any]:
        return {name: transformation.init(part) for name, part in params.items()}

    def update(
        updates: optax.Updates, state: dict[str, Any], params: optax.Params | None = None
    ) -> tuple[optax.Updates, dict[str, Any]]:
        assert params is not None
        moved = {name: transformation.update(updates[name], state[name], params[name]) for name in updates}
        return {name: one for name, (one, _) in moved.items()}, {name: one for name, (_, one) in moved.items()}

    return optax.GradientTransformation(init, update)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adafactor(Optimizer):
    """Adafactor (Shazeer & Stern 2018), by Optax: of a matrix's second moments only means of rows and columns are kept.

    Its updates are as large as Adam's, and not relative to a parameter's size. Decay is decoupled, as AdamW's. Stacked
    blocks count as one parameter where an update's root mean square is limited.

    Attributes:
      momentum: decay rate of the mean gradient, which starts at 0; 0 for none, which saves its memory.
      power: the second moments' decay rate is 1 - step^-power.
      clip_rms: largest root mean square of a parameter's update at learning rate 1.
      factored_from: an array is factored if two of its sides are at least so long.
      weight_decay: share of each parameter that is subtracted, times the learning rate.
    """

    momentum: ranges.ShareBelowOne = 0.9
    power: Annotated[float, Interval(gt=0, le=1)] = 0.8
    clip_rms: ranges.Positive = 1.0
    factored_from: ranges.Width = 128
    weight_decay: ranges.NotNegative = 0.0

    def update(self, rate: optax.Schedule) -> optax.GradientTransformation:
        return optax.chain(
            optax.scale_by_factored_rms(decay_rate=self.power, min_dim_size_to_factor=self.factored_from),
            optax.clip_by_block_rms(self.clip_rms),
            optax.ema(self.momentum, debias=False) if self.momentum else optax.identity(),
            optax.add_decayed_weights(self.weight_decay),
            optax.scale_by_learning_rate(rate),
        )


OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "adamw": AdamW, "muon": Muon, "adafactor": Adafactor}
"""`optimizer.name` in a config -> the class."""
