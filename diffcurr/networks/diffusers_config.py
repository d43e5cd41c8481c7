"""A DiT as a model of diffusers: the class and the settings that make the same network there."""

from typing import Any, NamedTuple

from flax import nnx

from diffcurr import weights
from diffcurr.networks.dit import DiT

MLP_RATIO = 4  # of diffusers' transformers, where it is no setting


class Model(NamedTuple):
    """A network in diffusers.

    Attributes:
      pipeline: name of the pipeline that samples it.
      config: the content of its config.json.
      others: parts of the pipeline that come from elsewhere.
      notes: what differs from ours, a sentence each.
    """

    pipeline: str
    config: dict[str, Any]
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


FREQUENCIES = (
    "diffusers' DiT spaces the frequencies of its time embedding differently, which no setting changes: set "
    "block.norm1.emb.time_proj.downscale_freq_shift = 0 in each block of transformer.transformer_blocks"
)


def model(network: nnx.Module) -> Model:
    """What makes a network in diffusers; its weights are `convert.export_torch(network, "diffusers")`.

    Args:
      network: may have shapes for arrays.

    Raises:
      ValueError: if diffusers has no such network.
    """
    if not isinstance(network, DiT):
        raise ValueError(f"diffusers has no {type(network).__name__}: give --format=public")
    shapes = weights.parameters_of(network)
    width, inner = network.hidden_size, shapes["blocks", "fc1", "kernel"][-1]
    if inner != MLP_RATIO * width:
        raise ValueError(f"mlp_ratio = {inner / width:g}: is always {MLP_RATIO} in diffusers: give --format=public")
    heads = network.blocks.num_heads
    config = {
        "num_attention_heads": heads,
        "attention_head_dim": width // heads,
        "in_channels": shapes["x_embedder", "kernel"][0] // network.patch_size**2,
        "out_channels": network.out_channels,
        "num_layers": network.depth,
        "sample_size": network.input_size,
        "patch_size": network.patch_size,
        "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
    }
    if network.text_projection is not None:
        text = {
            "_class_name": "PixArtTransformer2DModel",
            "norm_type": "ada_norm_single",
            "cross_attention_dim": width,
            "caption_channels": shapes["text_projection", "inner", "kernel"][0],
            "interpolation_scale": 1,
            "use_additional_conditions": False,
        }
        return Model("PixArtAlphaPipeline", text | config, ("tokenizer", "text_encoder"))
    if network.y_embedder is None:
        raise ValueError("diffusers' DiT is told a class, and this network is told nothing: give --format=public")
    labels = {
        "_class_name": "DiTTransformer2DModel",
        "norm_type": "ada_norm_zero",
        "num_embeds_ada_norm": shapes["y_embedder", "embedding"][0] - 1,  # its table has a row more, for "no class"
    }
    return Model("DiTPipeline", labels | config, notes=(FREQUENCIES,))
