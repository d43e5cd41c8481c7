"""What a user can ask for; one file a job, each reads top to bottom like a recipe. No job imports another."""

import importlib
from typing import Any

from diffcurr import lazy

# Modules of this package.
JOBS = ("train", "sample", "evaluate", "analyze", "features", "compare", "plan", "encode", "export", "probe")
WITHOUT_DEVICES = ("plan",)  # they need none of this machine's
OF_ONE_PROCESS = ("features", "compare")

__getattr__ = lazy.modules_of(__name__)


def find(name: str) -> Any:
    """The module of the job of that name; its `run` takes a config and a workdir and returns an exit code."""
    return importlib.import_module(f"{__name__}.{name}")
