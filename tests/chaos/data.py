"""Sound data, as a user would bring them."""

import json
import pathlib
import zipfile

import numpy as np
from PIL import Image


def make_pictures(folder: pathlib.Path) -> None:
    """24 pictures of 64x64 pixels with labels, in the layout of EDM's tool."""
    folder.mkdir(parents=True)
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    labels = [[f"{index:02d}.png", index % 7] for index in range(24)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


def make_latents(folder: pathlib.Path) -> None:
    """Eight latents of 4 x 32 x 32 numbers, one constant each."""
    folder.mkdir(parents=True)
    for index in range(8):
        np.save(folder / f"{index}.npy", np.full((4, 32, 32), index / 8, np.float32))


def zipped(folder: pathlib.Path) -> None:
    """Beside a folder, a zip of its files, in the order of their names."""
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
