"""Public networks in JAX, from their published weights; each is useful alone."""

from diffcurr import lazy

__getattr__ = lazy.modules_of(__name__)
