"""SiT's reverse stochastic equation."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from diffcurr.processes.base import Process
from diffcurr.sampling.solvers.base import Denoise, Step, StepSolver, check_continuous


@dataclasses.dataclass(frozen=True, kw_only=True)
class SDE(StepSolver):
    """Euler-Maruyama steps of SiT's reverse equation with w = sigma, the last the mean (Ma et al. 2024, section 3).

    x + (v + w score) dt + sqrt(2 w dt) z, where w score = -epsilon-hat. One network evaluation a step.
    """

    def check(self, process: Process) -> None:
        check_continuous("sde", process)

    def step(self, denoise: Denoise, x: Array, s: Step, key: PRNGKeyArray, num_steps: int) -> Array:
        x0 = denoise(x, s.time).x0
        epsilon = (x - s.alpha * x0) / s.sigma
        mean = x + (s.alpha_next - s.alpha) * x0 + (s.sigma_next - s.sigma - s.length) * epsilon
        spread = jnp.where(s.sigma_next > 0, jnp.sqrt(2.0 * s.sigma * s.length), 0.0)
        return mean + spread * jax.random.normal(key, x.shape, x.dtype)
