"""Reference statistics that others have published: EDM's and ADM's .npz files, which are never unpickled.

EDM's hold `mu` and `sigma`, the mean and the covariance of pool features. ADM's hold `mu_s` and `sigma_s` too, those of
spatial features, and pictures `arr_0`: 10,000 real ones for precision and recall beside the statistics of the whole
data set, or a batch of samples without statistics.
"""

import contextlib
import hashlib
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

import numpy as np
import scipy  # loads its modules when they are named
from etils import epath
from jaxtyping import Float, UInt8

from diffcurr.errors import UserError, first_line
from diffcurr.metrics.frechet import EIGENVALUE_TOLERANCE, Statistics
from diffcurr.pretrained import inception
from diffcurr.pretrained.arrays import HEADERS

MOST_BYTES = 2**34  # ADM's largest reference batch, of 512x512, is half of it
REMEDY = "give reference statistics as EDM and ADM publish them, an .npz of mu and sigma; pickles are not read"


class Published(NamedTuple):
    """What a file of published statistics holds.

    Attributes:
      digest: first digits of the SHA-256 of the file, for reports; `sha256sum` gives it too.
      pool: statistics of the pool features; None where the file holds only pictures.
      spatial: statistics of the spatial features (ADM's); None if they are not in the file.
      pictures: how many the file holds; its statistics may be those of more, and no file says of how many.
    """

    digest: str
    pool: Statistics | None
    spatial: Statistics | None
    pictures: int


def read(
    path: epath.PathLike,
    width: int = inception.WIDTH,
    spatial_width: int = inception.SPATIAL_WIDTH,
    most_bytes: int = MOST_BYTES,
) -> Published:
    """Reads and checks a file of published statistics; its pictures are left to `pictures`.

    The statistics stand as of 2 examples, so that their covariance is the file's: do not merge them with others.

    Args:
      width: number of pool features of the network that samples are looked at with.
      spatial_width: number of its spatial features.
      most_bytes: size of the file, unpacked, beyond which it is not read.

    Raises:
      UserError: naming the file, in one line, whatever is wrong with it.
    """
    path = epath.Path(path)
    with _opened(path, most_bytes) as archive:
        names = {member.filename.removesuffix(".npy") for member in archive.infolist()}
        pool = _statistics(path, archive, names, "mu", "sigma", width)
        spatial = _statistics(path, archive, names, "mu_s", "sigma_s", spatial_width)
        number = 0
        if "arr_0" in names:
            with _array(archive, "arr_0") as (_, shape, _):
                number = shape[0]
        if pool is None and not number:
            raise UserError(f"{path}: holds neither mu and sigma nor pictures arr_0: {REMEDY}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:8]
    return Published(digest, pool, spatial, number)


def pictures(
    path: epath.PathLike, batch: int = 64, most_bytes: int = MOST_BYTES
) -> Iterator[UInt8[np.ndarray, "b height width 3"]]:
    """The pictures that a file of ADM holds, `batch` at a time, without the rest in memory.

    Raises:
      UserError: naming the file, in one line, whatever is wrong with it.
    """
    path = epath.Path(path)
    with _opened(path, most_bytes) as archive, _array(archive, "arr_0") as (stream, shape, _):
        for start in range(0, shape[0], batch):
            part = (min(batch, shape[0] - start), *shape[1:])
            yield np.frombuffer(_exactly(stream.read, math.prod(part)), np.uint8).reshape(part)


def _statistics(
    path: epath.Path, archive: zipfile.ZipFile, names: set[str], mean_name: str, covariance_name: str, width: int
) -> Statistics | None:
    if not names & {mean_name, covariance_name}:
        return None
    found = []
    for name, axes in ((mean_name, 1), (covariance_name, 2)):
        if name not in names:
            raise UserError(f"{path}: holds no {name}: {REMEDY}")
        with _array(archive, name) as (stream, shape, dtype):
            # Before anything is allocated: the file cannot decide what memory is taken.
            if len(shape) == axes and set(shape) != {width}:
                raise UserError(
                    f"{path}: {name} is of {shape[0]} features, these features are {width}: give the statistics of "
                    f"this network, or the features that these are of as evaluation.features"
                )
            if len(shape) != axes:
                raise UserError(f"{path}: {name} has shape {shape}, not {(width,) * axes}: {REMEDY}")
            data = _exactly(stream.read, dtype.itemsize * width**axes)
            found.append(np.frombuffer(data, dtype).reshape(shape).astype(np.float64))
    mean, covariance = found  # a matrix in Fortran's order is its own transpose
    for name, array in ((mean_name, mean), (covariance_name, covariance)):
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {name} holds NaN or infinity: the file is damaged, or its features were")
    _check_covariance(path, covariance_name, covariance)
    return Statistics(2, mean, covariance)


def _check_covariance(path: epath.Path, name: str, covariance: Float[np.ndarray, "feature feature"]) -> None:
    largest = np.abs(covariance).max()
    asymmetry = np.abs(covariance - covariance.T).max()
    if asymmetry > 1e-6 * largest:
        raise UserError(f"{path}: {name} is not symmetric, by {asymmetry:.3g} of {largest:.3g}: {REMEDY}")
    raised = covariance + np.eye(len(covariance)) * (EIGENVALUE_TOLERANCE * covariance.diagonal().max())
    try:
        scipy.linalg.cholesky(raised)
        return  # all are above the tolerance, in a tenth of the time that they take themselves
    except scipy.linalg.LinAlgError:
        values = scipy.linalg.eigvalsh(covariance)
    if values[0] < -EIGENVALUE_TOLERANCE * max(values[-1], -values[0]):
        raise UserError(
            f"{path}: {name} has eigenvalues from {values[0]:.3g} to {values[-1]:.3g}, "
            f"a covariance none below 0: {REMEDY}"
        )


@contextlib.contextmanager
def _opened(path: epath.Path, most_bytes: int) -> Iterator[zipfile.ZipFile]:
    # Before it is opened, since a pipe would be waited for; epath takes everything but a folder for a file.
    if not path.exists() or (os.path.exists(path) and not os.path.isfile(path)):
        raise UserError(f"{path}: is not a file: {REMEDY}")
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > most_bytes:
                raise ValueError(f"{size} bytes are more than the {most_bytes} that it can have")
            yield archive
    except UserError:
        raise
    except Exception as error:  # nobody lists what the parsers and the system raise for a spoilt file
        raise UserError(f"{path}: cannot be read ({first_line(error)}): {REMEDY}") from error


@contextlib.contextmanager
def _array(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
    """(stream at its first number, shape, dtype) of an array whose header is true to the bytes that follow it."""
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in HEADERS:
            raise ValueError(f"{name}: version {version} of the format is not for numbers")
        shape, fortran, dtype = HEADERS[version](stream)
        if name == "arr_0":
            if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or fortran:
                raise ValueError(f"{name}: is of dtype {dtype} and shape {shape}, not uint8 [n, height, width, 3]")
        elif dtype.kind != "f":
            raise ValueError(f"{name}: is of dtype {dtype}, not float64")
        left = member.file_size - stream.tell()
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != left:
            raise ValueError(f"{name}: {left} bytes are not an array of shape {shape} and dtype {dtype}")
        yield stream, shape, dtype


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = read(size)
    if len(data) != size:
        raise ValueError(f"ends after {len(data)} of {size} bytes")
    return data
