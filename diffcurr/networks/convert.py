"""Public PyTorch weights into our networks. Takes arrays by name, as safetensors gives them; no pickle is ever read."""

import functools
from collections.abc import Collection, Mapping

import numpy as np
from flax import nnx

from diffcurr import weights
from diffcurr.networks.dit import DiT
from diffcurr.networks.embeddings import position_table
from diffcurr.networks.unet import SongUNet
from diffcurr.networks.unet_blocks import ResamplingConv
from diffcurr.weights import Layout, Path, Source

FREQUENCIES = "map_noise.freqs"  # the noise embedding of EDM's network, which is random but not trained


def load_torch(network: nnx.Module, state_dict: Mapping[str, np.ndarray]) -> None:
    """Puts the weights of a public network into ours, in place.

    Args:
      network: a `DiT`, or a `SongUNet`, of the same sizes, or any module with a method `torch_layout`. SiT uses DiT's
        network and ignores the second half of its output: with `learn_sigma=False` that half is left out here. A DiT
        that is told a text, with `shared_modulation`, is PixArt-alpha's transformer under the names of diffusers.
      state_dict: arrays by the names of the public state dict; those of EDM's preconditioned network, which begin
        with `model.`, too.

    Raises:
      ValueError: naming the arrays that are missing, left over, of another shape, no floats, not finite, or (for fixed
        tables) of other values. The network is then as it was.
    """
    arrays = {name: np.asarray(array) for name, array in state_dict.items()}
    if isinstance(network, DiT):
        weights.load(network, arrays, _dit_layout(network, arrays))
    elif isinstance(network, SongUNet):
        _load_unet(network, arrays)
    elif hasattr(network, "torch_layout"):
        weights.load(network, arrays, network.torch_layout(arrays))
    else:
        raise ValueError(f"{type(network).__name__}: says in no method torch_layout how its public weights are named")


def _dit_layout(network: DiT, arrays: Collection[str]) -> Layout:
    table = position_table(network.input_size // network.patch_size, network.hidden_size)[None]
    tells_text = network.text_projection is not None
    if tells_text != network.shares_modulation:
        raise ValueError(
            "this DiT has no public weights: those that are told a text share one modulation (text_width and "
            "shared_modulation), the others do neither"
        )
    names, fixed = (_PIXART_LAYERS, "pos_embed.pos_embed") if tells_text else (_DIT_LAYERS, "pos_embed")
    if tells_text and fixed not in arrays:  # newer files leave it out
        return Layout({path: _dit_source(path, network, names) for path in weights.parameters_of(network)})
    return Layout({path: _dit_source(path, network, names) for path in weights.parameters_of(network)}, {fixed: table})


def _load_unet(network: SongUNet, arrays: Mapping[str, np.ndarray]) -> None:
    prefix = "model." if arrays and all(name.startswith("model.") for name in arrays) else ""
    arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    layout = Layout({path: _unet_source(path) for path in weights.parameters_of(network)}, _resample_filters(network))
    if network.frequencies is None:
        weights.load(network, arrays, layout)
        return
    shape = (len(network.frequencies),)
    found = weights.as_float32(FREQUENCIES, arrays.get(FREQUENCIES, np.zeros(shape, np.float32)))
    if found.shape != shape:
        raise ValueError(f"{FREQUENCIES}: has shape {found.shape}, the network has {shape}")
    weights.load(network, arrays, layout._replace(fixed={**layout.fixed, FREQUENCIES: found}))
    network.frequencies = tuple(float(f) for f in found)


def _first_half_of_channels(array: np.ndarray, network: DiT) -> np.ndarray:
    """Converts the last layer, whose features are ordered (row, column, channel), if it has twice the width."""
    width = network.patch_size**2 * network.out_channels
    if array.shape[-1:] != (2 * width,):
        return array
    by_channel = array.reshape(*array.shape[:-1], network.patch_size**2, 2 * network.out_channels)
    return by_channel[..., : network.out_channels].reshape(*array.shape[:-1], -1)


def _patch_kernel(array: np.ndarray, side: int) -> np.ndarray:
    """A convolution over whole patches -> a dense layer of (row, column, channel) features."""
    if array.shape[2:] != (side, side):
        return array
    return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])


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


_PIXART_LAYERS: dict[str, str | tuple[str, ...]] = {
    "x_embedder": "pos_embed.proj",
    "t_embedder_in": "adaln_single.emb.timestep_embedder.linear_1",
    "t_embedder_out": "adaln_single.emb.timestep_embedder.linear_2",
    "shared_modulation": "adaln_single.linear",
    "text_projection.inner": "caption_projection.linear_1",
    "text_projection.outer": "caption_projection.linear_2",
    "qkv": tuple(f"transformer_blocks.{{}}.attn1.to_{part}" for part in "qkv"),
    "proj": "transformer_blocks.{}.attn1.to_out.0",
    "text.query": "transformer_blocks.{}.attn2.to_q",
    "text.key_value": tuple(f"transformer_blocks.{{}}.attn2.to_{part}" for part in "kv"),
    "text.proj": "transformer_blocks.{}.attn2.to_out.0",
    "fc1": "transformer_blocks.{}.ff.net.0.proj",
    "fc2": "transformer_blocks.{}.ff.net.2",
    "final_linear": "proj_out",
}
_PIXART_TABLES = {"final_table": "scale_shift_table", "modulation_table": "transformer_blocks.{}.scale_shift_table"}


def _dit_source(path: Path, network: DiT, layers: Mapping[str, str | tuple[str, ...]]) -> Source:
    stacked, blocks = path[0] == "blocks", range(network.depth)
    if path[-1] in _PIXART_TABLES:
        table = _PIXART_TABLES[str(path[-1])]
        return Source(tuple(table.format(block) for block in blocks) if stacked else (table,), weights.same, stacked)
    layer, kind = ".".join(map(str, path[stacked:-1])), str(path[-1])
    suffix = "bias" if kind == "bias" else "weight"
    of_patches = functools.partial(_patch_kernel, side=network.patch_size)
    kernel = of_patches if layer == "x_embedder" else weights.kernel
    transform = {"bias": weights.same, "embedding": weights.same, "kernel": kernel}[kind]
    found = layers[layer]
    public = [f"{name}.{suffix}" for name in ((found,) if isinstance(found, str) else found)]
    if layer == "final_linear":
        half = functools.partial(_first_half_of_channels, network=network)
        return Source(tuple(public), lambda array: half(transform(array)))
    names = [name.format(block) for block in blocks for name in public] if stacked else public
    return Source(tuple(names), transform, stacked, len(public))


def _unet_source(path: Path) -> Source:
    kind = path[-1]
    layer = ".".join(str(part) for part in path[:-1] if part != "conv")
    suffix = "bias" if kind == "bias" else "weight"
    return Source((f"{layer}.{suffix}",), weights.kernel if kind == "kernel" else weights.same)


def _resample_filters(network: SongUNet) -> dict[str, np.ndarray]:
    """Every filter that the public network keeps, with the values that ours has."""
    taps = np.asarray(network.resample_filter, np.float32)
    table = (np.outer(taps, taps) / np.sum(taps) ** 2)[None, None]
    layers = [(path, layer) for path, layer in nnx.iter_modules(network) if isinstance(layer, ResamplingConv)]
    return {".".join(map(str, (*path, "resample_filter"))): table for path, layer in layers if layer.up or layer.down}
