"""What a run trains: the loop, its checkpoints and its guarantees are the same for every task."""

from diffcurr import lazy
from diffcurr.tasks.autoencoder import Autoencoder
from diffcurr.tasks.base import Task
from diffcurr.tasks.diffusion import Diffusion
from diffcurr.tasks.tokenizer import Tokenizer

TASKS: dict[str, type[Task]] = {"diffusion": Diffusion, "autoencoder": Autoencoder, "tokenizer": Tokenizer}
"""`task.name` in a config -> the class."""

__all__ = ["TASKS", "Autoencoder", "Diffusion", "Task", "Tokenizer"]

__getattr__ = lazy.modules_of(__name__)
