"""Forward processes: data -> noise, seen through the quantile u of their own training distribution."""

from diffcurr import lazy
from diffcurr.processes.base import Denoised, Predict, Process
from diffcurr.processes.ddpm import DDPM
from diffcurr.processes.edm import EDM
from diffcurr.processes.flow import Flow

PROCESSES: dict[str, type[Process]] = {"ddpm": DDPM, "edm": EDM, "flow": Flow}
"""`process.name` in a config -> the class; its fields are the settings beside the name."""

__all__ = ["DDPM", "EDM", "PROCESSES", "Denoised", "Flow", "Predict", "Process"]

__getattr__ = lazy.modules_of(__name__)
