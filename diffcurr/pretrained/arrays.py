"""Arrays of a file of weights: read without trusting it, held against what the network has, and written."""

import hashlib
import math
import os
import zipfile
from collections.abc import Callable, Mapping

import numpy as np
from etils import epath
from safetensors import safe_open
from safetensors.numpy import save

from diffcurr.errors import UserError, first_line
from diffcurr.weights import as_float32, check_names  # JAX, which it imports, lets NumPy know bfloat16

MOST_BYTES = 2**30  # Inception's weights in float64 are a fifth of it
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

Arrays = dict[str, np.ndarray]


def read(
    path: epath.PathLike, most_bytes: int = MOST_BYTES, wanted: Callable[[str], bool] = lambda name: True
) -> tuple[Arrays, dict[str, str]]:
    """(arrays of numbers by name, metadata) of a safetensors file, or of one whose name ends in .npz; never a pickle.

    Args:
      most_bytes: size of the file, unpacked, beyond which it is not read.
      wanted: whether an array of that name is read; the others are left out.

    Raises:
      UserError: naming the file, whatever is wrong with it.
    """
    path = epath.Path(path)
    remedy = "give a safetensors or npz file"
    # Before it is opened, since a pipe would be waited for; epath takes everything but a folder for a file.
    if not path.exists() or (os.path.exists(path) and not os.path.isfile(path)):
        raise UserError(f"{path}: is not a file: {remedy}")
    try:
        return (_read_npz if path.suffix == ".npz" else _read_safetensors)(path, most_bytes, wanted)
    except Exception as error:  # nobody lists what two parsers and the system raise for a spoilt file
        raise UserError(f"{path}: cannot be read ({first_line(error)}): {remedy}") from error


def _read_safetensors(
    path: epath.Path, most_bytes: int, wanted: Callable[[str], bool]
) -> tuple[Arrays, dict[str, str]]:
    """The library holds the header against the size of the file, so no more than that is allocated."""
    _check_size(path.stat().length, most_bytes)
    with safe_open(path, framework="numpy") as tensors:
        found = {}
        for name in filter(wanted, tensors.keys()):
            kind = tensors.get_slice(name).get_dtype()
            if kind not in ("F64", "F32", "F16", "BF16", "BOOL") and kind[0] not in "IU":
                raise ValueError(f"{name!r} is of dtype {kind}: store it as float32")
            found[name] = tensors.get_tensor(name)
        return found, tensors.metadata() or {}


def _read_npz(path: epath.Path, most_bytes: int, wanted: Callable[[str], bool]) -> tuple[Arrays, dict[str, str]]:
    found: Arrays = {}
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        _check_size(sum(member.file_size for member in archive.infolist()), most_bytes)
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name in found or name == member.filename:
                raise ValueError(f"member {member.filename!r} is there twice, or no .npy file")
            if not wanted(name):
                continue
            try:
                found[name] = _read_npy(archive, member)
            except ValueError as error:
                raise ValueError(f"{name!r}: {first_line(error)}") from error
    return found, {}


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """An array whose header is true to the bytes that follow it."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in HEADERS:
            raise ValueError(f"version {version} of the format is not for numbers")
        shape, _, dtype = HEADERS[version](stream)
        left = member.file_size - stream.tell()
        if dtype.kind not in "biuf":
            raise ValueError(f"is of dtype {dtype}: store it as float32 (bfloat16 in a safetensors file)")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != left:
            raise ValueError(f"{left} bytes are not an array of shape {shape} and dtype {dtype}")
        stream.seek(0)
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def to_bytes(arrays: Mapping[str, np.ndarray], facts: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of weights, as PyTorch's libraries read it too.

    Args:
      facts: texts that the file holds beside them.
    """
    return save(dict(arrays), metadata={**(facts or {}), "format": "pt"})  # which diffusers asks for


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """A hash of the weights, whatever file they lie in, in hexadecimal digits."""
    content = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        content.update(f"{name} {array.shape} {array.dtype}".encode())
        content.update(array.tobytes())
    return content.hexdigest()


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"{size} bytes are more than the {most} that it can have")


def check(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Says whether the arrays are those that a network is made from: neither more nor fewer.

    Raises:
      ValueError: naming those that are missing, left over, of another shape, no floats, or not finite in float32.
    """
    check_names(arrays.keys(), shapes.keys())
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape:
            raise ValueError(f"{name}: has shape {array.shape}, in the network {shape}: give the weights of this one")
        as_float32(name, array)
