"""How different two pictures look: the distance of their features in a network that was trained to tell classes."""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jaxtyping import Array, Float

from diffcurr import ranges
from diffcurr.errors import UserError, concerning
from diffcurr.metrics.features import SHIPPED
from diffcurr.pretrained import arrays as arrays_lib
from diffcurr.pretrained import vgg
from diffcurr.pretrained.classifier import Classifier, from_arrays

Params = Any

SHORTEST = 1e-6  # squared length that is added before features are divided by their length


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perceptual(ranges.Checked, abc.ABC):
    """Settings of the loss, and the network that it looks through. Compiled programs take its weights as an input.

    Attributes:
      weight: what the distance is multiplied by; 0 for no such loss, and then nothing is read.
      weights: path of a file with the network's weights.
    """

    weight: ranges.NotNegative = 0.1
    weights: str = ""

    @abc.abstractmethod
    def abstract_params(self, shape: tuple[int, int, int]) -> Params:
        """Shapes of the weights for pictures of (height, width, channels). Reads nothing."""

    @abc.abstractmethod
    def load(self, shape: tuple[int, int, int], dataset: str) -> Params:
        """The weights, as NumPy arrays.

        Args:
          shape: shape of a picture.
          dataset: name of the data set.

        Raises:
          UserError: if they cannot be read, or are for other pictures.
        """

    @abc.abstractmethod
    def layers(self, params: Params, images: Float[Array, "batch height width channel"]) -> list[Array]:
        """Features of images in [-1, 1] at several depths, each [batch, rows, columns, features]."""

    def distance(
        self,
        params: Params,
        images: Float[Array, "batch height width channel"],
        others: Float[Array, "batch height width channel"],
    ) -> Float[Array, " batch"]:
        """Squared distance of features of length 1, averaged over positions, added up over layers.

        It is that of Zhang et al. 2018 (equation 1), with a weight of 1 for every feature.
        """
        found = jnp.zeros(len(images))
        pairs = zip(self.layers(params, images), self.layers(params, others), strict=True)
        for one, other in pairs:
            squares = jnp.sum(jnp.square(_directions(one) - _directions(other)), axis=-1)
            found = found + jnp.mean(squares, axis=(1, 2))
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfClassifier(Perceptual):
    """The convolutions of a classifier of `--job=features`; the one that is shipped for the data set if none is named.

    Its pictures must have the size of the data set's.
    """

    def abstract_params(self, shape: tuple[int, int, int]) -> Params:
        graph = nnx.eval_shape(lambda: Classifier(max(shape[:2]), shape[-1], 1, rngs=nnx.Rngs(0)))
        return nnx.to_pure_dict(nnx.state(graph, nnx.Param))["convs"]

    def load(self, shape: tuple[int, int, int], dataset: str) -> Params:
        path = epath.Path(self.weights).expanduser() if self.weights else SHIPPED / f"{dataset}.safetensors"
        if not self.weights and not path.exists():
            raise UserError(
                f"task.perceptual: no classifier is shipped for dataset {dataset}; train one (--job=features) and name "
                f"its file as task.perceptual.weights, or set task.perceptual.weight to 0"
            )
        arrays, facts = arrays_lib.read(path)
        with concerning(str(path)), jax.transfer_guard("allow"):
            network = from_arrays(arrays, facts)
            found = jax.device_get(nnx.to_pure_dict(nnx.state(network, nnx.Param)))["convs"]
            ours, wanted = (jax.tree.map(lambda x: tuple(x.shape), one) for one in (found, self.abstract_params(shape)))
            if ours != wanted:
                raise ValueError(f"holds a classifier of other pictures than those of {shape}")
        return found

    def layers(self, params: Params, images: Float[Array, "batch height width channel"]) -> list[Array]:
        x, found = images, []
        for number in sorted(params):
            stride = 1 if number == 0 else 2
            x = _convolved(x, params[number], stride)
            found.append(x)
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfVGG(Perceptual):
    """VGG16's last rectifier of each stage. `weights` is a safetensors file with torchvision's names; none is shipped.

    The pictures' sides must be at least 16 pixels.
    """

    def abstract_params(self, shape: tuple[int, int, int]) -> Params:
        if min(shape[:2]) < 16 or shape[-1] not in (1, 3):
            raise ValueError(f"perceptual.name = 'vgg16': is for grey or coloured pictures from 16x16 on, not {shape}")
        return vgg.abstract_params()

    def load(self, shape: tuple[int, int, int], dataset: str) -> Params:
        if not self.weights:
            raise UserError(
                "task.perceptual.weights is empty: give a safetensors file of VGG16 with torchvision's names "
                "(docs/tokens.md says where to get one), or set task.perceptual.weight to 0"
            )
        path = epath.Path(self.weights).expanduser()
        arrays, _ = arrays_lib.read(path, wanted=lambda name: name.startswith(vgg.PREFIX))
        with concerning(f"task.perceptual.weights = {self.weights}"):
            return vgg.from_arrays(arrays)

    def layers(self, params: Params, images: Float[Array, "batch height width channel"]) -> list[Array]:
        return vgg.layers(params, images)


PERCEPTUALS: dict[str, type[Perceptual]] = {"classifier": OfClassifier, "vgg16": OfVGG}
"""`task.perceptual.name` in a config -> the class."""


def _convolved(x: Array, layer: Params, stride: int) -> Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, layer["kernel"], (stride, stride), "SAME", dimension_numbers=dimensions)
    return nnx.silu(x + layer["bias"])


def _directions(features: Float[Array, "batch row column feature"]) -> Float[Array, "batch row column feature"]:
    return features * jax.lax.rsqrt(jnp.sum(jnp.square(features), axis=-1, keepdims=True) + SHORTEST)
