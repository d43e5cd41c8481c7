"""VGG16's convolutions (Simonyan & Zisserman 2015), through which perceptual losses look."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from diffcurr.pretrained import arrays as arrays_lib
from diffcurr.weights import as_float32, kernel

Params = dict[str, dict[str, Any]]
"""Number of a layer in the public list -> {"kernel", "bias"}."""

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # (channels, convolutions), with a maximum between stages
PREFIX = "features."  # of the convolutions' public names; the rest tells classes
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels in [0, 1], which the public weights expect


def abstract_params() -> Params:
    """Shapes of the weights."""
    found: Params = {}
    inside, number = 3, 0
    for channels, convolutions in STAGES:
        for _ in range(convolutions):
            shapes: dict[str, tuple[int, ...]] = {"kernel": (3, 3, inside, channels), "bias": (channels,)}
            found[str(number)] = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
            inside, number = channels, number + 2  # a rectifier has a number too
        number += 1  # as the maximum
    return found


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Params:
    """The weights, from torchvision's names; what tells classes may be there and is left out.

    Raises:
      ValueError: naming the arrays that are missing, left over, of another shape, no floats, or not finite.
    """
    given = {name: array for name, array in arrays.items() if name.startswith(PREFIX)}
    shapes: dict[str, tuple[int, ...]] = {}
    for number, layer in abstract_params().items():
        height, width, inside, outside = layer["kernel"].shape
        shapes[f"{PREFIX}{number}.weight"] = (outside, inside, height, width)
        shapes[f"{PREFIX}{number}.bias"] = (outside,)
    arrays_lib.check(given, shapes)
    exact = {name: as_float32(name, array) for name, array in given.items()}
    return {
        number: {"kernel": kernel(exact[f"{PREFIX}{number}.weight"]), "bias": exact[f"{PREFIX}{number}.bias"]}
        for number in abstract_params()
    }


def layers(params: Params, images: Float[Array, "batch height width channel"]) -> list[Array]:
    """What the last rectifier of each stage gives, of grey or coloured images in [-1, 1].

    As torchvision names them: relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3.
    """
    colours = jnp.broadcast_to(images, (*images.shape[:3], 3))
    x = ((colours + 1.0) / 2.0 - jnp.array(MEAN)) / jnp.array(STD)
    found: list[Array] = []
    numbers = iter(abstract_params())
    for _, convolutions in STAGES:
        if found:
            x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        for _ in range(convolutions):
            layer = params[next(numbers)]
            dimensions = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(x, layer["kernel"], (1, 1), "SAME", dimension_numbers=dimensions)
            x = jax.nn.relu(x + layer["bias"])
        found.append(x)
    return found
