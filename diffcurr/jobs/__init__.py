"""What a user can ask for; one file a job, each reads top to bottom like a recipe. No job imports another."""

import importlib
from typing import Any, NamedTuple

from diffcurr import lazy


class Job(NamedTuple):
    """What a job needs of the machine.

    Attributes:
      devices: whether it computes on the devices that are there.
      processes: whether it runs in several processes.
    """

    devices: bool = True
    processes: bool = True


JOBS = {
    "train": Job(),
    "sample": Job(),
    "evaluate": Job(),
    "analyze": Job(),
    "features": Job(processes=False),
    "compare": Job(processes=False),
    "plan": Job(devices=False),
    "encode": Job(),
    "export": Job(),
    "probe": Job(),
}
"""Module of this package -> what the job needs."""

__getattr__ = lazy.modules_of(__name__)


def find(name: str) -> Any:
    """The module of the job of that name; its `run` takes a config and a workdir and returns an exit code."""
    return importlib.import_module(f"{__name__}.{name}")
