"""An adaptive solver of order 5."""

import dataclasses
from typing import Annotated, Any

from annotated_types import Interval
from jaxtyping import Array, PRNGKeyArray

from diffcurr.processes.base import Process
from diffcurr.sampling.solvers.base import Denoise, Grid, Solver, check_continuous

MOST_STEPS = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptive(Solver):
    """Dormand and Prince's method from the first level to the last, then one step to clean data.

    All samples that are drawn together share the sizes of the steps, so a sample depends on the others by about the
    tolerance.

    Attributes:
      tolerance: relative tolerance; the absolute one is a thousandth of it. (SiT's own is 1e-3, with which the standard
        deviation of Gaussian samples came out 2 % too large.)
    """

    tolerance: Annotated[float, Interval(ge=1e-6, lt=1)] = 1e-4  # float32 resolves no less

    def check(self, process: Process) -> None:
        check_continuous("adaptive", process)

    def __call__(self, key: PRNGKeyArray, denoise: Denoise, levels: Grid, x: Array) -> Array:
        import diffrax  # only here: it costs a second

        def slope(time: Any, x: Array, args: None) -> Array:
            at = levels.at(time)
            assert at.d_alpha is not None and at.d_sigma is not None
            x0 = denoise(x, time).x0
            return at.d_alpha * x0 + at.d_sigma * (x - at.alpha * x0) / at.sigma

        first, last = levels.time[0], levels.time[-1]
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            diffrax.Dopri5(),
            first,
            last,
            levels.time[1] - first,
            x,
            stepsize_controller=diffrax.PIDController(rtol=self.tolerance, atol=1e-3 * self.tolerance),
            max_steps=MOST_STEPS,
        )
        return denoise(solution.ys[0], last).x0
