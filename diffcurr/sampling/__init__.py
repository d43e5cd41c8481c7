"""Solvers over (alpha, sigma) that serve every process, and guidance."""

from diffcurr import lazy

__getattr__ = lazy.modules_of(__name__)
