"""Grids of pictures."""

from collections.abc import Callable, Sequence

import numpy as np
from etils import epath
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from diffcurr import atomic_file

LINE_HEIGHT = 12  # of a caption, in pixels


def save_grid(
    path: epath.PathLike,
    images: Float[np.ndarray, "n height width channel"],
    columns: int = 0,
    *,
    alpha: bool = False,
    captions: Sequence[str] = (),
) -> None:
    """Writes images as one PNG, filled row by row. Images below 64 pixels are enlarged by a whole factor.

    Args:
      path: file to write, in a folder that is there.
      images: pixels in [-1, 1], with 1 or 3 channels. With another number of channels they are taken as latents, from
        -3 to 3: the first three channels are shown as red, green and blue; of two, the first in grey.
      columns: number of images in each row; by default (0), the rounded-up square root of the number of images.
      alpha: whether a fourth channel says how much is seen of the others; the images are laid over white.
      captions: a few words to stand under each image, which are cut where they do not fit; none if empty.
    """
    if alpha:
        seen = (np.clip(images[..., 3:], -1.0, 1.0) + 1.0) / 2.0
        images = images[..., :3] * seen + (1.0 - seen)
    number, height, width, channels = images.shape
    if channels not in (1, 3):
        channels = 3 if channels > 3 else 1
        images = images[..., :channels] / 3.0
    columns = columns or int(np.ceil(np.sqrt(number)))
    rows = -(-number // columns)
    pixels = np.round((np.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
    zoom = max(1, (96 if captions else 64) // height)
    pixels = pixels.repeat(zoom, axis=1).repeat(zoom, axis=2)
    gap, below = 2, (2 * LINE_HEIGHT if captions else 0)
    down, across = height * zoom + below + gap, width * zoom + gap
    canvas = np.full((rows * down + gap, columns * across + gap, channels), 255, np.uint8)
    for i, image in enumerate(pixels):
        top, left = gap + i // columns * down, gap + i % columns * across
        canvas[top : top + height * zoom, left : left + width * zoom] = image
    picture = Image.fromarray(canvas[..., 0] if channels == 1 else canvas)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(LINE_HEIGHT - 2)
    for i, caption in enumerate(captions[:number]):
        place = gap + i % columns * across, gap + i // columns * down + height * zoom
        lines = _wrapped(caption, lambda text: draw.textlength(text, font) <= width * zoom)
        draw.multiline_text(place, "\n".join(lines[:2]), 0, font, spacing=1)
    with atomic_file.replacing(path) as temporary:
        picture.save(temporary)


def _wrapped(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The lines of a text, broken between words; a word that is too long for a line is cut."""
    lines: list[str] = []
    for word in text.split():
        if lines and fits(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
            continue
        while not fits(word):
            word = word[:-1]
        lines.append(word)
    return lines
