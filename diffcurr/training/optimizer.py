"""The optimizer and its learning rate, from the config's `optimizer` section."""

import dataclasses

import optax

OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("constant", "cosine")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Settings of `optimizer`.

    Attributes:
      name: `adam` or `adamw`.
      learning_rate: its peak.
      warmup_steps: linear rise from 0 over so many steps.
      schedule: `constant` after the warm-up, or `cosine` to 0 at the last step.
      b1, b2, eps: Adam's.
      weight_decay: with `adamw`.
      clip_norm: largest global norm of the gradient; 0 for no clipping.
    """

    name: str = "adam"
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    schedule: str = "constant"
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise ValueError(f"name = {self.name!r}: choose one of {', '.join(OPTIMIZERS)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule = {self.schedule!r}: choose one of {', '.join(SCHEDULES)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate = {self.learning_rate}: must be above 0")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps = {self.warmup_steps}: must be 0 or more")
        if self.weight_decay and self.name == "adam":
            raise ValueError(f"weight_decay = {self.weight_decay}: adam has none; choose name = 'adamw'")
        if self.clip_norm < 0:
            raise ValueError(f"clip_norm = {self.clip_norm}: must be above 0, or 0 for no clipping")


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step, for a run of `steps` steps.

    Raises:
      ValueError: if a cosine schedule has no step left after the warm-up.
    """
    if config.schedule == "constant":
        if not config.warmup_steps:
            return optax.constant_schedule(config.learning_rate)
        return optax.warmup_constant_schedule(0.0, config.learning_rate, config.warmup_steps)
    if config.warmup_steps >= steps:
        raise ValueError(f"warmup_steps = {config.warmup_steps}: must be fewer than the run's {steps} steps")
    return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.warmup_steps, steps)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clipping, then Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019)."""
    rate = learning_rate(config, steps)
    if config.name == "adam":
        update = optax.adam(rate, config.b1, config.b2, config.eps)
    else:
        update = optax.adamw(rate, config.b1, config.b2, config.eps, weight_decay=config.weight_decay)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), update) if config.clip_norm else update
