"""The train step and what surrounds it: state, randomness, sharding, optimizer, checkpoints."""

from diffcurr import lazy

__getattr__ = lazy.modules_of(__name__)
