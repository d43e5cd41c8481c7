"""diffcurr: train diffusion models easy-to-hard, in one compiled, sharded JAX step.

Its rooms and `Experiment` are loaded when they are first named: after `import diffcurr`,
`diffcurr.curriculum.clusters.uniform(20)` imports the curriculum and nothing else.
"""

from typing import TYPE_CHECKING, Any

from diffcurr import lazy

if TYPE_CHECKING:
    from diffcurr.experiment import Experiment

__version__ = "0.1.0"
__all__ = ["Experiment", "__version__"]

_module = lazy.modules_of(__name__)


def __getattr__(name: str) -> Any:
    if name == "Experiment":
        return _module("experiment").Experiment
    return _module(name)
