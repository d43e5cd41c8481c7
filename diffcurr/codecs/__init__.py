"""Codecs: between the pixels that a person sees and what the process noises."""

from diffcurr import lazy
from diffcurr.codecs.base import Codec, WithTokens
from diffcurr.codecs.identity import Identity
from diffcurr.codecs.kl import KL
from diffcurr.codecs.quantizers import QUANTIZERS
from diffcurr.codecs.vit_vqgan import ViTVQGANCodec

CODECS: dict[str, type[Codec]] = {"identity": Identity, "kl": KL, "vit_vqgan": ViTVQGANCodec}
"""`codec.name` in a config -> the class."""

__all__ = ["CODECS", "KL", "QUANTIZERS", "Codec", "Identity", "ViTVQGANCodec", "WithTokens"]

__getattr__ = lazy.modules_of(__name__)
