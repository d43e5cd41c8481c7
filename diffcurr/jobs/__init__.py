"""What a user can ask for; one file a job, each reads top to bottom like a recipe. No job imports another."""

import importlib
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from diffcurr import lazy

JOBS = ("train", "sample", "evaluate", "analyze", "features", "compare", "plan")  # modules of this package

__getattr__ = lazy.modules_of(__name__)


def start(name: str, config: ConfigDict, workdir: epath.PathLike, **arguments: Any) -> int:
    """Runs the job of that name. Returns its exit code."""
    return importlib.import_module(f"{__name__}.{name}").run(config, workdir, **arguments)
