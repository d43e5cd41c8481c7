"""Where examples come from: arrays in memory, TFDS builders prepared once as array_record files, the user's files.

A source is anything with `len` and integer indexing that gives {"image": [H, W, C], "label": int}; reading one never
imports TensorFlow. Only preparing a TFDS data set does.
"""

import dataclasses
import os
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any, TypeAlias
from urllib.parse import urlparse

import grain
import numpy as np
from etils import epath

from diffcurr.data.files import ImageFiles, LatentFiles
from diffcurr.errors import UserError
from diffcurr.tensorflow_cpu import import_tensorflow

Source: TypeAlias = grain.sources.RandomAccessDataSource
"""`len` and integer indexing; here each item is {"image": [H, W, C], "label": int}."""


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What the rest of the program must know of a data set before it reads one example.

    Attributes:
      name: as in `dataset.name`.
      image_size: height and width.
      channels: number of channels.
      num_classes: number of labels; 0 for none.
      max_value: the largest pixel value; images are scaled from [0, max_value] to [-1, 1]. None for an autoencoder's
        latents, which are left as they are.
      flip: whether a mirrored image is still one of the data set (not so for digits, nor for Fashion-MNIST, whose
        shoes all point left).
      builder: name of the TFDS builder, where there is one.
      files: whether the user brings it, as a folder or zip of files.
    """

    name: str
    image_size: int
    channels: int
    num_classes: int
    max_value: float | None
    flip: bool
    builder: str = ""
    files: bool = False


DATASETS = {
    info.name: info
    for info in (
        DatasetInfo("digits", 8, 1, 10, 16.0, flip=False),
        DatasetInfo("fashion_mnist", 28, 1, 10, 255.0, flip=False, builder="fashion_mnist"),
        DatasetInfo("cifar10", 32, 3, 10, 255.0, flip=True, builder="cifar10"),
        DatasetInfo("ffhq64", 64, 3, 0, 255.0, flip=True, files=True),
        DatasetInfo("imagenet64", 64, 3, 1000, 255.0, flip=True, files=True),
        DatasetInfo("ffhq256_latents", 32, 4, 0, None, flip=False, files=True),
        DatasetInfo("imagenet256_latents", 32, 4, 1000, None, flip=False, files=True),
    )
}


class ArraySource:
    """Images and labels held in memory."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self._images[index], "label": self._labels[index]}

    def __repr__(self) -> str:
        return f"ArraySource({len(self)} images of shape {self._images.shape[1:]})"


def open_source(
    info: DatasetInfo, split: str = "train", data_dir: str | None = None, *, latent_scale: float = 1.0
) -> Source:
    """Opens a split, preparing the data set first if it is not there.

    Args:
      info: one of DATASETS.
      split: as TFDS names it; `digits` has `train` alone: all its 1,797 images. Of the user's files, the folder of
        that name under `data_dir` where there is one; otherwise they are `train`.
      data_dir: where prepared data sets lie, TFDS's own default if None; the user's folder or zip.
      latent_scale: what latents are multiplied by.

    Raises:
      UserError: if the data set is neither prepared nor can its files be had, or there is no such split.
    """
    if info.files:
        return _open_files(info, split, data_dir, latent_scale)
    if not info.builder:
        if split != "train":
            raise UserError(f"dataset.split = {split!r}: {info.name} has one split, 'train'")
        from sklearn.datasets import load_digits  # only here: it costs a second

        digits = load_digits()
        return ArraySource(digits.images[..., None].astype(np.uint8), digits.target.astype(np.int32))

    import tensorflow_datasets as tfds

    builder = tfds.builder(info.builder, data_dir=data_dir or None, file_format="array_record")
    if not builder.data_path.exists():
        prepare(builder)
    if split.split("[")[0] not in builder.info.splits:
        raise UserError(f"dataset.split = {split!r}: {info.name} has {', '.join(sorted(builder.info.splits))}")
    return builder.as_data_source(split=split)


def _open_files(info: DatasetInfo, split: str, data_dir: str | None, latent_scale: float) -> Source:
    if not data_dir:
        what = "latents (.npy)" if info.max_value is None else "images"
        raise UserError(f"dataset.data_dir is missing: {info.name} is brought by you, a folder or zip of {what}")
    path = epath.Path(data_dir)
    if (path / split).is_dir():
        path = path / split
    elif split != "train":
        raise UserError(f"dataset.split = {split!r}: there is no folder {path / split}")
    if info.max_value is None:
        return LatentFiles(path, info.image_size, info.channels, latent_scale, info.num_classes)
    return ImageFiles(path, info.image_size, info.num_classes)


def prepare(builder: Any) -> None:
    """Downloads (or takes from the manual folder) and prepares a TFDS data set, once. Imports TensorFlow.

    Raises:
      UserError: within about ten seconds, if a file is neither in the manual folder nor its host reachable: which
        file, where from, where to put it.
    """
    manual_dir = epath.Path(builder.data_path).parents[1] / "downloads" / "manual"
    missing = [(url, file) for url, file in builder.url_infos.items() if not (manual_dir / str(file.filename)).exists()]
    files = "; ".join(f"{file.filename} (from {url})" for url, file in missing or builder.url_infos.items())
    remedy = f"Fetch {files} elsewhere, put it into {manual_dir}, and run again."
    unreachable = _unreachable([url for url, _ in missing])
    if unreachable:
        raise UserError(
            f"data set {builder.name} is not prepared in {builder.data_path}, and {', '.join(unreachable)} cannot be "
            f"reached. {remedy}"
        )
    import_tensorflow()
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    print(f"preparing data set {builder.name} in {builder.data_path} (once)", file=sys.stderr, flush=True)
    # TFDS complains about a manual folder that does not exist.
    config = tfds.download.DownloadConfig(manual_dir=manual_dir if manual_dir.exists() else None)
    try:
        builder.download_and_prepare(file_format="array_record", download_config=config)
    except (OSError, tfds.download.DownloadError, NonMatchingChecksumError) as error:
        raise UserError(
            f"data set {builder.name} could not be prepared: {' '.join(str(error).split())}. {remedy}"
        ) from error


def _unreachable(urls: Sequence[str], seconds: float = 10.0) -> list[str]:
    """The hosts among these URLs to which no TCP connection can be opened, all tried at once."""
    hosts = {(u.hostname or "", u.port or (443 if u.scheme == "https" else 80)) for u in map(urlparse, urls)}
    if any(os.environ.get(name) for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")):
        return []  # a proxy fetches: a direct connection says nothing
    reached: set[str] = set()

    def connect(host: str, port: int) -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except OSError:
            return
        reached.add(host)

    # Name resolution has no timeout of its own, so each attempt runs in a thread that may be left behind.
    threads = [threading.Thread(target=connect, args=address, daemon=True) for address in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    return sorted({host for host, _ in hosts} - reached)
