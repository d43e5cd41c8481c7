"""Denoising networks, in Flax NNX. They know no process and carry no sharding."""

from diffcurr import lazy
from diffcurr.networks.dit import DiT
from diffcurr.networks.unet import SongUNet

NETWORKS = {"dit": DiT, "song_unet": SongUNet}
"""`network.name` in a config -> the class; its keyword arguments are the settings beside the name."""

__all__ = ["NETWORKS", "DiT", "SongUNet"]

__getattr__ = lazy.modules_of(__name__)
