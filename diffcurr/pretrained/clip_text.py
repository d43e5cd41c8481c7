"""CLIP's text encoder (Radford et al. 2021), which Stable Diffusion and U-ViT tell their networks texts by.

Weights are read under Hugging Face's names, from files of a text encoder alone or of the whole CLIP, such as
`openai/clip-vit-large-patch14`.
"""

from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from diffcurr import stacked, weights
from diffcurr.errors import concerning
from diffcurr.pretrained import blocks, text
from diffcurr.weights import Layout

EPSILON = 1e-5  # of the layer norms
LENGTH = 77  # tokens of every published network
OLD_END = 2  # `eos_token_id` of old configs, in which it means the token of the largest number
PREFIX, PROJECTION = "text_model.", "text_projection"

LAYERS = blocks.CLIP_NAMES | {
    "tokens": "embeddings.token_embedding",
    "positions": "embeddings.position_embedding.weight",
    "norm": "final_layer_norm",
    "projection": PROJECTION,
}


class CLIPText(nnx.Module):
    """Tokens -> causal transformer blocks: ids int [B, L] to (states float [B, L, D], pooled [B, D or projection_dim]).

    States are those after the last norm. `pooled` is the state of a text's first end token, or of its first token where
    there is no end token, as in the public code; projected, if there is a projection. A token looks at itself and at
    those before it, so what fills a text up after its end token changes neither `pooled` nor the states before.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        intermediate_size: int,
        num_layers: int,
        num_heads: int,
        max_positions: int,
        hidden_act: str,
        eos_token_id: int,
        projection_dim: int = 0,
        *,
        rngs: nnx.Rngs,
    ):
        """
        Args:
          hidden_size: width D; divisible by num_heads.
          intermediate_size: width of each block's MLP.
          max_positions: the largest L.
          hidden_act: "quick_gelu" (OpenAI's networks) or "gelu".
          eos_token_id: the end token; 2, as in old configs, for the token of the largest number in each text.
          projection_dim: width of the space that CLIP shares with images; 0 for no projection.

        Raises:
          ValueError: naming the argument, if the sizes do not fit.
        """
        blocks.check_heads(hidden_size, num_heads)
        blocks.check_activation(hidden_act)
        self.num_layers, self.max_positions, self.eos_token_id = num_layers, max_positions, eos_token_id
        self.tokens = nnx.Embed(vocab_size, hidden_size, rngs=rngs)
        self.positions = nnx.Param(0.01 * jax.random.normal(rngs.params(), (max_positions, hidden_size)))
        self.blocks = stacked.stack(
            lambda rngs: blocks.CLIPBlock(hidden_size, intermediate_size, num_heads, hidden_act, EPSILON, rngs),
            num_layers,
            rngs,
        )
        self.norm = blocks.layer_norm(hidden_size, epsilon=EPSILON, rngs=rngs)
        self.projection = (
            blocks.linear(hidden_size, projection_dim, use_bias=False, rngs=rngs) if projection_dim else None
        )

    def __call__(
        self, ids: Int[Array | np.ndarray, "batch token"]
    ) -> tuple[Float[Array, "batch token feature"], Float[Array, "batch pooled"]]:
        ids = jnp.asarray(ids)
        length = ids.shape[1]
        if length > self.max_positions:
            raise ValueError(f"{length} tokens: the network has {self.max_positions} positions")
        x = self.tokens(ids) + self.positions[:length]
        states = self.norm(stacked.scan(self.blocks, x, jnp.tril(jnp.ones((1, 1, length, length), bool))))
        end = jnp.argmax(ids if self.eos_token_id == OLD_END else ids == self.eos_token_id, axis=1)
        pooled = states[jnp.arange(len(ids)), end]
        return states, pooled if self.projection is None else self.projection(pooled)

    def torch_layout(self, arrays: Collection[str]) -> Layout:
        """Where each parameter comes from (`diffcurr.networks.convert.load_torch`).

        Args:
          arrays: the public arrays by name, or their names, with or without `text_model.` before them. Those of CLIP's
            vision tower have no use here; nor has the projection, where the network has none.
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
    """Whether an array of CLIP is the text encoder's; tables of numbers of positions are in old files."""
    others = name.startswith(("vision_model.", "visual_projection.")) or name == "logit_scale"
    return not others and not name.endswith("embeddings.position_ids")


class Encoder(text.Encoder):
    """Texts -> tokens, or features that can be compared with those of images."""

    def features(self, texts: Sequence[str], length: int = LENGTH) -> Float[np.ndarray, "text feature"]:
        """`pooled` of each text, float32 [B, E]; where the folder has the projection, as `clip_vision` compares it."""
        return self._vectors(texts, length)


def sizes(folder: text.PathLike) -> dict[str, Any]:
    """The arguments of `CLIPText` for a folder, from its config.json; the defaults are those of the public code.

    The config is that of a text encoder, or of the whole CLIP. It does not say whether there is a projection.

    Raises:
      UserError: if it is that of another network.
    """
    files = text.Folder(folder)
    with concerning(str(files.path / text.CONFIG)):
        config = text.section(files.config(), "clip", "text_config", "clip_text_model")
        text.check_config(config, {"layer_norm_eps": EPSILON}, "a CLIP")
        found = {
            "vocab_size": text.whole_number(config, "vocab_size", 49408),
            "hidden_size": text.whole_number(config, "hidden_size", 512),
            "intermediate_size": text.whole_number(config, "intermediate_size", 2048),
            "num_layers": text.whole_number(config, "num_hidden_layers", 12),
            "num_heads": text.whole_number(config, "num_attention_heads", 8),
            "max_positions": text.whole_number(config, "max_position_embeddings", LENGTH),
            "hidden_act": config.get("hidden_act", "quick_gelu"),
            "eos_token_id": text.whole_number(config, "eos_token_id", 49407),
        }
        blocks.check_activation(found["hidden_act"])
        return found


def load(folder: text.PathLike, *, batch_size: int = text.BATCH_SIZE) -> Encoder:
    """The encoder of a folder, such as that of `openai/clip-vit-large-patch14`.

    Texts are filled up with the public padding token: the one that the tokenizer's config names (OpenAI's: the end
    token), else the end token.

    Args:
      batch_size: texts that are encoded at a time.

    Raises:
      UserError: naming the file that is missing, cannot be read, or is another network's.
    """
    files = text.Folder(folder)
    found = sizes(folder)
    with concerning(str(files.path)):
        arrays = files.arrays(_wanted)
        projection = np.shape(arrays.get(f"{PROJECTION}.weight", np.zeros((0, 0))))[0]
        network = nnx.eval_shape(lambda: CLIPText(**found, projection_dim=projection, rngs=nnx.Rngs(0)))
        weights.load(network, arrays, network.torch_layout(arrays))
        tokenizer = files.tokenizer()
        return Encoder(
            network,
            lambda network, ids, mask: text.Encoded(*network(ids)),
            tokenizer,
            pad_id=files.token_id("pad_token", tokenizer),
            width=found["hidden_size"],
            vocab_size=found["vocab_size"],
            most=found["max_positions"],
            batch_size=batch_size,
        )
