"""Images or latents that the user brings: a folder or a zip of files, in the layouts that public tools leave."""

import io
import json
import threading
import zipfile
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image

from diffcurr.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LATENT_SUFFIXES = (".npy",)
LABELS = "dataset.json"


class _Files:
    """The files with some suffix under a folder or in a zip, sorted by name, and the label of each.

    Labels are those of `dataset.json`, {"labels": [[name, label], ...]} (the layout of EDM's tool), or else the number
    of the top folder among all top folders, sorted (ImageNet's layout).
    """

    def __init__(self, path: epath.PathLike, suffixes: tuple[str, ...], num_classes: int):
        """
        Raises:
          UserError: if there is nothing at `path`, no such file in it, or labels do not fit `num_classes`.
        """
        self.path = epath.Path(path)
        if not self.path.exists():
            raise UserError(f"dataset.data_dir = {path}: there is nothing there; give a folder or a zip")
        self._zip: zipfile.ZipFile | None = None
        if self.path.is_dir():
            found = ((epath.Path(folder), names) for folder, _, names in self.path.walk())
            everything = sorted(
                str((folder / name).relative_to(self.path)) for folder, names in found for name in names
            )
        else:
            try:
                self._zip = zipfile.ZipFile(self.path.open("rb"))
            except zipfile.BadZipFile as error:
                raise UserError(f"dataset.data_dir = {path}: neither a folder nor a zip") from error
            everything = sorted(self._zip.namelist())
        self._lock = threading.Lock()  # one file handle serves every thread that reads the zip
        self.names = [name for name in everything if name.lower().endswith(suffixes)]
        if not self.names:
            raise UserError(f"dataset.data_dir = {path}: holds no {', '.join(suffixes)} file")
        self.labels = self._read_labels(LABELS in everything, num_classes)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} files in {self.path})"

    def read(self, name: str) -> bytes:
        if self._zip is None:
            return (self.path / name).read_bytes()
        with self._lock:
            return self._zip.read(name)

    def _read_labels(self, listed: bool, num_classes: int) -> np.ndarray:
        if not num_classes:
            return np.zeros(len(self.names), np.int32)
        if listed:
            known = dict(json.loads(self.read(LABELS))["labels"] or [])
            missing = [name for name in self.names if name not in known]
            if missing:
                raise UserError(f"{self.path}: {LABELS} has no label for {missing[0]} and {len(missing) - 1} more")
            labels = np.array([known[name] for name in self.names], np.int32)
        else:
            tops = [name.split("/")[0] if "/" in name else "" for name in self.names]
            folders = sorted(set(tops) - {""})
            if len(folders) != num_classes or "" in tops:
                raise UserError(
                    f"{self.path}: there is no {LABELS}, and {len(folders)} top folders instead of one for each of "
                    f"the {num_classes} classes"
                )
            number = {folder: index for index, folder in enumerate(folders)}
            labels = np.array([number[top] for top in tops], np.int32)
        if labels.min() < 0 or labels.max() >= num_classes:
            raise UserError(f"{self.path}: labels {labels.min()} to {labels.max()} do not fit {num_classes} classes")
        return labels


class ImageFiles(_Files):
    """{"image": uint8 [size, size, 3], "label": int}; pictures of another size are cropped and resized as read."""

    def __init__(self, path: epath.PathLike, size: int, num_classes: int):
        super().__init__(path, IMAGE_SUFFIXES, num_classes)
        self._size = size
        _ = self[0]  # what cannot be read is said before training

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        try:
            with Image.open(io.BytesIO(self.read(name))) as image:
                pixels = centre_square(image.convert("RGB"), self._size)
        except OSError as error:
            raise UserError(f"{self.path}: {name} is not a readable image") from error
        return {"image": pixels, "label": self.labels[index]}


class LatentFiles(_Files):
    """{"image": float32 [size, size, channels or 2 channels], "label": int} of an autoencoder's .npy files.

    A file holds [channels, size, size] (a leading axis of 1 is dropped); twice the channels are means, then standard
    deviations, from which training draws anew each time.
    """

    def __init__(self, path: epath.PathLike, size: int, channels: int, scale: float, num_classes: int):
        """
        Args:
          scale: what every value is multiplied by.
        """
        super().__init__(path, LATENT_SUFFIXES, num_classes)
        self._shapes = [(factor * channels, size, size) for factor in (1, 2)]
        self._scale = np.float32(scale)
        _ = self[0]

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        try:
            latent = np.load(io.BytesIO(self.read(name)), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise UserError(f"{self.path}: {name} is not a readable .npy file") from error
        latent = latent[0] if latent.ndim == 4 and len(latent) == 1 else latent
        if latent.shape not in self._shapes:
            raise UserError(
                f"{self.path}: {name} has shape {latent.shape}, not {self._shapes[0]} or, with standard deviations, "
                f"{self._shapes[1]}"
            )
        return {"image": latent.transpose(1, 2, 0).astype(np.float32) * self._scale, "label": self.labels[index]}


def centre_square(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size channel"]:
    """The largest centred square, resized: means of 2x2 pixels while twice too large, then bicubic.

    The preparation of ImageNet in Dhariwal & Nichol 2021, which the DiT, SiT and EDM papers follow.
    """
    while min(image.size) >= 2 * size:
        image = image.reduce(2)
    scale = size / min(image.size)
    if scale != 1.0:
        width, height = (round(side * scale) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = ((side - size) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))
