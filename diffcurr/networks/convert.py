"""Public PyTorch weights into our networks, and ours under public names.

Arrays go by name, as safetensors gives and takes them; no pickle is ever read.
"""

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from flax import nnx

from diffcurr import weights
from diffcurr.networks import dit_names
from diffcurr.networks.dit import DiT
from diffcurr.networks.unet import SongUNet
from diffcurr.networks.unet_blocks import ResamplingConv
from diffcurr.weights import Layout, Path, Source

PREFIX = "model."  # of EDM's network inside its preconditioning
FREQUENCIES = "map_noise.freqs"  # the noise embedding of EDM's network, which is random but not trained

Format = Literal["public", "diffusers"]
"""Whose names: those of the code that a network was published with, or diffusers'. Most networks have one set."""


def load_torch(network: nnx.Module, state_dict: Mapping[str, np.ndarray]) -> None:
    """Puts the weights of a public network into ours, in place.

    Args:
      network: a `DiT`, or a `SongUNet`, of the same sizes, or any module with a method `torch_layout`. SiT uses DiT's
        network and ignores the second half of its output: with `learn_sigma=False` that half is left out here. A DiT
        that is told a text, with `shared_modulation`, is PixArt-alpha's transformer under the names of diffusers; one
        that is told a class may have the names of diffusers too.
      state_dict: arrays by the names of the public state dict; those of EDM's preconditioned network, which begin
        with `model.`, too.

    Raises:
      ValueError: naming the arrays that are missing, left over, of another shape, no floats, not finite, or (for fixed
        tables) of other values. The network is then as it was.
    """
    arrays = {name: np.asarray(array) for name, array in state_dict.items()}
    layout = layout_of(network, arrays)
    if not isinstance(network, SongUNet) or network.frequencies is None:
        weights.load(network, arrays, layout)
        return
    (name,) = (name for name in layout.fixed if name.endswith(FREQUENCIES))
    shape = (len(network.frequencies),)
    found = weights.as_float32(name, arrays.get(name, np.zeros(shape, np.float32)))
    if found.shape != shape:
        raise ValueError(f"{name}: has shape {found.shape}, the network has {shape}")
    weights.load(network, arrays, layout._replace(fixed={**layout.fixed, name: found}))
    network.frequencies = tuple(float(f) for f in found)


def export_torch(network: nnx.Module, format: Format = "public") -> dict[str, np.ndarray]:
    """Our weights by public names, float32: `load_torch` backwards, bit for bit.

    What the public state dict holds beside parameters is there too: tables of positions, filters, frequencies. A part
    that our network lacks (the half of SiT's output that is ignored, a table of classes) is left out.

    Raises:
      ValueError: if there is no public network of this kind.
    """
    return weights.export(weights.arrays_of(network), layout_of(network, format=format))


def layout_of(network: nnx.Module, arrays: Collection[str] = (), format: Format = "public") -> Layout:
    """Where each parameter comes from in public weights.

    Args:
      network: may have shapes for arrays (`nnx.eval_shape`).
      arrays: the public arrays by name, or their names, which tell where one network has several; none to export it.
      format: whose names to take where the arrays do not tell.

    Raises:
      ValueError: if there is no public network of this kind.
    """
    if isinstance(network, DiT):
        return dit_names.layout(network, arrays, diffusers=format == "diffusers")
    if isinstance(network, SongUNet):
        return _unet_layout(network, arrays)
    if hasattr(network, "torch_layout"):
        found: Layout = network.torch_layout(arrays)
        return found
    raise ValueError(f"{type(network).__name__}: says in no method torch_layout how its public weights are named")


def _unet_layout(network: SongUNet, arrays: Collection[str]) -> Layout:
    prefix = PREFIX if all(name.startswith(PREFIX) for name in arrays) else ""
    fixed = _resample_filters(network)
    if network.frequencies is not None:
        fixed[FREQUENCIES] = np.asarray(network.frequencies, np.float32)
    sources = {path: _unet_source(path, prefix) for path in weights.parameters_of(network)}
    return Layout(sources, {prefix + name: table for name, table in fixed.items()})


def _unet_source(path: Path, prefix: str) -> Source:
    kind = path[-1]
    layer = ".".join(str(part) for part in path[:-1] if part != "conv")
    suffix = "bias" if kind == "bias" else "weight"
    return Source((f"{prefix}{layer}.{suffix}",), weights.kernel if kind == "kernel" else weights.same)


def _resample_filters(network: SongUNet) -> dict[str, np.ndarray]:
    """Every filter that the public network keeps, with the values that ours has."""
    taps = np.asarray(network.resample_filter, np.float32)
    table = (np.outer(taps, taps) / np.sum(taps) ** 2)[None, None]
    layers = [(path, layer) for path, layer in nnx.iter_modules(network) if isinstance(layer, ResamplingConv)]
    return {".".join(map(str, (*path, "resample_filter"))): table for path, layer in layers if layer.up or layer.down}
