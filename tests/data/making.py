"""Files as users have them, for the tests of this room."""

import io
import pathlib
import zipfile
from typing import Any

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(pixels: np.ndarray) -> bytes:
    return encoded(Image.fromarray(pixels))


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def write(path: pathlib.Path, files: dict[str, bytes], as_zip: bool = False) -> pathlib.Path:
    """A folder with these files, or a zip."""
    if as_zip:
        with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path.with_suffix(".zip")
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path
