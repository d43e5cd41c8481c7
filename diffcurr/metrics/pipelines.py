"""What the Inception network is shown of images: the public ways from pixels in [-1, 1] to its input.

Distances along different ways differ by as much as papers differ, so a figure says which one it is.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

Images = Float[np.ndarray, "n height width channel"]
Pixels = UInt8[np.ndarray, "n height width 3"]


class Pipeline(NamedTuple):
    """A way from images to the input of the Inception network.

    Attributes:
      to_pixels: images in [-1, 1], grey or coloured -> the pixels of the picture files that it makes of them.
      resizing: how these are resized to 299x299 (`pretrained.inception.enlarge`).
    """

    to_pixels: Callable[[Images], Pixels]
    resizing: str

    def shown(self, images: Images) -> Float[np.ndarray, "n height width 3"]:
        """The images in [-1, 1] again, as `pretrained.inception.Inception.outputs` takes them."""
        return from_pixels(self.to_pixels(images))


def from_pixels(pixels: Pixels) -> Float[np.ndarray, "n height width 3"]:
    """Pixels of picture files, such as those of ADM's reference batches, as float32 in [-1, 1]."""
    return pixels / np.float32(127.5) - np.float32(1)


# In NumPy, on the host: compiled, x * 127.5 + 128 is rounded once instead of twice, and some pixels are cut to another
# level than in the public code.


def edm_pixels(images: Images) -> Pixels:
    """x * 127.5 + 128, cut to 0..255 and to whole numbers, as EDM's generate.py and DiT's sample_ddp.py save samples.

    A picture's own level v, x = v / 127.5 - 1, becomes v + 0.5 and is cut back to v. EDM's samples are float64.
    """
    return _cut(images * _like(images, 127.5) + _like(images, 128))


def adm_pixels(images: Images) -> Pixels:
    """(x + 1) * 127.5, cut to 0..255 and to whole numbers, as ADM's image_sample.py saves samples.

    Half a level darker than EDM's on average; a picture's own level may be cut to the one below by a rounding error.
    """
    return _cut((images + _like(images, 1)) * _like(images, 127.5))


def nearest_pixels(images: Images) -> Pixels:
    """(x + 1) * 127.5, rounded to the nearest of 0..255: pictures of 8 bits as they are, samples without bias."""
    return _cut((images + _like(images, 1)) * _like(images, 127.5) + _like(images, 0.5))


def _cut(pixels: Images) -> Pixels:
    """Grey pictures are repeated, as EDM's fid.py does; ADM's evaluator knows coloured ones only."""
    if pixels.shape[-1] not in (1, 3):
        raise ValueError(f"images of {pixels.shape[-1]} channels: Inception looks at grey or coloured ones")
    if not np.isfinite(pixels).all():
        raise ValueError("images hold pixels that are NaN or infinite: look at the samples")
    levels = np.clip(pixels, 0, 255).astype(np.uint8)
    return np.broadcast_to(levels, (*levels.shape[:-1], 3))


def _like(images: Images, number: float) -> np.floating:
    """The number in the precision of the images, as PyTorch computes with a number and an array."""
    return images.dtype.type(number)


PIPELINES: dict[str, Pipeline] = {
    "nearest": Pipeline(nearest_pixels, "tensorflow"),  # the project's own, for pictures of 8 bits
    "edm": Pipeline(edm_pixels, "tensorflow"),  # Karras et al. 2022; DiT and SiT too, whose reference is ADM's
    "adm": Pipeline(adm_pixels, "tensorflow"),  # Dhariwal & Nichol 2021
    "clean": Pipeline(nearest_pixels, "pillow"),  # clean-fid (Parmar et al. 2022), of pictures saved without loss
}
"""Name -> the way."""
