"""What a run trains: the loop, its checkpoints and its guarantees are the same for every task."""

from diffcurr import lazy
from diffcurr.tasks.autoencoder import Autoencoder
from diffcurr.tasks.base import Task
from diffcurr.tasks.diffusion import Diffusion
from diffcurr.tasks.sampled import Sampled
from diffcurr.tasks.tokenizer import Tokenizer
from diffcurr.tasks.tokens import Tokens

TASKS: dict[str, type[Task]] = {
    "diffusion": Diffusion,
    "autoencoder": Autoencoder,
    "tokenizer": Tokenizer,
    "tokens": Tokens,
}
"""`task.name` in a config -> the class."""

__all__ = ["TASKS", "Autoencoder", "Diffusion", "Sampled", "Task", "Tokenizer", "Tokens"]

__getattr__ = lazy.modules_of(__name__)
