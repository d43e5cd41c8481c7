"""How far samples are from the data: distances, shares, intervals; numbers, no pictures."""

from diffcurr import lazy

__getattr__ = lazy.modules_of(__name__)
