"""Public names of a DiT's parameters: the original's and SiT's, those of diffusers' DiT, and PixArt-alpha's."""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from diffcurr import weights
from diffcurr.networks.dit import DiT
from diffcurr.networks.embeddings import position_table
from diffcurr.weights import Layout, Path, Source, Transform

BLOCKS = "transformer_blocks."  # how names of diffusers begin
Public = str | tuple[str, ...]


class Names(NamedTuple):
    """What one public DiT calls its arrays, with {} for the number of a block.

    Attributes:
      layers: our layer -> its public name, or those that are joined in ours. A layer of ours that is no block's and has
        {} in its public name is repeated there in every block.
      tables: last name of a parameter that is no layer's -> its public name.
      positions: name of the fixed table of positions; "" where files hold none.
    """

    layers: Mapping[str, Public]
    tables: Mapping[str, str] = {}
    positions: str = ""


ORIGINAL = Names(
    {
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
    },
    positions="pos_embed",
)
"""facebookresearch/DiT and willisma/SiT."""

_OF_BLOCKS: dict[str, Public] = {
    "x_embedder": "pos_embed.proj",
    "qkv": tuple(f"transformer_blocks.{{}}.attn1.to_{part}" for part in "qkv"),
    "proj": "transformer_blocks.{}.attn1.to_out.0",
    "fc1": "transformer_blocks.{}.ff.net.0.proj",
    "fc2": "transformer_blocks.{}.ff.net.2",
}

DIFFUSERS = Names(
    _OF_BLOCKS
    | {
        "t_embedder_in": "transformer_blocks.{}.norm1.emb.timestep_embedder.linear_1",
        "t_embedder_out": "transformer_blocks.{}.norm1.emb.timestep_embedder.linear_2",
        "y_embedder": "transformer_blocks.{}.norm1.emb.class_embedder.embedding_table",
        "modulation": "transformer_blocks.{}.norm1.linear",
        "final_modulation": "proj_out_1",
        "final_linear": "proj_out_2",
    }
)
"""diffusers' DiTTransformer2DModel."""

PIXART = Names(
    _OF_BLOCKS
    | {
        "t_embedder_in": "adaln_single.emb.timestep_embedder.linear_1",
        "t_embedder_out": "adaln_single.emb.timestep_embedder.linear_2",
        "shared_modulation": "adaln_single.linear",
        "text_projection.inner": "caption_projection.linear_1",
        "text_projection.outer": "caption_projection.linear_2",
        "text.query": "transformer_blocks.{}.attn2.to_q",
        "text.key_value": tuple(f"transformer_blocks.{{}}.attn2.to_{part}" for part in "kv"),
        "text.proj": "transformer_blocks.{}.attn2.to_out.0",
        "final_linear": "proj_out",
    },
    tables={
        "final_table": "scale_shift_table",
        "modulation_table": "transformer_blocks.{}.scale_shift_table",
    },
)
"""diffusers' PixArtTransformer2DModel, whose files were PixArt-alpha's first to be found under one name."""


def layout(network: DiT, arrays: Collection[str], *, diffusers: bool = False) -> Layout:
    """Where each parameter comes from.

    Args:
      arrays: the public arrays by name, or their names; they tell diffusers' DiT from the original.
      diffusers: take diffusers' names where a DiT has two, whatever the arrays are called.

    Raises:
      ValueError: if no public DiT is built so.
    """
    told_text = network.text_projection is not None
    if told_text != network.shares_modulation:
        raise ValueError(
            "this DiT has no public weights: those that are told a text share one modulation (text_width and "
            "shared_modulation), the others do neither"
        )
    diffusers = diffusers or any(name.startswith(BLOCKS) for name in arrays)
    names = PIXART if told_text else DIFFUSERS if diffusers else ORIGINAL
    sources: dict[Path, Source] = {}
    copies: dict[str, str] = {}
    for path in weights.parameters_of(network):
        public, transform = _public(path, network, names)
        stacked = path[0] == "blocks"
        blocks = range(network.depth if stacked else 1)
        sources[path] = Source(tuple(p.format(b) for b in blocks for p in public), transform, stacked, len(public))
        if not stacked:
            repeated = [p for p in public if "{}" in p]
            copies |= {p.format(b): p.format(0) for p in repeated for b in range(1, network.depth)}
    positions = names.positions or ("pos_embed.pos_embed" if "pos_embed.pos_embed" in arrays else "")  # of older files
    table = position_table(network.input_size // network.patch_size, network.hidden_size)[None]
    fixed = {positions: table} if positions else {}
    return Layout(sources, fixed, copies=copies, notes=tuple(_lacks(network, told_text)))


def _lacks(network: DiT, told_text: bool) -> Iterator[str]:
    """What the public network has and ours has not."""
    if not network.learn_sigma:
        yield "without the half of the output that is a variance: make the public network with learn_sigma=False"
    if network.y_embedder is None and not told_text:
        yield "without a table of classes, y_embedder: the public network must be told none"


def _public(path: Path, network: DiT, names: Names) -> tuple[tuple[str, ...], Transform]:
    """(public names of a parameter, those that are joined in one of ours; how their arrays are changed)."""
    stacked, kind = path[0] == "blocks", str(path[-1])
    if kind in names.tables:
        return (names.tables[kind],), weights.same
    layer = ".".join(map(str, path[stacked:-1]))
    suffix = "bias" if kind == "bias" else "weight"
    kernel = _patch_kernel(network.patch_size) if layer == "x_embedder" else weights.kernel
    transform = {"bias": weights.same, "embedding": weights.same, "kernel": kernel}[kind]
    if layer == "final_linear":
        transform = _first_half_of_channels(transform, network)
    found = names.layers[layer]
    return tuple(f"{name}.{suffix}" for name in ((found,) if isinstance(found, str) else found)), transform


def _first_half_of_channels(inner: Transform, network: DiT) -> Transform:
    """The layout of the last layer, whose features are ordered (row, column, channel).

    Of a layer that is twice as wide, the first half of the channels is taken. The inverse gives what there is.
    """
    width = network.patch_size**2 * network.out_channels

    def half(array: np.ndarray) -> np.ndarray:
        array = inner(array)
        if array.shape[-1:] != (2 * width,):
            return array
        by_channel = array.reshape(*array.shape[:-1], network.patch_size**2, 2 * network.out_channels)
        return by_channel[..., : network.out_channels].reshape(*array.shape[:-1], -1)

    return Transform(half, inner.backward)


def _patch_kernel(side: int) -> Transform:
    """A convolution over whole patches <-> a dense layer of (row, column, channel) features."""

    def dense(array: np.ndarray) -> np.ndarray:
        if array.shape[2:] != (side, side):
            return array
        return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])

    def convolution(array: np.ndarray) -> np.ndarray:
        return array.reshape(side, side, -1, array.shape[-1]).transpose(3, 2, 0, 1)

    return Transform(dense, convolution)
