"""CLIP's vision tower (Radford et al. 2021), and the CLIP score of pictures and texts (Hessel et al. 2021).

Weights are read under Hugging Face's names, from files of the tower alone or of the whole CLIP, such as
`openai/clip-vit-base-patch32`, by which most work measures the score, or `openai/clip-vit-large-patch14`.
"""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from diffcurr import stacked, weights
from diffcurr.errors import concerning
from diffcurr.pretrained import blocks, resizing, text
from diffcurr.weights import Layout

EPSILON = 1e-5  # of the layer norms
WEIGHT = 2.5  # of the score, in Hessel et al. (2021), section 3
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's pixels in [0, 1]
PREFIX, PROJECTION = "vision_model.", "visual_projection"

LAYERS = blocks.CLIP_NAMES | {
    "patches": "embeddings.patch_embedding",
    "class_embedding": "embeddings.class_embedding",
    "positions": "embeddings.position_embedding.weight",
    "pre_norm": "pre_layrnorm",  # so it is spelt in the public files
    "post_norm": "post_layernorm",
    "projection": PROJECTION,
}


class CLIPVision(nnx.Module):
    """Patches -> transformer blocks: images float [B, H, W, 3] to (states [B, 1 + N, D], pooled [B, D or E]).

    Images are square, of side `image_size`, and scaled as by `prepare`; N = (image_size // patch_size)². States are
    those after the last block, the class token's first. `pooled` is the class token's after a norm, projected to
    E = projection_dim numbers, if there is a projection.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        hidden_size: int,
        intermediate_size: int,
        num_layers: int,
        num_heads: int,
        hidden_act: str,
        projection_dim: int = 0,
        *,
        rngs: nnx.Rngs,
    ):
        """
        Args:
          hidden_size: width D; divisible by num_heads.
          intermediate_size: width of each block's MLP.
          hidden_act: "quick_gelu" (OpenAI's networks) or "gelu".
          projection_dim: width of the space that CLIP shares with texts; 0 for no projection.

        Raises:
          ValueError: naming the argument, if the sizes do not fit.
        """
        blocks.check_heads(hidden_size, num_heads)
        blocks.check_activation(hidden_act)
        if image_size < patch_size:
            raise ValueError(f"image_size = {image_size}: must hold a patch of patch_size = {patch_size}")
        self.image_size, self.num_layers = image_size, num_layers
        self.patches = nnx.Conv(
            3,
            hidden_size,
            (patch_size, patch_size),
            strides=patch_size,
            padding="VALID",
            use_bias=False,
            precision=blocks.PRECISION,
            rngs=rngs,
        )
        self.class_embedding = nnx.Param(jnp.zeros(hidden_size))
        number = 1 + (image_size // patch_size) ** 2
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (number, hidden_size)))
        self.pre_norm, self.post_norm = (blocks.layer_norm(hidden_size, epsilon=EPSILON, rngs=rngs) for _ in range(2))
        self.blocks = stacked.stack(
            lambda rngs: blocks.CLIPBlock(hidden_size, intermediate_size, num_heads, hidden_act, EPSILON, rngs),
            num_layers,
            rngs,
        )
        self.projection = (
            blocks.linear(hidden_size, projection_dim, use_bias=False, rngs=rngs) if projection_dim else None
        )

    def __call__(
        self, images_bhwc: Float[Array, "batch height width 3"]
    ) -> tuple[Float[Array, "batch token feature"], Float[Array, "batch pooled"]]:
        if images_bhwc.shape[1:3] != (self.image_size, self.image_size):
            raise ValueError(f"images of shape {images_bhwc.shape}: their sides must be {self.image_size} (`prepare`)")
        x = self.patches(images_bhwc)
        x = x.reshape(len(x), -1, x.shape[-1])
        token_b1d = jnp.broadcast_to(self.class_embedding[...], (len(x), 1, x.shape[-1]))
        x = self.pre_norm(jnp.concatenate([token_b1d, x], axis=1) + self.positions[...])
        states = stacked.scan(self.blocks, x)
        pooled = self.post_norm(states[:, 0])
        return states, pooled if self.projection is None else self.projection(pooled)

    def torch_layout(self, arrays: Collection[str]) -> Layout:
        """Where each parameter comes from (`diffcurr.networks.convert.load_torch`).

        Args:
          arrays: the public arrays by name, or their names, with or without `vision_model.` before them. Those of
            CLIP's text encoder have no use here; nor has the projection, where the network has none.
        """
        prefix = PREFIX if any(name.startswith(PREFIX) for name in arrays) else ""
        sources = blocks.sources(self, LAYERS, self.num_layers, prefix)
        if self.projection is not None:  # it is no part of the tower
            path = ("projection", "kernel")
            sources[path] = sources[path]._replace(names=(f"{PROJECTION}.weight",))
        unused = {name for name in arrays if not _wanted(name)}
        unused |= {f"{PROJECTION}.weight"} if self.projection is None else set()
        return Layout(sources, ignored=frozenset(unused))


def _wanted(name: str) -> bool:
    """Whether an array of CLIP is the vision tower's; tables of numbers of positions are in old files."""
    others = name.startswith(("text_model.", "text_projection.")) or name == "logit_scale"
    return not others and not name.endswith("embeddings.position_ids")


def sizes(folder: text.PathLike) -> dict[str, Any]:
    """The arguments of `CLIPVision` for a folder, from its config.json; the defaults are those of the public code.

    The config is that of the tower, or of the whole CLIP. It does not say whether there is a projection.

    Raises:
      UserError: if it is that of another network.
    """
    files = text.Folder(folder)
    with concerning(str(files.path / text.CONFIG)):
        config = text.section(files.config(), "clip", "vision_config", "clip_vision_model")
        text.check_config(config, {"layer_norm_eps": EPSILON, "num_channels": 3}, "a CLIP")
        found = {
            "image_size": text.whole_number(config, "image_size", 224),
            "patch_size": text.whole_number(config, "patch_size", 32),
            "hidden_size": text.whole_number(config, "hidden_size", 768),
            "intermediate_size": text.whole_number(config, "intermediate_size", 3072),
            "num_layers": text.whole_number(config, "num_hidden_layers", 12),
            "num_heads": text.whole_number(config, "num_attention_heads", 12),
            "hidden_act": config.get("hidden_act", "quick_gelu"),
        }
        blocks.check_activation(found["hidden_act"])
        return found


def load(folder: text.PathLike) -> CLIPVision:
    """The vision tower of a folder, with its projection if the folder has one.

    Raises:
      UserError: naming the file that is missing, cannot be read, or is another network's.
    """
    files = text.Folder(folder)
    found = sizes(folder)
    with concerning(str(files.path)):
        arrays = files.arrays(_wanted)
        projection = np.shape(arrays.get(f"{PROJECTION}.weight", np.zeros((0, 0))))[0]
        network = nnx.eval_shape(lambda: CLIPVision(**found, projection_dim=projection, rngs=nnx.Rngs(0)))
        weights.load(network, arrays, network.torch_layout(arrays))
        return network


def prepare(images: Float[Array, "batch side side channel"], to: int = 224) -> Float[Array, "batch {to} {to} 3"]:
    """Square images in [-1, 1] as CLIP's public code shows them to the network of images of side `to`.

    They are rounded to 0..255, resized as Pillow does it (bicubic, antialiased, rounded after each axis), and scaled by
    the mean and standard deviation of CLIP's pixels. Grey images count as three equal channels.
    """
    return resizing.as_pillow(images, to, MEAN, STD)


def clip_score(
    image_features: Float[Array, "batch feature"] | Float[np.ndarray, "batch feature"],
    text_features: Float[Array, "batch feature"] | Float[np.ndarray, "batch feature"],
    weight: float = WEIGHT,
) -> Float[Array, " batch"]:
    """weight * max(cos, 0) of each picture and its text; the score of a set is the mean.

    Args:
      image_features: `pooled` of `CLIPVision` with its projection.
      text_features: `pooled` of `CLIPText` with its projection. Hessel et al. put "A photo depicts " before each text.
      weight: 2.5 is that of Hessel et al. (2021), eq. 1, whose figures lie near 0.7. Work on pictures from texts takes
        100, the cosine in percent, whose figures lie near 30. Say with a figure which one, and which CLIP.
    """
    image, words = (
        one / jnp.maximum(jnp.linalg.norm(one, axis=1, keepdims=True), 1e-12)
        for one in map(jnp.asarray, (image_features, text_features))
    )
    return weight * jnp.maximum(jnp.sum(image * words, axis=1), 0.0)
