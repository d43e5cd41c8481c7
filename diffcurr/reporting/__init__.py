"""What a user reads of a run: figures, progress, log files, the texts of reports."""

from diffcurr import lazy

__getattr__ = lazy.modules_of(__name__)
