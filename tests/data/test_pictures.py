"""Pictures would be trained as no one sees them, or one file would take the machine's memory or start a program."""

import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from data.making import encoded, png
from PIL import Image, ImageOps, PngImagePlugin

from diffcurr.data import pictures
from diffcurr.data.pictures import centre_square
from diffcurr.data.sources import BadExample

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (16, 16, 3), np.uint8)
GREY = RNG.integers(0, 256, (16, 16), np.uint8)
ALPHA = RNG.integers(0, 256, (16, 16), np.uint8)
WIDE = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=-1)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, *others: bytes) -> bytes:
    """A PNG that Pillow does not write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(others) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def over(colour: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.round(share * colour + (1 - share) * np.array(background))


def transparent_palette() -> bytes:
    image = Image.fromarray((np.indices((16, 16)).sum(0) % 2).astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    return encoded(image, transparency=0)


CHECKERS = (np.indices((16, 16)).sum(0) % 2)[..., None]


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 30)])
def test_transparent_pixels_show_the_background(background: tuple[int, int, int]) -> None:
    colour_and_alpha = np.dstack([COLOUR, ALPHA])
    for content, expected in (
        (png(colour_and_alpha), over(COLOUR, ALPHA, background)),
        (
            encoded(Image.fromarray(colour_and_alpha), "webp", lossless=True, exact=True),
            over(COLOUR, ALPHA, background),
        ),
        (png(np.dstack([GREY, ALPHA])), over(three(GREY), ALPHA, background)),
        (transparent_palette(), np.where(CHECKERS, (0, 0, 255), background)),
        (encoded(Image.fromarray(GREY), transparency=7), np.where(three(GREY) == 7, background, three(GREY))),
        (encoded(Image.fromarray(COLOUR), transparency=tuple(COLOUR[0, 0].tolist())), None),
        (encoded(Image.fromarray(WIDE), transparency=257), np.where(three(LEVELS) == 1, background, three(LEVELS))),
        # Two bits a pixel, of which the level 1 is transparent: Pillow compares 85 with 1.
        (
            raw_png(4, 1, 2, 0, b"\0\x1b", chunk(b"tRNS", b"\0\1")),
            np.array([[[0] * 3, background, [170] * 3, [255] * 3]]).repeat(4, 0),
        ),
        # Sixteen bits a channel, of which Pillow keeps the upper eight.
        (
            raw_png(1, 1, 16, 2, b"\0\x10\xff\x20\xff\x30\xff", chunk(b"tRNS", b"\x10\xff\x20\xff\x30\xff")),
            np.array([[background]]),
        ),
    ):
        if expected is None:
            expected = COLOUR.copy()
            expected[np.all(COLOUR[0, 0] == COLOUR, axis=-1)] = background
        size = len(expected)
        found = pictures.decode(content, size, resize="stretch", background=background)
        np.testing.assert_allclose(found.astype(int), expected, atol=1 if size == 16 else 3)
        assert found.dtype == np.uint8 and found.shape == (size, size, 3)


def twelve_bits() -> bytes:
    """A TIFF of one strip with two pixels, 0 and 4095, of 12 bits."""
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1), (279, 3)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries).ljust(122, b"\0") + b"\x00\x0f\xff"


def test_wide_pixels_come_from_the_whole_range_that_they_could_have() -> None:
    """Not from their own: a dark picture stays dark."""
    for image, kind, options in (
        (Image.fromarray(WIDE), "png", {}),
        (Image.fromarray(WIDE), "tiff", {}),
        (Image.fromarray(WIDE.astype(">u2")), "tiff", {}),
        (Image.fromarray(WIDE), "tiff", {"compression": "tiff_lzw"}),
    ):
        found = pictures.decode(encoded(image, kind, **options), 16, channels=1)
        np.testing.assert_array_equal(found[..., 0], LEVELS)
    dark = np.full((8, 8), 128, np.uint16)
    np.testing.assert_array_equal(pictures.decode(png(dark), 8), 0)
    np.testing.assert_array_equal(pictures.decode(png(dark + 1), 8), 1)
    turned = encoded(Image.fromarray(WIDE), "tiff", tiffinfo={262: 0})  # 0 is white
    np.testing.assert_array_equal(pictures.decode(turned, 16, channels=1)[..., 0], 255 - LEVELS)
    np.testing.assert_array_equal(pictures.decode(twelve_bits(), 2, 1, "stretch")[0, :, 0], [0, 255])


@pytest.mark.parametrize(
    "values", [RNG.normal(size=(8, 8)).astype(np.float32), np.arange(64, dtype=np.int32).reshape(8, 8)]
)
def test_a_range_that_no_one_knows_is_refused(values: np.ndarray) -> None:
    with pytest.raises(BadExample, match="has pixels of mode [FI], whose range is unknown"):
        pictures.decode(encoded(Image.fromarray(values), "tiff"), 8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
def test_turned_as_exif_says(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(RNG.integers(0, 256, (16, 8, 3), np.uint8))
    options: dict[str, Any] = {"jpeg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(kind, {})
    content = encoded(image, kind, exif=exif, **options)
    flat = encoded(image, kind, **options)
    with Image.open(io.BytesIO(flat)) as stored:
        stored.getexif()[0x0112] = orientation
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    found = pictures.decode(content, 16, resize="pad", background=(1, 2, 3))
    shown = found[:, 4:12] if expected.shape[0] == 16 else found[4:12]
    np.testing.assert_array_equal(shown, expected)
    assert (expected.shape[0] == 8) == (orientation >= 5)


def test_exif_that_cannot_be_read_turns_nothing() -> None:
    content = encoded(Image.fromarray(COLOUR), "png", exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(pictures.decode(content, 16), COLOUR)


def test_other_kinds_of_colour() -> None:
    """CMYK, LAB, YCbCr, black and white, palettes: the colours that a viewer shows."""
    flat = np.full((16, 16, 3), (200, 30, 60), np.uint8)
    for mode, kind, tolerance in (("CMYK", "tiff", 1), ("LAB", "tiff", 3), ("YCbCr", "tiff", 3)):
        content = encoded(Image.fromarray(flat).convert(mode), kind)
        np.testing.assert_allclose(pictures.decode(content, 16).astype(int), flat, atol=tolerance, err_msg=mode)
    palette = encoded(Image.fromarray(np.where(CHECKERS, flat, 9).astype(np.uint8)).quantize(2), "bmp")
    np.testing.assert_array_equal(pictures.decode(palette, 16), np.where(CHECKERS, flat, 9))
    bits = encoded(Image.fromarray(GREY > 127))
    np.testing.assert_array_equal(pictures.decode(bits, 16), three(np.where(GREY > 127, 255, 0)))


def test_channels() -> None:
    np.testing.assert_array_equal(pictures.decode(png(GREY), 16, channels=1)[..., 0], GREY)
    grey = pictures.decode(png(COLOUR), 16, channels=1)[..., 0]
    np.testing.assert_allclose(grey, COLOUR @ [0.299, 0.587, 0.114], atol=1)
    np.testing.assert_array_equal(
        pictures.decode(png(COLOUR), 16, channels=4), np.dstack([COLOUR, np.full_like(GREY, 255)])
    )
    stored = np.dstack([COLOUR, np.where(GREY > 127, ALPHA, 0)])
    visible = np.where(stored[..., 3:] > 0, stored, 0)
    np.testing.assert_array_equal(pictures.decode(png(stored), 16, channels=4), visible)


def test_colours_under_alpha_weigh_as_much_as_they_show() -> None:
    """Half red and opaque, half green and transparent: in a smaller picture all that shows is red."""
    stored = np.zeros((16, 16, 4), np.uint8)
    stored[:, ::2], stored[:, 1::2] = (255, 0, 0, 255), (0, 255, 0, 0)
    found = pictures.decode(png(stored), 8, channels=4)
    np.testing.assert_array_equal(found[..., :3], np.broadcast_to((255, 0, 0), (8, 8, 3)))
    np.testing.assert_allclose(found[..., 3].astype(int), 128, atol=1)


def test_rules() -> None:
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:, 8:24] = 200
    middle = {rule: pictures.decode(png(picture), 16, 3, rule, (7, 8, 9)) for rule in pictures.RULES}
    np.testing.assert_array_equal(middle["centre"], 200)
    np.testing.assert_array_equal(middle["stretch"][:, :3], 0)
    np.testing.assert_array_equal(middle["stretch"][:, 6:10], 200)
    np.testing.assert_array_equal(middle["pad"][:4], np.broadcast_to((7, 8, 9), (4, 16, 3)))
    np.testing.assert_array_equal(middle["pad"][4:12], np.asarray(Image.fromarray(picture).reduce(2)))
    np.testing.assert_array_equal(middle["random_crop"], picture)
    clear = pictures.decode(png(picture), 16, 4, "pad")
    np.testing.assert_array_equal(clear[:4], 0)
    np.testing.assert_array_equal(clear[4:12, :, 3], 255)
    np.testing.assert_array_equal(pictures.decode(png(picture), 16, 1, "pad", (7, 7, 7))[:4], 7)


def test_centre_square() -> None:
    """Halved while twice too large, then resized, then cropped: a wide picture keeps its middle."""
    wide = np.zeros((130, 300, 3), np.uint8)
    wide[:, 85:215] = 200  # the central square
    cropped = centre_square(Image.fromarray(wide), 64)
    assert cropped.shape == (64, 64, 3)
    np.testing.assert_array_equal(cropped[:, 2:-2], 200)
    exact = RNG.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    np.testing.assert_array_equal(centre_square(Image.fromarray(exact), 32), exact)
    np.testing.assert_array_equal(
        centre_square(Image.fromarray(exact), 16),
        np.floor(exact.reshape(16, 2, 16, 2, 3).mean((1, 3)) + 0.5),
    )


def test_of_several_frames_the_first() -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (40, 80)]
    for kind in ("png", "webp", "tiff"):
        options = {"lossless": True} if kind == "webp" else {}
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(pictures.decode(content, 8), 40)


@pytest.mark.filterwarnings("ignore:Image size")  # pytest shows what programs do not
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded(Image.fromarray(COLOUR), "eps"), "is no PNG, JPEG, WebP, BMP or TIFF"),
        (encoded(Image.fromarray(COLOUR), "gif"), "is no PNG, JPEG, WebP, BMP or TIFF"),
        (b"", "is no PNG, JPEG, WebP, BMP or TIFF"),
        (png(COLOUR)[:200], "is not a readable image: .*truncated"),
        (encoded(Image.fromarray(COLOUR), "jpeg")[:-50], "is not a readable image: .*truncated"),
        (encoded(Image.fromarray(COLOUR), "bmp")[:400], "is not a readable image: .*truncated"),
        (png(np.zeros((100_000, 1), np.uint8)), "has 1 x 100000 pixels: its sides differ too much"),
        (raw_png(100_000, 100_000, 8, 2, b""), "is not a readable image: Image size"),
        (raw_png(10_000, 10_000, 8, 2, b""), "has 10000 x 10000 pixels: more than 89,478,485"),
    ],
    ids=["eps", "gif", "empty", "cut png", "cut jpeg", "cut bmp", "ribbon", "huge", "large"],
)
def test_refused_in_one_line(content: bytes, message: str) -> None:
    with pytest.raises(BadExample, match=message) as caught:
        pictures.decode(content, 64)
    assert "\n" not in str(caught.value)


def test_a_ribbon_is_refused_where_its_enlargement_would_be_large() -> None:
    assert pictures.decode(png(np.zeros((90, 1), np.uint8)), 8).shape == (8, 8, 3)
    with pytest.raises(BadExample, match="its sides differ too much"):
        pictures.decode(png(np.zeros((90, 1), np.uint8)), 2048)


def test_nothing_warns() -> None:
    """What Pillow would say of palettes, sizes and notes comes as an error of ours or not at all."""
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16), "P")
    image.putpalette(bytes(range(256)) * 3)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Raw profile type exif", "\nexif\n 10\n4578696600")
    contents = [
        encoded(image, transparency=bytes(range(256))),
        raw_png(10_000, 10_000, 8, 2, b""),
        encoded(Image.fromarray(COLOUR), pnginfo=notes),
        encoded(Image.fromarray(COLOUR), "jpeg", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x09\0\0\0"),
    ]
    program = (
        f"from diffcurr.data import pictures, sources\nfor content in {contents!r}:\n"
        "    try: pictures.decode(content, 8)\n    except sources.BadExample: pass"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
