"""ViT-VQGAN (Yu et al., "Vector-quantized Image Modeling with Improved VQGAN", ICLR 2022): a picture as tokens."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp
import numpy as np
from annotated_types import Interval, MultipleOf
from flax import nnx
from jaxtyping import Array, Float, Int

from diffcurr import ranges
from diffcurr.codecs import weights_file
from diffcurr.codecs.base import Params, WithTokens
from diffcurr.codecs.quantizers import Codebook, FiniteScalar, Quantised, Quantizer
from diffcurr.codecs.vit_blocks import Tower
from diffcurr.errors import concerning
from diffcurr.networks.patches import patchify, unpatchify
from diffcurr.networks.remat import REMAT_POLICIES
from diffcurr.pretrained import arrays as arrays_lib
from diffcurr.weights import as_float32

DTYPES = ("float32", "bfloat16")
MOST_BYTES = 2**33  # of a file of weights; the large size has 2.6 GB
LOWEST, SPAN = 0.1, 0.8  # where logit-Laplace has pixels: 0.1 to 0.9 (Ramesh et al. 2021, appendix A.3)

FourfoldWidth = Annotated[int, Interval(ge=4, le=2**16), MultipleOf(4)]


class ViTVQGAN(nnx.Module):
    """Pictures <-> a grid of vectors, each of which is brought to one of a finite number of codes."""

    def __init__(self, codec: "ViTVQGANCodec", rngs: nnx.Rngs):
        """
        Args:
          codec: settings of the network.
        """
        self.patch_size, self.logit_laplace, self.quantizer = codec.patch_size, codec.logit_laplace, codec.quantizer
        pixels, dim = codec.patch_size**2 * codec.in_channels, codec.quantizer.dim
        shared: dict[str, Any] = {"remat": codec.remat, "scan_unroll": codec.scan_unroll}
        shared["dtype"] = jnp.dtype(codec.dtype)
        self.encoder = Tower(pixels, dim, **codec.sizes("encoder"), **shared, rngs=rngs)
        self.decoder = Tower(dim, pixels * (1 + codec.logit_laplace), **codec.sizes("decoder"), **shared, rngs=rngs)
        learned = codec.quantizer.init(rngs.params())
        self.codebook = None if learned is None else nnx.Param(learned)

    def encode(self, images: Float[Array, "batch height width channel"]) -> Float[Array, "batch row column dim"]:
        """Vectors of images in [-1, 1], confined to where the codes are, float32."""
        batch, height, width, _ = images.shape
        patches = patchify(images, self.patch_size)
        grid = patches.reshape(batch, height // self.patch_size, width // self.patch_size, -1)
        return self.quantizer.confined(self.encoder(grid))

    def quantise(self, vectors: Float[Array, "batch row column dim"]) -> Quantised:
        """The nearest code of each of the vectors."""
        return self.quantizer.quantised(vectors, self._learned)

    def codes(self, tokens: Int[Array, "batch row column"]) -> Float[Array, "batch row column dim"]:
        """The codes of tokens."""
        return self.quantizer.codes(tokens, self._learned)

    def maps(self, codes: Float[Array, "batch row column dim"]) -> Float[Array, "batch height width map"]:
        """What the decoder says of each pixel, float32: its channels; with logit_laplace, behind them log-scales."""
        _, rows, columns, _ = codes.shape
        patches = self.decoder(codes)
        tokens = patches.reshape(len(codes), rows * columns, -1)
        return unpatchify(tokens, self.patch_size, rows * self.patch_size, columns * self.patch_size)

    def picture(self, maps: Float[Array, "batch height width map"]) -> Float[Array, "batch height width channel"]:
        """Images, in [-1, 1] up to the error of the model."""
        if not self.logit_laplace:
            return maps
        location, _ = jnp.split(maps, 2, axis=-1)
        return from_unit(nnx.sigmoid(location))

    def decode(self, codes: Float[Array, "batch row column dim"]) -> Float[Array, "batch height width channel"]:
        """Images, in [-1, 1] up to the error of the model."""
        return self.picture(self.maps(codes))

    @property
    def _learned(self) -> Float[Array, "code dim"] | None:
        return None if self.codebook is None else self.codebook[...]


def into_unit(images: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """[-1, 1] -> [0.1, 0.9], where logits are finite."""
    return LOWEST + SPAN * (images + 1.0) / 2.0


def from_unit(pixels: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The inverse of `into_unit`."""
    return 2.0 * (pixels - LOWEST) / SPAN - 1.0


