"""Malformed pictures, arrays and archives that a command can be given, and some unusual ones that are sound."""

import io
import json
import pathlib
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
from PIL import Image
from safetensors.numpy import save

from tests.chaos.malformed import Case, place_takers, writing
from tests.chaos.running import ROOT

SHIPPED = ROOT / "diffcurr" / "pretrained" / "weights" / "digits.safetensors"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"


def picture(mode: str = "RGB", size: tuple[int, int] = (64, 64), kind: str = "png", **options: Any) -> bytes:
    """A picture file of noise."""
    side = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image, out = Image.fromarray(side), io.BytesIO()
    image = Image.fromarray(side[..., 0].astype(np.uint16) * 256) if mode == "I;16" else image.convert(mode)
    image.save(out, kind, **options)
    return out.getvalue()


def bomb() -> bytes:
    """A PNG that says it has 60,000 x 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunks + picture()[33:]


def array(value: Any, pickled: bool = False) -> bytes:
    """An .npy file."""
    out = io.BytesIO()
    np.save(out, value, allow_pickle=pickled)
    return out.getvalue()


def claiming(shape: tuple[int, ...]) -> bytes:
    """An .npy file whose header says that the array is of this shape, with a few bytes behind it."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return out.getvalue() + b"\0" * 64


def arrays(pickled: bool = False, **values: Any) -> bytes:
    """An .npz file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, value in values.items():
            archive.writestr(f"{name}.npy", array(value, pickled))
    return out.getvalue()


def in_zip(content: bytes, damage: Callable[[bytearray, int, int], None]) -> bytes:
    """A zip whose first member is damaged: damage(bytes, start of its local header, start of its central header)."""
    changed = bytearray(content)
    damage(changed, 0, content.index(b"PK\x01\x02"))
    return bytes(changed)


def encrypted(content: bytearray, local: int, central: int) -> None:
    """Says that the member is encrypted."""
    content[local + 6] |= 1
    content[central + 8] |= 1


def unknown_method(content: bytearray, local: int, central: int) -> None:
    """Says that the member is packed by a method that there is not."""
    content[local + 8], content[central + 10] = 99, 99


def bad_crc(content: bytearray, local: int, central: int) -> None:
    """Changes a byte of the member itself."""
    content[(local + central) // 2 if central < 4000 else local + 200] ^= 255


DAMAGES = {"encrypted": encrypted, "of an unknown method": unknown_method, "with a wrong checksum": bad_crc}


def damaged_archive(damage: Callable[[bytearray, int, int], None]) -> Callable[[pathlib.Path], object]:
    """Damages the archive that is there."""
    return lambda path: path.write_bytes(in_zip(path.read_bytes(), damage))


def tensors(facts: dict[str, str] | None, **values: Any) -> bytes:
    """A safetensors file."""
    return save({name: np.asarray(value) for name, value in values.items()}, metadata=facts)


def with_facts(**facts: str) -> bytes:
    """The shipped classifier of the digits with other facts in its header."""
    content = SHIPPED.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] |= facts
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def cases() -> Iterator[Case]:
    """All of this file."""
    pictures: dict[str, tuple[bytes, str]] = {
        "an EPS": (EPS, "error"),
        "a text": (b"no picture\n", "error"),
        "empty": (b"", "error"),
        "truncated": (picture()[:4000], "error"),
        "truncated after its header": (picture()[:60], "error"),
        "with a wrong checksum": (picture()[:16] + b"\0\0\0\1" + picture()[20:], "error"),
        "of 60,000 x 60,000 pixels, it says": (bomb(), "error"),
        "of 1 x 100,000 pixels": (picture(size=(1, 100_000)), "either"),
        "of 100,000 x 1 pixels": (picture(size=(100_000, 1)), "either"),
        "of one pixel": (picture(size=(1, 1)), "good"),
        "grey": (picture("L"), "good"),
        "of 16 bits": (picture("I;16"), "good"),
        "with a palette": (picture("P"), "good"),
        "with an alpha channel": (picture("RGBA"), "good"),
        "a CMYK JPEG": (picture("CMYK", kind="jpeg"), "good"),
        "a GIF": (picture("P", kind="gif"), "either"),
    }
    for name, (content, expect) in pictures.items():
        yield Case("picture", name, "data/00.png", writing(content), expect=expect)
    for name, make in place_takers().items():
        yield Case("picture", name, "data/00.png", make, expect="error" if name == "a FIFO" else "either")
    for name, damage in DAMAGES.items():
        yield Case("zip of pictures", name, "data.zip", damaged_archive(damage))
    for name, content in {"empty": b"", "a text": b"no zip", "without files": b"PK\x05\x06" + b"\0" * 18}.items():
        yield Case("zip of pictures", name, "data.zip", writing(content))
    yield Case("zip of pictures", "truncated", "data.zip", lambda path: path.write_bytes(path.read_bytes()[:-200]))
    yield Case("zip of pictures", "a FIFO", "data.zip", place_takers()["a FIFO"])

    sound = np.zeros((4, 32, 32), np.float32)
    latents: dict[str, tuple[bytes, str]] = {
        "bfloat16": (array(sound.astype(ml_dtypes.bfloat16)), "error"),
        "texts": (array(np.full(sound.shape, "text")), "error"),
        "objects": (array(np.full(sound.shape, None), pickled=True), "error"),
        "records": (array(np.zeros(sound.shape, [("a", "f4"), ("b", "f4")])), "error"),
        "times": (array(np.zeros(sound.shape, "M8[s]")), "error"),
        "complex": (array(sound.astype(complex)), "error"),
        "of another shape": (array(sound[:, :5]), "error"),
        "a number": (array(np.float32(3)), "error"),
        "10^12 numbers, it says": (claiming((10**6, 10**6)), "error"),
        "a negative size, it says": (claiming((-4, 32, 32)), "error"),
        "truncated": (array(sound)[:1000], "error"),
        "truncated in its header": (array(sound)[:20], "error"),
        "empty": (b"", "error"),
        "a text": (b"no array", "error"),
        "an npz": (arrays(a=sound), "error"),
        "NaN": (array(sound * np.nan), "either"),
        "float64": (array(sound.astype(np.float64)), "good"),
        "in Fortran's order": (array(np.asfortranarray(sound)), "good"),
    }  # fmt: skip
    for name, (content, expect) in latents.items():
        yield Case("latent", name, "data/0.npy", writing(content), expect=expect)

    whole = SHIPPED.read_bytes()
    features = {
        "a text": b"no tensors",
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "with a header of 2^60 bytes, it says": (2**60).to_bytes(8, "little") + whole[8:],
        "with a header that is no JSON": (8).to_bytes(8, "little") + b"no JSON!",
        "without facts": tensors(None, a=np.zeros(3, np.float32)),
        "with facts alone": tensors({"shape": "[8, 1, 10]", "dataset": "digits"}, a=np.zeros(3, np.float32)),
        "whose shape is no JSON": with_facts(shape="eight"),
        "whose shape is of two numbers": with_facts(shape="[8, 1]"),
        "whose shape is a text": with_facts(shape='"abc"'),
        "for other images": with_facts(shape="[16, 3, 10]"),
        "of bfloat16": tensors({"shape": "[8, 1, 10]"}, a=np.zeros(3, ml_dtypes.bfloat16)),
    }
    for name, content in features.items():
        yield Case("features", name, "features.safetensors", writing(content))
    yield Case("features", "are sound", "features.safetensors", lambda path: shutil.copy(SHIPPED, path), expect="good")
    numbers = arrays(a=np.arange(500.0), b=np.zeros(3))
    archives = {name: in_zip(numbers, damage) for name, damage in DAMAGES.items()} | {
        "truncated": numbers[:-30],
        "of objects": arrays(pickled=True, a=np.array([{}, None], object)),
        "of texts": arrays(a=np.array(["text"])),
        "of nothing": arrays(),
        "an npy": array(np.zeros(3)),
        "of 10^12 numbers, it says": _claiming_archive(),
    }
    for name, content in archives.items():
        yield Case("features", f"npz {name}", "features.npz", writing(content))
    for name, make in place_takers().items():
        yield Case("features", name, "features.safetensors", make)


def _claiming_archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.npy", claiming((10**6, 10**6)))
    return out.getvalue()
