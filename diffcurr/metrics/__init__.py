"""What a run tells its user: numbers, progress, pictures."""

from diffcurr import lazy

__getattr__ = lazy.modules_of(__name__)
