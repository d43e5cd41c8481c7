"""Networks that denoise, or predict tokens, in Flax NNX. They know no process and carry no sharding."""

from diffcurr import lazy
from diffcurr.networks.base import Alignable, Network, TokenNetwork
from diffcurr.networks.dit import DiT
from diffcurr.networks.token_transformer import TokenTransformer
from diffcurr.networks.unet import SongUNet

NETWORKS: dict[str, type[Network] | type[TokenNetwork]] = {
    "dit": DiT,
    "song_unet": SongUNet,
    "token_transformer": TokenTransformer,
}
"""`network.name` in a config -> the class."""

__all__ = ["NETWORKS", "Alignable", "DiT", "Network", "SongUNet", "TokenNetwork", "TokenTransformer"]

__getattr__ = lazy.modules_of(__name__)
