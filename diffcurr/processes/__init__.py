"""Forward processes: data -> noise, seen through the quantile u of their own training distribution."""

from diffcurr.processes.base import Predict, Process
from diffcurr.processes.ddpm import DDPM

PROCESSES: dict[str, type[Process]] = {"ddpm": DDPM}
"""`process.name` in a config -> the class; its fields are the settings beside the name."""

__all__ = ["DDPM", "PROCESSES", "Predict", "Process"]
