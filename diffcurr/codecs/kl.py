"""The KL autoencoder of latent diffusion (Rombach et al. 2022), with the weights of diffusers' AutoencoderKL."""

import dataclasses
import functools
from collections.abc import Collection, Sequence
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Len
from flax import nnx
from jaxtyping import Array, Float

from diffcurr import ranges
from diffcurr import weights as weights_lib
from diffcurr.codecs import kl_blocks, kl_weights, tiles, weights_file
from diffcurr.codecs.base import Params, WithWeights
from diffcurr.errors import concerning
from diffcurr.pretrained import arrays as arrays_lib
from diffcurr.weights import Layout

LOG_VARIANCES = (-30.0, 20.0)  # they are clipped to these, as in the public network
MOST_BYTES = 2**32  # of a file of weights; Stable Diffusion's has 335 MB
DTYPES = ("float32", "bfloat16")

Widths = Annotated[Sequence[ranges.Width], Len(1, 16)]


class KLAutoencoder(nnx.Module):
    """Pictures <-> Gaussian distributions over latents. Argument names are diffusers'."""

    @ranges.checked
    def __init__(
        self,
        in_channels: ranges.Width = 3,
        block_out_channels: Widths = (128, 256, 512, 512),
        layers_per_block: ranges.Few = 2,
        latent_channels: ranges.Width = 4,
        norm_num_groups: ranges.Width = 32,
        use_quant_conv: bool = True,
        *,
        out_channels: ranges.Channels = 0,
        remat: bool = False,
        dtype: Annotated[str, ranges.OneOf(DTYPES)] = "float32",
        rngs: nnx.Rngs,
    ):
        """
        Args:
          in_channels: channels of a picture.
          block_out_channels: channels at each resolution; each resolution is half the one before.
          layers_per_block: residual blocks of the encoder at each resolution; the decoder has one more.
          latent_channels: channels of a latent.
          norm_num_groups: groups of every normalisation; must divide each of block_out_channels.
          use_quant_conv: whether a 1x1 convolution follows the encoder, and one stands before the decoder.
          out_channels: channels of a decoded picture; 0 for in_channels.
          remat: compute each block again in the backward pass instead of keeping its activations.
          dtype: compute dtype; parameters are float32.

        Raises:
          ValueError: naming the argument, if the sizes do not fit.
        """
        check_groups(norm_num_groups, block_out_channels)
        make = kl_blocks.Maker(jnp.dtype(dtype), norm_num_groups, remat, rngs)
        widths, moments = tuple(block_out_channels), 2 * latent_channels
        self.encoder = kl_blocks.Encoder(in_channels, widths, layers_per_block, moments, make)
        self.decoder = kl_blocks.Decoder(latent_channels, widths, layers_per_block, out_channels or in_channels, make)
        self.quant_conv = make.conv(moments, moments, 1) if use_quant_conv else None
        self.post_quant_conv = make.conv(latent_channels, latent_channels, 1) if use_quant_conv else None

    def encode(
        self, images: Float[Array, "batch height width channel"]
    ) -> tuple[
        Float[Array, "batch latent_height latent_width latent_channel"],
        Float[Array, "batch latent_height latent_width latent_channel"],
    ]:
        """(mean, standard deviation) of the latents of images in [-1, 1], float32."""
        moments = self.encoder(images)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return mean, jnp.exp(0.5 * jnp.clip(log_variance, *LOG_VARIANCES))

    def decode(
        self, latents: Float[Array, "batch latent_height latent_width latent_channel"]
    ) -> Float[Array, "batch height width channel"]:
        """Images, in [-1, 1] up to the error of the model, float32."""
        if self.post_quant_conv is not None:
            latents = self.post_quant_conv(latents)
        return self.decoder(latents).astype(jnp.float32)

    def torch_layout(self, arrays: Collection[str]) -> Layout:
        """Where each parameter comes from in diffusers' weights (`diffcurr.networks.convert.load_torch`)."""
        return kl_weights.layout(weights_lib.parameters_of(self), arrays)


