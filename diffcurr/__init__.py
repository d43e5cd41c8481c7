"""diffcurr: train diffusion models easy-to-hard, in one compiled, sharded JAX step.

Its rooms, `Experiment` and `load_run` are loaded when they are first named: after `import diffcurr`,
`diffcurr.curriculum.clusters.uniform(20)` imports the curriculum and nothing else of the project.
"""

from typing import TYPE_CHECKING, Any

from diffcurr import lazy

if TYPE_CHECKING:
    from diffcurr.experiment import Experiment
    from diffcurr.run import Run, load_run

__version__ = "0.1.0"
__all__ = ["Experiment", "Run", "__version__", "load_run"]

_HOME = {"Experiment": "experiment", "Run": "run", "load_run": "run"}
_module = lazy.modules_of(__name__)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(_module(_HOME[name]), name)
    return _module(name)
