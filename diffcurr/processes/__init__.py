"""Forward processes: data -> noise, seen through the quantile u of their own training distribution."""

from diffcurr import lazy
from diffcurr.processes.base import Denoised, Losses, Predict, Process
from diffcurr.processes.ddpm import DDPM
from diffcurr.processes.density import DENSITIES, Density
from diffcurr.processes.edm import EDM
from diffcurr.processes.flow import Flow
from diffcurr.processes.prediction import PREDICTIONS, Prediction
from diffcurr.processes.weighting import WEIGHTINGS, NoiseWeighting, Weighting

PROCESSES: dict[str, type[Process]] = {"ddpm": DDPM, "edm": EDM, "flow": Flow}
"""`process.name` in a config -> the class."""

__all__ = [
    "DDPM",
    "DENSITIES",
    "EDM",
    "PREDICTIONS",
    "PROCESSES",
    "WEIGHTINGS",
    "Denoised",
    "Density",
    "Flow",
    "Losses",
    "NoiseWeighting",
    "Predict",
    "Prediction",
    "Process",
    "Weighting",
]

__getattr__ = lazy.modules_of(__name__)