def check_groups(norm_num_groups: int, block_out_channels: Sequence[int]) -> None:
    """
    Raises:
      ValueError: if the channels of some resolution cannot be normalised in so many groups.
    """
    if any(width % norm_num_groups for width in block_out_channels):
        raise ValueError(
            f"norm_num_groups = {norm_num_groups}: must divide each of block_out_channels = {tuple(block_out_channels)}"
        )


def params_of(network: KLAutoencoder) -> Params:
    """The parameters of an autoencoder as a nested dict of arrays, which `KL.encode` and `KL.decode` take."""
    return nnx.to_pure_dict(nnx.state(network, nnx.Param))


@dataclasses.dataclass(frozen=True, kw_only=True)
class KL(WithWeights):
    """The KL autoencoder of latent diffusion; the defaults are Stable Diffusion's sizes.

    A latent is (z - shift - mean) / std * scale, where z is the autoencoder's; standard deviations are divided by std
    and multiplied by scale.

    Attributes:
      weights: path of a safetensors file with diffusers' names (docs/codecs.md says where to get one), or the name of
        one that is shipped: emoji.
      in_channels: channels of a picture.
      block_out_channels: channels at each resolution; each resolution is half the one before.
      layers_per_block: residual blocks of the encoder at each resolution; the decoder has one more.
      latent_channels: channels of a latent.
      norm_num_groups: groups of every normalisation; must divide each of block_out_channels.
      use_quant_conv: whether a 1x1 convolution follows the encoder, and one stands before the decoder.
      scale: what latents are multiplied by.
      shift: what is subtracted from every channel before.
      mean: what is subtracted from each channel before; empty for nothing.
      std: what each channel is divided by before; empty for nothing.
      dtype: compute dtype; weights, latents and pictures are float32.
      tile: pictures with a side of more pixels than this are encoded and decoded in overlapping tiles; 0 for never.
      remat: compute each block again in the backward pass instead of keeping its activations.
    """

    images_at_once: ClassVar[int] = 8

    weights: str = ""
    in_channels: ranges.Width = 3
    block_out_channels: Widths = (128, 256, 512, 512)
    layers_per_block: ranges.Few = 2
    latent_channels: ranges.Width = 4
    norm_num_groups: ranges.Width = 32
    use_quant_conv: bool = True
    scale: ranges.Positive = 0.18215
    shift: float = 0.0
    mean: Sequence[float] = ()
    std: Sequence[ranges.Positive] = ()
    dtype: Annotated[str, ranges.OneOf(DTYPES)] = "float32"
    tile: ranges.Channels = 0
    remat: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("block_out_channels", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # hashable
        check_groups(self.norm_num_groups, self.block_out_channels)
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (0, self.latent_channels):
                raise ValueError(
                    f"{name} = {ranges.shown(getattr(self, name))}: give one number for each of the "
                    f"{self.latent_channels} latent_channels, or none"
                )
        if self.tile and (self.tile % self.factor or self.tile < tiles.OVERLAP * self.factor):
            raise ValueError(
                f"tile = {self.tile}: must be a multiple of {self.factor} pixels, by which sides are divided, and at "
                f"least {tiles.OVERLAP * self.factor}; or 0 for no tiles"
            )

    @property
    def factor(self) -> int:
        """How many pixels of a side become one position of a latent."""
        return 2 ** (len(self.block_out_channels) - 1)

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        height, width, channels = image_shape
        if channels != self.in_channels:
            kind = "grey pictures" if channels == 1 else f"pictures of {channels} channels"
            raise ValueError(
                f"in_channels = {self.in_channels}: {kind} need an autoencoder with in_channels = {channels}, "
                f"and weights that were trained so"
            )
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"pictures of {height}x{width}: an autoencoder of {len(self.block_out_channels)} block_out_channels "
                f"divides sides by {self.factor}: give pictures whose sides are multiples of it"
            )
        return height // self.factor, width // self.factor, self.latent_channels

    @functools.cached_property
    def _split(self) -> tuple[Any, Any]:
        """The network's graph definition, and the shapes of its parameters."""
        graph, params = nnx.split(self._abstract(), nnx.Param)
        return graph, nnx.to_pure_dict(params)

    def make(self, rngs: nnx.Rngs) -> KLAutoencoder:
        """The network with random weights, to be trained."""
        sizes = ("in_channels", "block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups")
        settings = {name: getattr(self, name) for name in (*sizes, "use_quant_conv", "remat", "dtype")}
        return KLAutoencoder(**settings, rngs=rngs)

    def diffusers_config(self, side: int) -> dict[str, Any]:
        """The content of config.json for diffusers' AutoencoderKL.

        Args:
          side: height and width of the pictures, in pixels.
        """
        levels = len(self.block_out_channels)
        return {
            "_class_name": "AutoencoderKL",
            "in_channels": self.in_channels,
            "out_channels": self.in_channels,
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
            "block_out_channels": list(self.block_out_channels),
            "layers_per_block": self.layers_per_block,
            "act_fn": "silu",
            "latent_channels": self.latent_channels,
            "norm_num_groups": self.norm_num_groups,
            "sample_size": side,
            "scaling_factor": float(self.scale),
            "shift_factor": float(self.shift) or None,
            "latents_mean": list(self.mean) or None,
            "latents_std": list(self.std) or None,
            "force_upcast": True,
            "use_quant_conv": self.use_quant_conv,
            "use_post_quant_conv": self.use_quant_conv,
        }

    def _abstract(self) -> KLAutoencoder:
        """The network with shapes for arrays."""
        return nnx.eval_shape(lambda: self.make(nnx.Rngs(0)))

    def abstract_params(self) -> Params:
        return self._split[1]

    def load(self) -> Params:
        arrays, facts = arrays_lib.read(weights_file.path_of(self.weights), MOST_BYTES)
        network = self._abstract()
        # The first use of the weights may stand where nothing else may be moved to a device.
        with concerning(f"codec.weights = {self.weights}"), jax.transfer_guard("allow"):
            self.check_facts(facts)
            weights_lib.load(network, arrays, network.torch_layout(arrays))
            return jax.device_get(params_of(network))

    def encode_with(
        self, params: Params, images: Float[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch *latent"], Float[Array, "batch *latent"]]:
        network = self._network(params)
        moments = self._tiled(lambda x: jnp.concatenate(network.encode(x), axis=-1), images, down=self.factor)
        mean, std = jnp.split(moments, 2, axis=-1)
        offset, unit = self._normalisation
        return (mean - offset) / unit, std / unit

    def decode_with(
        self, params: Params, latents: Float[Array, "batch *latent"]
    ) -> Float[Array, "batch height width channel"]:
        offset, unit = self._normalisation
        return self._tiled(self._network(params).decode, latents * unit + offset, up=self.factor)

    def _network(self, params: Params) -> KLAutoencoder:
        return nnx.merge(self._split[0], params)

    @property
    def _normalisation(self) -> tuple[Float[np.ndarray, " channel"], Float[np.ndarray, " channel"]]:
        """(offset, unit) of each channel: a latent is (z - offset) / unit."""
        mean = np.array(self.mean or [0.0] * self.latent_channels)
        std = np.array(self.std or [1.0] * self.latent_channels)
        return (mean + self.shift).astype(np.float32), (std / self.scale).astype(np.float32)

    def _tiled(self, function: Any, x: Array, *, up: int = 1, down: int = 1) -> Array:
        if not self.tile:
            return function(x)
        return tiles.blended(function, x, self.tile // self.factor, up=up, down=down)

    @property
    def beside_shapes(self) -> dict[str, Any]:
        return {"norm_num_groups": self.norm_num_groups}

    def identity(self) -> dict[str, Any]:
        return {
            "name": "kl",
            "weights": self._digest,
            "scale": float(self.scale),
            "shift": float(self.shift),
            "mean": [float(value) for value in self.mean],
            "std": [float(value) for value in self.std],
        }

    @functools.cached_property
    def _digest(self) -> str:
        return weights_file.digest(self.weights)
