"""From a config to the parts that it names, checked whole before anything is built."""

from diffcurr.experiment.assembly import from_config
from diffcurr.experiment.experiment import Experiment
from diffcurr.experiment.flops import model_flops, utilisation

__all__ = ["Experiment", "from_config", "model_flops", "utilisation"]
