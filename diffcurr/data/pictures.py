"""A picture's bytes -> its pixels as a person sees them, at the size that is trained on, within limits of memory."""

import io
import struct
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from diffcurr.data.sources import BadExample
from diffcurr.errors import first_line

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""What a file may hold, whatever its name says. Pillow knows others, of which EPS would start another program."""

MOST_PIXELS = 2**28 // 3  # Pillow's own limit, 89 million
MOST_RATIO = 100  # of the longer side to the shorter one

Colour: TypeAlias = tuple[int, int, int]

# Pillow warns of what is checked below (too many pixels), and of damaged notes beside pixels that are whole.
warnings.filterwarnings("ignore", module=r"PIL\.")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    content: bytes, size: int, channels: int = 3, resize: str = "centre", background: Colour = (255, 255, 255)
) -> UInt8[np.ndarray, "height width channel"]:
    """The pixels of a picture file, turned as its EXIF data say; of several frames, the first.

    Args:
      channels: 1 for grey, 3 for colour, 4 for colour with alpha.
      resize: a key of RULES.
      background: what lies behind transparent pixels, unless alpha is kept, and around padded pictures.

    Returns:
      [size, size, channels]; with resize = "random_crop", of which the crop is yet to be drawn, one side is longer.

    Raises:
      BadExample: if it is no picture of FORMATS, is damaged, is too large, or has no known range of values.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_size(image.width, image.height, size)
            image.load()
            picture = _in_colours(_in_eight_bits(image, content), channels, background)
            picture = picture.transpose(turn) if (turn := _turn(image)) is not None else picture
            pixels = np.asarray(RULES[resize](picture, size, background))
    except (BadExample, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise BadExample("is not a readable image: it is no PNG, JPEG, WebP, BMP or TIFF, or cut off") from error
    except Exception as error:  # Pillow raises errors of every kind about damaged files
        raise BadExample(f"is not a readable image: {first_line(error)}") from error
    if channels == 4:
        pixels = np.where(pixels[..., 3:] == 0, np.uint8(0), pixels)  # no one sees which colour it has
    return pixels.reshape(*pixels.shape[:2], channels)


def _check_size(width: int, height: int, size: int) -> None:
    """Before anything is decoded: a file of a kilobyte may claim any size."""
    if not width * height:
        raise BadExample(f"has {width} x {height} pixels")
    if width * height > MOST_PIXELS:
        raise BadExample(f"has {width} x {height} pixels: more than {MOST_PIXELS:,}; make it smaller")
    longer, shorter = max(width, height), min(width, height)
    if longer > MOST_RATIO * shorter or size * size * longer > MOST_PIXELS * shorter:
        raise BadExample(f"has {width} x {height} pixels: its sides differ too much; cut it")


def _in_eight_bits(image: Image.Image, content: bytes) -> Image.Image:
    """The picture with 8 bits a channel: wider ones from the whole range that they could have, not from their own."""
    png_depth = content[24] if image.format == "PNG" else 8
    transparent = image.info.get("transparency")
    if image.mode.startswith("I;16") or (image.mode == "I" and png_depth == 16):
        values = np.asarray(image).astype(np.uint32)
        tags: Any = getattr(image, "tag_v2", {})
        most = 2 ** tags.get(258, (16,))[0] - 1  # 12 bits stand in 16
        grey = np.uint8((np.minimum(values, most) * 255 + most // 2) // most)
        picture = Image.fromarray(255 - grey if tags.get(262) == 0 else grey)  # 0 is white, which Pillow leaves
        if transparent is not None:
            picture.putalpha(Image.fromarray(np.where(values == transparent, np.uint8(0), np.uint8(255))))
        return picture
    if image.mode in ("I", "F"):
        raise BadExample(f"has pixels of mode {image.mode}, whose range is unknown: save 8 or 16 bits a channel")
    # A PNG names its transparent colour in its own depth, and Pillow leaves that as it is.
    if transparent is not None and image.mode == "L" and png_depth < 8:
        image.info["transparency"] = transparent * 255 // (2**png_depth - 1)
    if transparent is not None and image.mode == "RGB" and png_depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    return image


def _in_colours(image: Image.Image, channels: int, background: Colour) -> Image.Image:
    """The picture in mode L, RGB or RGBA."""
    if image.mode in ("La", "RGBa"):  # colours times alpha
        image = image.convert(image.mode[:-1] + "A")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if channels == 4:
            return image
        behind = Image.new("RGB", image.size, background)
        behind.paste(image, mask=image.getchannel("A"))
        image = behind
    elif channels != 1 or image.mode not in ("1", "L"):
        image = image.convert("RGB")
    return image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How the picture is to be turned; not at all where its EXIF data cannot be read, as viewers do."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, OSError, struct.error):
        return None


def centre_square(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size *channel"]:
    """The largest centred square, resized: means of 2x2 pixels while twice too large, then bicubic.

    The preparation of ImageNet in Dhariwal & Nichol 2021, which the DiT, SiT and EDM papers follow.
    """
    return np.asarray(_centre(image, size, (0, 0, 0)))


def _resized(image: Image.Image, size: int, side: Callable[[tuple[int, int]], int]) -> Image.Image:
    """The picture with its shorter (side = min) or longer (max) side at `size`, its proportions kept."""
    while side(image.size) >= 2 * size:
        image = image.reduce(2)
    scale = size / side(image.size)
    if scale != 1.0:
        width, height = (max(1, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image


def _centre(image: Image.Image, size: int, background: Colour) -> Image.Image:
    image = _resized(image, size, min)
    left, top = ((length - size) // 2 for length in image.size)
    return image.crop((left, top, left + size, top + size))


def _stretched(image: Image.Image, size: int, background: Colour) -> Image.Image:
    return image.resize((size, size), Image.Resampling.BICUBIC) if image.size != (size, size) else image


def _padded(image: Image.Image, size: int, background: Colour) -> Image.Image:
    """The picture in the middle of the background; where alpha is kept, in the middle of nothing."""
    image = _resized(image, size, max)
    colour: Any = (0, 0, 0, 0) if image.mode == "RGBA" else background
    if image.mode == "L":
        colour = Image.new("RGB", (1, 1), background).convert("L").getpixel((0, 0))
    canvas = Image.new(image.mode, (size, size), colour)
    width, height = image.size
    canvas.paste(image, ((size - width) // 2, (size - height) // 2))
    return canvas


def _before_crop(image: Image.Image, size: int, background: Colour) -> Image.Image:
    return _resized(image, size, min)


RULES: dict[str, Callable[[Image.Image, int, Colour], Image.Image]] = {
    "centre": _centre,
    "stretch": _stretched,
    "pad": _padded,
    "random_crop": _before_crop,
}
"""`dataset.resize` in a config -> how a picture comes to its size."""
