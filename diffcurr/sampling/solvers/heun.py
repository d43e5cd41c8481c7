"""Heun's method of second order, with EDM's churn."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Len
from jaxtyping import Array, PRNGKeyArray

from diffcurr import ranges
from diffcurr.processes.base import Process
from diffcurr.processes.edm import EDM
from diffcurr.sampling.solvers.base import Denoise, Step, StepSolver


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heun(StepSolver):
    """Trapezoidal steps, the last an Euler step (Karras et al. 2022, algorithms 1 and 2, where alpha is 1).

    Two network evaluations a step, except at the last.

    Attributes:
      churn: EDM's (S_churn, S_tmin, S_tmax, S_noise), for a process whose native time is sigma; S_churn 0 is
        deterministic. The S_tmax of 1e30 stands for none: JSON has no infinity.
    """

    churn: Annotated[Sequence[ranges.NotNegative], Len(4, 4)] = (0.0, 0.0, 1e30, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "churn", tuple(self.churn))  # hashable

    def check(self, process: Process) -> None:
        if self.churn[0] and not isinstance(process, EDM):
            raise ValueError(f"churn = {self.churn}: needs the process edm")

    def step(self, denoise: Denoise, x: Array, s: Step, key: PRNGKeyArray, num_steps: int) -> Array:
        amount, low, high, noise = self.churn
        time, sigma = s.time, s.sigma
        if amount:
            more = jnp.where((sigma >= low) & (sigma <= high), min(amount / num_steps, 2.0**0.5 - 1.0), 0.0)
            raised = sigma * (1.0 + more)
            spread = noise * jnp.sqrt(jnp.maximum(raised**2 - sigma**2, 0.0))
            x = x + spread * jax.random.normal(key, x.shape, x.dtype)
            time, sigma = raised, raised
        d_alpha, d_sigma = s.alpha_next - s.alpha, s.sigma_next - sigma
        x0 = denoise(x, time).x0
        epsilon = (x - s.alpha * x0) / sigma
        euler = x + d_alpha * x0 + d_sigma * epsilon

        def correct(euler: Array) -> Array:
            x0_next = denoise(euler, s.time_next).x0
            epsilon_next = (euler - s.alpha_next * x0_next) / s.sigma_next
            return x + d_alpha * (x0 + x0_next) / 2 + d_sigma * (epsilon + epsilon_next) / 2

        return jax.lax.cond(s.sigma_next > 0, correct, lambda euler: euler, euler)
