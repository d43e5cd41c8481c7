"""EDM's geometric augmentations of the training images, and the labels that tell the network of them.

Karras et al. 2022, appendix F.2: six transformations drawn for each image; the network sees their parameters, and none
(all zeros) when it samples, so that augmented images do not leak into what it generates.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

NUM_LABELS = 9
SCALE = ANISOTROPY = 2.0**0.2  # per standard deviation
TRANSLATION = 1.0 / 8.0  # of the image's side, per standard deviation

# sym6, the least asymmetric orthonormal wavelet with six vanishing moments (Daubechies 1992): up- and downsampling with
# it are each other's inverse, so an image that is not transformed is not changed either.
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
_BEFORE = 5  # taps before the one that stands on a pixel
_AFTER = len(SYM6) - 1 - _BEFORE


class Transformations(NamedTuple):
    """The parameters of each image, all 0 where nothing is done.

    Attributes:
      flip_x, flip_y: 1 where mirrored.
      scale: enlarged by SCALE^scale.
      angle: angle of the rotation, in radians.
      anisotropy, anisotropy_angle: stretched by ANISOTROPY^anisotropy along a direction, shrunk as much across it.
      shift_x, shift_y: translations, in units of TRANSLATION sides.
    """

    flip_x: Float[Array, " batch"]
    flip_y: Float[Array, " batch"]
    scale: Float[Array, " batch"]
    angle: Float[Array, " batch"]
    anisotropy: Float[Array, " batch"]
    anisotropy_angle: Float[Array, " batch"]
    shift_x: Float[Array, " batch"]
    shift_y: Float[Array, " batch"]


def augment(
    key: PRNGKeyArray, images: Float[Array, "batch height width channel"], probability: float
) -> tuple[Float[Array, "batch height width channel"], Float[Array, "batch 9"]]:
    """Transforms each image at random.

    Args:
      images: square, side at least 2; their mirror image continues them beyond their edges.
      probability: probability of each transformation, except the horizontal flip's, which is always 1/2.

    Returns:
      (images, labels).
    """
    drawn = draw(key, images.shape[0], probability)
    return transform(images, drawn), labels(drawn)


def draw(key: PRNGKeyArray, number: int, probability: float) -> Transformations:
    """The transformations of `number` images."""
    keys = iter(jax.random.split(key, 9))

    def coin() -> Array:
        return jax.random.bernoulli(next(keys), 0.5, (number,)).astype(jnp.float32)

    def angle() -> Array:
        return jax.random.uniform(next(keys), (number,), minval=-jnp.pi, maxval=jnp.pi)

    def normal() -> Array:
        return jax.random.normal(next(keys), (number,))

    flip_y, scale, rotate, stretch, shift = jax.random.bernoulli(next(keys), probability, (5, number))
    return Transformations(
        flip_x=coin(),
        flip_y=coin() * flip_y,
        scale=normal() * scale,
        angle=angle() * rotate,
        anisotropy=normal() * stretch,
        anisotropy_angle=angle() * stretch,
        shift_x=normal() * shift,
        shift_y=normal() * shift,
    )


def labels(t: Transformations) -> Float[Array, "batch 9"]:
    """What the network is told: a function of each transformation that is 0 where nothing is done."""
    return jnp.stack(
        [
            t.flip_x,
            t.flip_y,
            t.scale,
            jnp.cos(t.angle) - 1.0,
            jnp.sin(t.angle),
            t.anisotropy * jnp.cos(t.anisotropy_angle),
            t.anisotropy * jnp.sin(t.anisotropy_angle),
            t.shift_x,
            t.shift_y,
        ],
        axis=1,
    )


def transform(
    images: Float[Array, "batch height width channel"], t: Transformations
) -> Float[Array, "batch height width channel"]:
    """Mirrors, then scales, rotates, stretches and shifts, all four by one resampling at twice the resolution."""
    side = images.shape[1]
    if images.shape[2] != side or side < 2:
        raise ValueError(f"images of {images.shape[1:3]} pixels: augmentation takes square ones, of 2 pixels or more")
    images = jnp.where(t.flip_x[:, None, None, None] > 0, images[:, :, ::-1], images)
    images = jnp.where(t.flip_y[:, None, None, None] > 0, images[:, ::-1], images)

    # Where each fine pixel of the result lies in the source, in pixels from the centre; x to the right, y down.
    fine = (jnp.arange(-_BEFORE, 2 * side - 1 + _AFTER) - (side - 1)) / 2.0
    y, x = jnp.meshgrid(fine, fine, indexing="ij")
    shift = side * TRANSLATION * jnp.stack([t.shift_x, t.shift_y], axis=1)
    source = jnp.einsum("bij,bjyx->biyx", _inverse(t), jnp.stack([x, y]) - shift[:, :, None, None])

    padding = side - 1
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="reflect")
    upsampled = _upsample(_upsample(padded, 1), 2)
    # Index i of the padded image is index 2 i + _BEFORE of the fine one.
    index = 2.0 * (source[:, ::-1] + (side - 1) / 2.0 + padding) + _BEFORE

    def sample(channel: Float[Array, "height width"], at: Float[Array, "2 row column"]) -> Array:
        return jax.scipy.ndimage.map_coordinates(channel, [at[0], at[1]], order=1, mode="constant")

    resampled = jax.vmap(jax.vmap(sample, in_axes=(-1, None), out_axes=-1))(upsampled, index)
    return _downsample(_downsample(resampled, 1), 2)


def _inverse(t: Transformations) -> Float[Array, "batch 2 2"]:
    """The inverse of what scale, rotation and stretch do together."""
    stretch = jnp.exp2(jnp.log2(ANISOTROPY) * t.anisotropy)
    zero = jnp.zeros_like(stretch)
    unstretch = jnp.stack([jnp.stack([1.0 / stretch, zero], -1), jnp.stack([zero, stretch], -1)], -2)
    turned = _rotation(t.anisotropy_angle) @ unstretch @ _rotation(-t.anisotropy_angle)
    return (SCALE**-t.scale)[:, None, None] * _rotation(t.angle) @ turned


def _rotation(angle: Float[Array, " batch"]) -> Float[Array, "batch 2 2"]:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)


def _upsample(x: Float[Array, "batch height width channel"], axis: int) -> Float[Array, "batch h w channel"]:
    """Twice the resolution along one axis."""
    return _filter(x, axis, np.asarray(SYM6)[::-1], padding=(len(SYM6) - 1,) * 2, lhs_dilation=2)


def _downsample(x: Float[Array, "batch height width channel"], axis: int) -> Float[Array, "batch h w channel"]:
    """Half the resolution along one axis: the transpose of `_upsample`."""
    return _filter(x, axis, np.asarray(SYM6), stride=2)


def _filter(
    x: Float[Array, "batch height width channel"],
    axis: int,
    taps: Float[np.ndarray, " tap"],
    *,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    lhs_dilation: int = 1,
) -> Float[Array, "batch h w channel"]:
    """One filter for every channel, along one axis."""
    channels = x.shape[-1]

    def along(value: Any, across: Any = 1) -> tuple[Any, Any]:
        return (value, across) if axis == 1 else (across, value)

    kernel = jnp.asarray(taps, x.dtype).reshape(*along(len(taps)), 1, 1)
    return jax.lax.conv_general_dilated(
        x,
        jnp.broadcast_to(kernel, (*along(len(taps)), 1, channels)),
        window_strides=along(stride),
        padding=along(padding, (0, 0)),
        lhs_dilation=along(lhs_dilation),
        feature_group_count=channels,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
