"""Data sets: where the examples come from, and the pipeline that serves them."""

from diffcurr import lazy

__getattr__ = lazy.modules_of(__name__)