def params_of(network: nnx.Module) -> Params:
    """The parameters of a network as a nested dict of arrays, which the codec's methods take."""
    return nnx.to_pure_dict(nnx.state(network, nnx.Param))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTVQGANCodec(WithTokens):
    """ViT-VQGAN; the defaults are the paper's small size for pictures of three channels.

    A latent is the grid of vectors, multiplied so that their numbers have a mean square of about 1.

    Attributes:
      weights: path of a safetensors file that the task `tokenizer` wrote.
      in_channels: channels of a picture.
      patch_size: side of a patch, which becomes one token.
      encoder_depth, decoder_depth: blocks.
      encoder_width, decoder_width: width of the blocks; divisible by the heads and by 4.
      encoder_heads, decoder_heads: attention heads of each block.
      encoder_mlp, decoder_mlp: width of the MLP of each block.
      quantizer: the bottleneck.
      latents: whether latents are the vectors `before` the bottleneck, which decoding takes to the nearest codes, or
        the codes `after` it, which are decoded as they are.
      logit_laplace: whether the decoder gives location and log-scale of each pixel's logit-Laplace distribution, and
        the picture follows from the location; otherwise it gives the pixels.
      remat: what the backward pass keeps: `none` (recompute nothing), `dots` (keep weight products), `full`. Other than
        `none`, training also computes the discriminator and the perceptual loss again.
      scan_unroll: blocks written out per iteration of the scan over them.
      dtype: compute dtype; weights, latents and pictures are float32.
    """

    images_at_once: ClassVar[int] = 16

    weights: str = ""
    in_channels: ranges.Width = 3
    patch_size: ranges.Width = 8
    encoder_depth: ranges.Few = 8
    encoder_width: FourfoldWidth = 512
    encoder_heads: ranges.Few = 8
    encoder_mlp: ranges.Width = 2048
    decoder_depth: ranges.Few = 8
    decoder_width: FourfoldWidth = 512
    decoder_heads: ranges.Few = 8
    decoder_mlp: ranges.Width = 2048
    quantizer: Quantizer = Codebook()
    latents: Annotated[str, ranges.OneOf(("before", "after"))] = "before"
    logit_laplace: bool = False
    remat: Annotated[str, ranges.OneOf(REMAT_POLICIES)] = "none"
    scan_unroll: ranges.Few = 1
    dtype: Annotated[str, ranges.OneOf(DTYPES)] = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        for tower in ("encoder", "decoder"):
            width, heads = getattr(self, f"{tower}_width"), getattr(self, f"{tower}_heads")
            if width % heads:
                raise ValueError(f"{tower}_width = {width}: must be divisible by {tower}_heads = {heads}")

    def sizes(self, tower: str) -> dict[str, Any]:
        """Sizes of the encoder or the decoder, as `Tower` takes them."""
        return {name: getattr(self, f"{tower}_{name}") for name in ("depth", "width", "heads", "mlp")}

    @property
    def num_codes(self) -> int:
        return self.quantizer.num_codes

    def token_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int]:
        height, width, channels = image_shape
        if channels != self.in_channels:
            raise ValueError(
                f"in_channels = {self.in_channels}: pictures of {channels} channels need in_channels = {channels}, and "
                f"weights that were trained so"
            )
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"patch_size = {self.patch_size}: must divide the sides of pictures of {height}x{width}")
        return height // self.patch_size, width // self.patch_size

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return *self.token_shape(image_shape), self.quantizer.dim

    def make(self, rngs: nnx.Rngs) -> ViTVQGAN:
        """The network with random weights, to be trained."""
        return ViTVQGAN(self, rngs)

    @functools.cached_property
    def _split(self) -> tuple[Any, Any]:
        """The network's graph definition, and the shapes of its parameters."""
        graph, params = nnx.split(nnx.eval_shape(lambda: self.make(nnx.Rngs(0))), nnx.Param)
        return graph, nnx.to_pure_dict(params)

    def abstract_params(self) -> Params:
        return self._split[1]

    def load(self) -> Params:
        path = weights_file.path_of(self.weights)
        arrays, facts = arrays_lib.read(path, MOST_BYTES)
        flat = nnx.traversals.flatten_mapping(self.abstract_params())
        with concerning(f"codec.weights = {self.weights}"):
            self.check_facts(facts)
            arrays_lib.check(arrays, {_name(way): x.shape for way, x in flat.items()})
            found = {way: as_float32(_name(way), arrays[_name(way)]) for way in flat}
        return nnx.traversals.unflatten_mapping(found)

    def encode_with(
        self, params: Params, images: Float[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch *latent"], None]:
        network = self._network(params)
        vectors = network.encode(images)
        if self.latents == "after":
            vectors = network.quantise(vectors).codes
        return vectors * self.quantizer.scale, None

    def decode_with(
        self, params: Params, latents: Float[Array, "batch *latent"]
    ) -> Float[Array, "batch height width channel"]:
        network, vectors = self._network(params), latents / self.quantizer.scale
        return network.decode(network.quantise(vectors).codes if self.latents == "before" else vectors)

    def tokens_with(
        self, params: Params, images: Float[Array, "batch height width channel"]
    ) -> Int[Array, "batch row column"]:
        network = self._network(params)
        return network.quantise(network.encode(images)).tokens

    def decode_tokens_with(
        self, params: Params, tokens: Int[Array, "batch row column"]
    ) -> Float[Array, "batch height width channel"]:
        network = self._network(params)
        return network.decode(network.codes(tokens))

    def _network(self, params: Params) -> ViTVQGAN:
        return nnx.merge(self._split[0], params)

    @property
    def beside_shapes(self) -> dict[str, Any]:
        heads = {"encoder_heads": self.encoder_heads, "decoder_heads": self.decoder_heads}
        return heads | ({"levels": list(self.quantizer.levels)} if isinstance(self.quantizer, FiniteScalar) else {})

    def identity(self) -> dict[str, Any]:
        return {"name": "vit_vqgan", "weights": self._digest, "latents": self.latents}

    @functools.cached_property
    def _digest(self) -> str:
        return weights_file.digest(self.weights)


def to_bytes(params: Params, facts: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of the weights, as the codec `vit_vqgan` reads it.

    Args:
      params: `params_of(network)`.
      facts: texts that the file holds beside them.
    """
    flat = nnx.traversals.flatten_mapping(params)
    return arrays_lib.to_bytes({_name(way): np.asarray(x) for way, x in flat.items()}, facts)


def _name(way: tuple[str | int, ...]) -> str:
    return ".".join(map(str, way))
