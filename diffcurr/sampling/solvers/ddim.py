"""DDIM, and ancestral sampling as its stochastic case."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from diffcurr import ranges
from diffcurr.sampling.solvers.base import Denoise, Step, StepSolver


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIM(StepSolver):
    """DDIM (Song et al. 2021, eq. 12 and 16), written for any (alpha, sigma). One network evaluation a step.

    Attributes:
      eta: the share of the posterior's noise that each step adds; 0 is deterministic.
    """

    eta: ranges.Share = 0.0

    def step(self, denoise: Denoise, x: Array, s: Step, key: PRNGKeyArray, num_steps: int) -> Array:
        return ddim_step(self.eta, denoise, x, s, key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ancestral(StepSolver):
    """Ancestral sampling (Ho et al. 2020): DDIM with eta = 1, whose noise has the posterior's variance.

    Where the network learned the variance, that one is taken.
    """

    def step(self, denoise: Denoise, x: Array, s: Step, key: PRNGKeyArray, num_steps: int) -> Array:
        return ddim_step(1.0, denoise, x, s, key)


def ddim_step(eta: float, denoise: Denoise, x: Array, s: Step, key: PRNGKeyArray) -> Array:
    """One step of DDIM."""
    x0, variance = denoise(x, s.time)
    epsilon = (x - s.alpha * x0) / s.sigma
    # Variance of q(x_t | x_s) and, eta times its root, of the posterior.
    step_variance = jnp.maximum(s.sigma**2 - (s.alpha / s.alpha_next * s.sigma_next) ** 2, 0.0)
    added = eta * (s.sigma_next / s.sigma) * jnp.sqrt(step_variance)
    mean = s.alpha_next * x0 + jnp.sqrt(jnp.maximum(s.sigma_next**2 - added**2, 0.0)) * epsilon
    if not eta:
        return mean
    if variance is not None:  # between the two in logarithm; at the last step there is no noise
        posterior, whole = jnp.maximum(added**2, 1e-30), jnp.maximum(step_variance, 1e-30)
        learned = jnp.exp(0.5 * (variance * jnp.log(whole) + (1.0 - variance) * jnp.log(posterior)))
        added = jnp.where(s.sigma_next > 0, learned, 0.0)
    return mean + added * jax.random.normal(key, x.shape, x.dtype)
