"""What a user can ask for; one file a job, each reads top to bottom like a recipe."""

from diffcurr import lazy

__getattr__ = lazy.modules_of(__name__)
