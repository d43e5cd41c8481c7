"""Denoising networks, in Flax NNX. They know no process and carry no sharding."""

from diffcurr import lazy
from diffcurr.networks.base import Network
from diffcurr.networks.dit import DiT
from diffcurr.networks.unet import SongUNet

NETWORKS: dict[str, type[Network]] = {"dit": DiT, "song_unet": SongUNet}
"""`network.name` in a config -> the class."""

__all__ = ["NETWORKS", "DiT", "Network", "SongUNet"]

__getattr__ = lazy.modules_of(__name__)
