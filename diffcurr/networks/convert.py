"""Public PyTorch weights into our networks. Takes arrays by name, as safetensors gives them; no pickle is ever read."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffcurr.networks.dit import DiT
from diffcurr.networks.embeddings import position_table
from diffcurr.networks.unet import SongUNet
from diffcurr.networks.unet_blocks import ResamplingConv
from diffcurr.weights import as_float32

Weights = dict[str, np.ndarray]
Path = tuple[str, ...]


class Source(NamedTuple):
    """Where one of our parameters comes from.

    Attributes:
      names: names of the public arrays: one for each block where our parameter is stacked over blocks, else one.
      transform: a public array -> our layout; as it is, where it cannot be brought into it.
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
      ValueError: naming the arrays that are missing, left over, of another shape, no floats, not finite, or (for fixed
        tables) of other values. The network is then as it was.
    """
    prefix = "model." if state_dict and all(name.startswith("model.") for name in state_dict) else ""
    weights = {name.removeprefix(prefix): np.asarray(array) for name, array in state_dict.items()}
    state = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    ours = {path: np.shape(value) for path, value in nnx.traversals.flatten_mapping(state).items()}
    if isinstance(network, DiT):
        sources = {path: _dit_source(path, network) for path in ours}
        fixed = {"pos_embed": position_table(network.input_size // network.patch_size, network.hidden_size)[None]}
    elif isinstance(network, SongUNet):
        sources = {path: _unet_source(path) for path in ours}
        fixed = _resample_filters(network)
    else:
        raise ValueError(f"{type(network).__name__}: weights can be loaded into DiT and SongUNet")

    wanted = {name for source in sources.values() for name in source.names} | set(fixed)
    frequencies = "map_noise.freqs"
    own_frequencies = network.frequencies if isinstance(network, SongUNet) else None
    if own_frequencies is not None:
        wanted.add(frequencies)
    missing, left = sorted(wanted - set(weights)), sorted(set(weights) - wanted)
    if missing or left:
        raise ValueError(f"arrays missing: {_listed(missing)}; left over: {_listed(left)}")
    dtypes = {name: array.dtype for name, array in weights.items()}
    weights = {name: as_float32(name, array) for name, array in weights.items()}
    for name, table in fixed.items():
        precision = max(1e-5, float(jnp.finfo(dtypes[name]).eps))  # files in half precision round the tables too
        if weights[name].shape != table.shape or not np.allclose(weights[name], table, atol=precision):
            raise ValueError(f"{name}: is another table than this network's")
    loaded: dict[Path, jax.Array] = {}
    for path, source in sources.items():
        parts = [source.transform(weights[name]) for name in source.names]
        if path[0] == "final_linear":
            parts = [_first_half_of_channels(parts[0], network, ours[path][-1])]
        shape = ours[path][1:] if source.stacked else ours[path]
        for name, part in zip(source.names, parts, strict=True):
            if part.shape != shape:
                raise ValueError(f"{name}: gives shape {part.shape}, the network has {shape}")
        loaded[path] = jnp.asarray(np.stack(parts) if source.stacked else parts[0])
    if isinstance(network, SongUNet) and own_frequencies is not None:
        found = weights[frequencies]
        if found.shape != (len(own_frequencies),):
            raise ValueError(f"{frequencies}: has shape {found.shape}, the network has ({len(own_frequencies)},)")
        network.frequencies = tuple(float(f) for f in found)
    nnx.update(network, nnx.traversals.unflatten_mapping(loaded))


def _first_half_of_channels(array: np.ndarray, network: nnx.Module, width: int) -> np.ndarray:
    """Converts the last layer, whose features are ordered (row, column, channel), if it has twice the width."""
    if array.shape[-1:] != (2 * width,):
        return array
    assert isinstance(network, DiT)
    by_channel = array.reshape(*array.shape[:-1], network.patch_size**2, 2 * network.out_channels)
    return by_channel[..., : network.out_channels].reshape(*array.shape[:-1], -1)


def _listed(names: list[str], most: int = 8) -> str:
    shown = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
    return shown or "none"


def _kernel(array: np.ndarray) -> np.ndarray:
    """[out, in] -> [in, out]; [out, in, height, width] -> [height, width, in, out]."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _patch_kernel(array: np.ndarray, side: int) -> np.ndarray:
    """A convolution over whole patches -> a dense layer of (row, column, channel) features."""
    if array.shape[2:] != (side, side):
        return array
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


def _dit_source(path: Path, network: DiT) -> Source:
    *_, layer, kind = path
    stacked = path[0] == "blocks"
    suffix = "bias" if kind == "bias" else "weight"
    of_patches = functools.partial(_patch_kernel, side=network.patch_size)
    transforms = {"bias": _same, "embedding": _same, "kernel": of_patches if layer == "x_embedder" else _kernel}
    public = f"{_DIT_LAYERS[layer]}.{suffix}"
    names = tuple(public.format(block) for block in range(network.depth)) if stacked else (public,)
    return Source(names, transforms[kind], stacked)


def _unet_source(path: Path) -> Source:
    kind = path[-1]
    layer = ".".join(part for part in path[:-1] if part != "conv")
    suffix = "bias" if kind == "bias" else "weight"
    return Source((f"{layer}.{suffix}",), _kernel if kind == "kernel" else _same)


def _resample_filters(network: SongUNet) -> dict[str, np.ndarray]:
    """Every filter that the public network keeps, with the values that ours has."""
    taps = np.asarray(network.resample_filter, np.float32)
    table = (np.outer(taps, taps) / np.sum(taps) ** 2)[None, None]
    layers = [(path, layer) for path, layer in nnx.iter_modules(network) if isinstance(layer, ResamplingConv)]
    return {".".join(map(str, (*path, "resample_filter"))): table for path, layer in layers if layer.up or layer.down}
