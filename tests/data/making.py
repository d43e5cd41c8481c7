"""Files as users have them, for the tests of this room."""

import io
import json
import pathlib
import tarfile
import zipfile
from collections.abc import Sequence
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


def emoji(name: str, short_name: str, unified: str, category: str = "Objects", tones: Sequence[str] = ()) -> dict:
    """An entry of emoji.json, with what is read of it."""

    def one(unified: str) -> dict:
        return {"unified": unified, "image": f"{unified.lower()}.png", "has_img_google": True, "has_img_twitter": True}

    varied = {"skin_variations": {tone: one(f"{unified}-{tone}") for tone in tones}} if tones else {}
    return one(unified) | {"name": name, "short_name": short_name, "category": category} | varied


def emoji_packages(folder: pathlib.Path, entries: Sequence[dict]) -> list[pathlib.Path]:
    """npm's packages of both vendors in their layout; each picture is a disc of another colour on nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for blue, vendor in enumerate(("google", "twitter")):
        files = {"emoji.json": json.dumps(entries).encode(), "LICENSE": f"licence of {vendor}".encode()}
        for number, entry in enumerate(entries):
            for tone, one in enumerate([entry, *entry.get("skin_variations", {}).values()]):
                pixels = np.zeros((64, 64, 4), np.uint8)
                pixels[8:56, 8:56] = (number, tone, blue, 255)
                files[f"img/{vendor}/64/{one['image']}"] = png(pixels)
        paths.append(folder / f"emoji-datasource-{vendor}-16.0.0.tgz")
        with tarfile.open(paths[-1], "w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"package/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return paths
