"""Solvers: from noise to data, through nothing but (alpha, sigma) and a denoiser, so for every process.

All of them walk a grid of noise levels from the noisiest to clean data. With epsilon-hat = (x - alpha x0-hat) / sigma
the probability-flow equation is dx = x0-hat d alpha + epsilon-hat d sigma. Its Euler step is deterministic DDIM; where
alpha is 1 it is EDM's equation in sigma, and on flow matching's linear path that of the velocity in t.
"""

from diffcurr import lazy
from diffcurr.sampling.solvers.adaptive import Adaptive
from diffcurr.sampling.solvers.base import SPACINGS, Denoise, Grid, Solver, make_grid, sample, sampling_times
from diffcurr.sampling.solvers.ddim import DDIM, Ancestral
from diffcurr.sampling.solvers.heun import Heun
from diffcurr.sampling.solvers.sde import SDE

SOLVERS: dict[str, type[Solver]] = {
    "ddim": DDIM,
    "ancestral": Ancestral,
    "heun": Heun,
    "sde": SDE,
    "adaptive": Adaptive,
}
"""`sampling.solver.name` in a config -> the class."""

__all__ = [
    "DDIM",
    "SDE",
    "SOLVERS",
    "SPACINGS",
    "Adaptive",
    "Ancestral",
    "Denoise",
    "Grid",
    "Heun",
    "Solver",
    "make_grid",
    "sample",
    "sampling_times",
]

__getattr__ = lazy.modules_of(__name__)
