"""Codecs: between the pixels that a person sees and what the process noises."""

from diffcurr import lazy
from diffcurr.codecs.base import Codec
from diffcurr.codecs.identity import Identity

CODECS: dict[str, type[Codec]] = {"identity": Identity}
"""`codec.name` in a config -> the class."""

__all__ = ["CODECS", "Codec", "Identity"]

__getattr__ = lazy.modules_of(__name__)
