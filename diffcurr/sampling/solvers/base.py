"""What a solver is, and the grid of noise levels that it walks."""

import abc
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from diffcurr import ranges
from diffcurr.processes.base import Denoised, Process
from diffcurr.processes.prediction import Level

Denoise = Callable[[Float[Array, "batch *shape"], Float[Array, ""]], Denoised]
"""(x, native time) -> the estimate of x0 at one noise level for the whole batch."""


class Grid(NamedTuple):
    """A grid of noise levels from the noisiest to clean data.

    Attributes:
      time: native times at which the network is evaluated.
      alpha, sigma: one entry more than `time`; the last is clean data, (1, 0).
      length: length of each step in native time; the last one leads to clean data.
      at: the noise level at any native time.
    """

    time: Float[Array, " step"]
    alpha: Float[Array, " step+1"]
    sigma: Float[Array, " step+1"]
    length: Float[Array, " step"]
    at: Callable[[Float[Array, "*batch"]], Level]


SPACINGS = ("process", "log_snr")
LEAST_LOG_SNR = -12.0  # of a level that is spaced evenly: a path may begin at minus infinity


def sampling_times(
    process: Process, steps: int, last_step: float = 0.0, spacing: str = "process"
) -> Float[np.ndarray, " step"]:
    """The native time of each network evaluation, from the noisiest to the cleanest, float64.

    Args:
      last_step: length of the last step in native time, where the process lets it be chosen; its own choice if 0.
      spacing: `process`, or `log_snr`: evenly in log-SNR between the first and the last level of the process's grid. A
        discrete process takes the nearest timesteps, each once, and so may take fewer.

    Raises:
      ValueError: for a number of steps that the process cannot make.
    """
    time = process.sampling_times(steps, last_step)
    if spacing == "process" or steps < 3:
        return time
    alpha, sigma = process.alpha_sigma(time[[0, -1]])
    with np.errstate(divide="ignore"):
        low, high = 2.0 * (np.log(alpha) - np.log(sigma))
    even = process.time_at(np.linspace(max(low, LEAST_LOG_SNR), high, steps)[1:-1])
    even = np.asarray(process.path_time(process.path_share(even)))  # of a discrete process the nearest timestep
    whole = np.concatenate([time[:1], even, time[-1:]])
    _, kept = np.unique(whole, return_index=True)
    return whole[np.sort(kept)]


def make_grid(process: Process, steps: int, last_step: float = 0.0, spacing: str = "process") -> Grid:
    """The grid of `sampling_times`."""
    time = sampling_times(process, steps, last_step, spacing)
    alpha, sigma = process.alpha_sigma(time)
    length = jnp.abs(jnp.diff(jnp.asarray(time), append=process.clean_time))
    alpha, sigma = jnp.append(jnp.asarray(alpha), 1.0), jnp.append(jnp.asarray(sigma), 0.0)
    grid = [part.astype(jnp.float32) for part in (jnp.asarray(time), alpha, sigma, length)]
    return Grid(grid[0], grid[1], grid[2], grid[3], process.level)


class Step(NamedTuple):
    """Moves samples from one level to the next."""

    time: Float[Array, "*step"]
    time_next: Float[Array, "*step"]
    alpha: Float[Array, "*step"]
    sigma: Float[Array, "*step"]
    alpha_next: Float[Array, "*step"]
    sigma_next: Float[Array, "*step"]
    length: Float[Array, "*step"]


class Solver(ranges.Checked, abc.ABC):
    """Takes noise to data."""

    def check(self, process: Process) -> None:
        """Raises ValueError if the solver does not fit a process."""
        del process

    @abc.abstractmethod
    def __call__(
        self, key: PRNGKeyArray, denoise: Denoise, levels: Grid, x: Float[Array, "batch *shape"]
    ) -> Float[Array, "batch *shape"]:
        """x at the first level -> clean data. Jit-able.

        Args:
          key: random key of the noise that is added between levels.
        """


class StepSolver(Solver):
    """A solver that goes from each level to the next by one rule, in one scan."""

    @abc.abstractmethod
    def step(self, denoise: Denoise, x: Array, s: Step, key: PRNGKeyArray, num_steps: int) -> Array:
        """x at the next level."""

    def __call__(self, key: PRNGKeyArray, denoise: Denoise, levels: Grid, x: Array) -> Array:
        num_steps = levels.time.shape[0]
        inputs = (
            Step(
                time=levels.time,
                # The last is never evaluated: there sigma_next = 0.
                time_next=jnp.append(levels.time[1:], levels.time[-1]),
                alpha=levels.alpha[:-1],
                sigma=levels.sigma[:-1],
                alpha_next=levels.alpha[1:],
                sigma_next=levels.sigma[1:],
                length=levels.length,
            ),
            jax.random.split(key, num_steps),
        )
        return jax.lax.scan(lambda x, at: (self.step(denoise, x, *at, num_steps), None), x, inputs)[0]


def sample(
    key: PRNGKeyArray, denoise: Denoise, levels: Grid, shape: tuple[int, ...], solver: Solver
) -> Float[Array, "batch *shape"]:
    """Draws samples of the given shape. Jit-able."""
    key_first, key_steps = jax.random.split(key)
    x = levels.sigma[0] * jax.random.normal(key_first, shape, jnp.float32)
    return solver(key_steps, denoise, levels, x)


def check_continuous(name: str, process: Process) -> None:
    """Raises ValueError if a process has no continuous time."""
    if process.level(np.ones(1)).d_alpha is None:
        raise ValueError(f"solver = {name!r}: needs continuous time, which {type(process).__name__} lacks")
