"""Public PyTorch weights into our networks. Takes arrays by name, as safetensors gives them; no pickle is ever read."""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffcurr.networks.dit import DiT
from diffcurr.networks.embeddings import position_table
from diffcurr.networks.unet import SongUNet

Weights = dict[str, np.ndarray]
Path = tuple[str, ...]


class Source(NamedTuple):
    """Where one of our parameters comes from.

    Attributes:
      names: names of the public arrays: one for each block where our parameter is stacked over blocks, else one.
      transform: a public array -> our layout.
      stacked: whether the arrays are stacked.
    """

    names: tuple[str, ...]
    transform: Callable[[np.ndarray], np.ndarray]
    stacked: bool = False


def load_torch(network: nnx.Module, state_dict: Weights) -> None:
    """Puts the weights of the public DiT, SiT or EDM network into ours, in place.

    Args:
      network: a `DiT`, or a `SongUNet`, of the same sizes. SiT uses DiT's network and ignores the second half of its
        output: with `learn_sigma=False` that half is left out here.
      state_dict: arrays by the names of the public state dict; those of EDM's preconditioned network, which begin
        with `model.`, too.

    Raises:
      ValueError: naming the arrays that are missing, left over, or of another shape or (for fixed tables) other
        values.
    """
    prefix = "model." if state_dict and all(name.startswith("model.") for name in state_dict) else ""
    weights = {name.removeprefix(prefix): np.asarray(array) for name, array in state_dict.items()}
    state = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    ours = {path: np.shape(value) for path, value in nnx.traversals.flatten_mapping(state).items()}
    if isinstance(network, DiT):
        sources = {path: _dit_source(path, network.depth) for path in ours}
        fixed = {"pos_embed": position_table(network.input_size // network.patch_size, network.hidden_size)[None]}
    elif isinstance(network, SongUNet):
        sources = {path: _unet_source(path) for path in ours}
        fixed = _resample_filters(network, weights)
    else:
        raise ValueError(f"{type(network).__name__}: weights can be loaded into DiT and SongUNet")

    wanted = {name for source in sources.values() for name in source.names} | set(fixed)
    frequencies = "map_noise.freqs"
    if isinstance(network, SongUNet) and network.frequencies is not None:
        wanted.add(frequencies)
    missing, left = sorted(wanted - set(weights)), sorted(set(weights) - wanted)
    if missing or left:
        raise ValueError(f"arrays missing: {_listed(missing)}; left over: {_listed(left)}")
    for name, table in fixed.items():
        if weights[name].shape != table.shape or not np.allclose(weights[name], table, atol=1e-5):
            raise ValueError(f"{name}: is another table than this network's")
    loaded: dict[Path, jax.Array] = {}
    for path, source in sources.items():
        parts = [source.transform(weights[name]) for name in source.names]
        value = np.stack(parts) if source.stacked else parts[0]
        if path[0] == "final_linear" and value.shape[-1] == 2 * ours[path][-1]:
            value = _first_half_of_channels(value, network)
        if value.shape != ours[path]:
            raise ValueError(f"{source.names[0]}: gives shape {value.shape}, the network has {ours[path]}")
        loaded[path] = jnp.asarray(value, jnp.float32)
    nnx.update(network, nnx.traversals.unflatten_mapping(loaded))
    if frequencies in wanted and isinstance(network, SongUNet):
        network.frequencies = tuple(float(f) for f in weights[frequencies])


def _first_half_of_channels(array: np.ndarray, network: nnx.Module) -> np.ndarray:
    """Converts the last layer, whose features are ordered (row, column, channel)."""
    assert isinstance(network, DiT)
    by_channel = array.reshape(*array.shape[:-1], network.patch_size**2, 2 * network.out_channels)
    return by_channel[..., : network.out_channels].reshape(*array.shape[:-1], -1)


def _listed(names: list[str], most: int = 8) -> str:
    shown = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
    return shown or "none"


def _kernel(array: np.ndarray) -> np.ndarray:
    """[out, in] -> [in, out]; [out, in, height, width] -> [height, width, in, out]."""
    return array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)


def _patch_kernel(array: np.ndarray) -> np.ndarray:
    """A convolution over whole patches -> a dense layer of (row, column, channel) features."""
    return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])


def _same(array: np.ndarray) -> np.ndarray:
    return array


_DIT_LAYERS = {
    "x_embedder": "x_embedder.proj",
    "t_embedder_in": "t_embedder.mlp.0",
    "t_embedder_out": "t_embedder.mlp.2",
    "y_embedder": "y_embedder.embedding_table",
    "final_modulation": "final_layer.adaLN_modulation.1",
    "final_linear": "final_layer.linear",
    "modulation": "blocks.{}.adaLN_modulation.1",
    "qkv": "blocks.{}.attn.qkv",
    "proj": "blocks.{}.attn.proj",
    "fc1": "blocks.{}.mlp.fc1",
    "fc2": "blocks.{}.mlp.fc2",
}


def _dit_source(path: Path, depth: int) -> Source:
    *_, layer, kind = path
    stacked = path[0] == "blocks"
    suffix = "bias" if kind == "bias" else "weight"
    transforms = {"bias": _same, "embedding": _same, "kernel": _patch_kernel if layer == "x_embedder" else _kernel}
    public = f"{_DIT_LAYERS[layer]}.{suffix}"
    names = tuple(public.format(block) for block in range(depth)) if stacked else (public,)
    return Source(names, transforms[kind], stacked)


def _unet_source(path: Path) -> Source:
    kind = path[-1]
    layer = ".".join(part for part in path[:-1] if part != "conv")
    suffix = "bias" if kind == "bias" else "weight"
    return Source((f"{layer}.{suffix}",), _kernel if kind == "kernel" else _same)


def _resample_filters(network: SongUNet, weights: Weights) -> dict[str, np.ndarray]:
    """Every filter that the public network keeps, with the values that ours has."""
    taps = np.asarray(network.resample_filter, np.float32)
    table = (np.outer(taps, taps) / np.sum(taps) ** 2)[None, None]
    pattern = re.compile(r".*_(up|down)\.(conv0|skip)\.resample_filter|.*_aux_(up|down|residual)\.resample_filter")
    return {name: table for name in weights if pattern.fullmatch(name)}
