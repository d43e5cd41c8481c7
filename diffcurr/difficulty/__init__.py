"""How hard each noise level is: the paper's two observations, measured on the user's own data."""

from diffcurr import lazy

__getattr__ = lazy.modules_of(__name__)
