"""If these fail, a spoilt or foreign file of weights ends in a traceback, in an endless wait or in exhausted memory."""

import io
import json
import os
import pathlib
import struct
import zipfile
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from diffcurr.errors import UserError
from diffcurr.pretrained import arrays


def safetensors(header: Any, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def npz(content: bytes, member: str = "a.npy", compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(member, content)
    return file.getvalue()


def npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def array(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


HEALTHY = npz(array(np.arange(5.0)), compression=zipfile.ZIP_DEFLATED)
SPOILT: dict[str, tuple[str, bytes]] = {
    "empty.safetensors": ("header too small", b""),
    "header of 2^40 bytes.safetensors": ("header too large", struct.pack("<Q", 2**40) + b"{}"),
    "2^62 numbers.safetensors": (
        "overflow computing buffer size",
        safetensors({"a": tensor("F32", [2**62], 0, 2**62)}, b"abcd"),
    ),
    "overlapping.safetensors": (
        "invalid offset",
        safetensors({"a": tensor("U8", [2], 0, 2), "b": tensor("U8", [2], 1, 3)}, b"abc"),
    ),
    "truncated.safetensors": ("not fully covered", save({"a": np.ones(3)})[:-1]),
    "eight bits.safetensors": (
        "'a' is of dtype F8_E4M3: store it as float32",
        safetensors({"a": tensor("F8_E4M3", [2], 0, 2)}, b"ab"),
    ),
    "empty.npz": ("not a zip file", b""),
    "truncated.npz": ("not a zip file", HEALTHY[:-1]),
    "other data.npz": ("while decompressing data", HEALTHY[:60] + b"?" + HEALTHY[61:]),
    "encrypted.npz": ("encrypted", HEALTHY.replace(b"\x14\0\0\0", b"\x14\0\x01\0")),
    "other compression.npz": ("compression method is not supported", HEALTHY.replace(b"\0\0\x08\0", b"\0\0\x63\0")),
    "2^62 numbers.npz": (
        "'a': 4 bytes are not an array of shape (4611686018427387904,)",
        npz(npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**62},)}}", b"abcd")),
    ),
    "negative.npz": (
        "'a': 4 bytes are not an array of shape (-1, -1)",
        npz(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1)}", b"abcd")),
    ),
    "no header.npz": ("EOF in multi-line statement", npz(npy("{'descr': ("))),
    "deep header.npz": ("", npz(npy("-" * 9000 + "1"))),
    "no array.npz": ("'a': EOF: reading magic string", npz(b"hello")),
    "no name.npz": ("member 'a.txt' is there twice, or no .npy file", npz(array(np.ones(2)), "a.txt")),
    "pickle.npz": ("'a': is of dtype object", npz(array(np.asarray([{}], object)))),
    "text.npz": ("'a': is of dtype <U1", npz(array(np.asarray(["a"])))),
    "bfloat16.npz": ("store it as float32 (bfloat16 in a safetensors file)", npz(array(np.ones(2, jnp.bfloat16)))),
}


@pytest.mark.filterwarnings("ignore:Reading `.npy`", "ignore:Custom dtypes")
@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_file_is_one_line(name: str, tmp_path: pathlib.Path) -> None:
    path, (reason, content) = tmp_path / name, SPOILT[name]
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        arrays.read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: cannot be read (") and reason in message and "\n" not in message


def test_what_is_no_file(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path, tmp_path / "pipe.npz", tmp_path / "none.npz"):
        with pytest.raises(UserError, match=f"{path}: is not a file: give a safetensors or npz file"):
            arrays.read(path)


def test_a_large_file_is_not_read(tmp_path: pathlib.Path) -> None:
    """Nor a small one that would be large unpacked."""
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, a=np.zeros(10**6))
    assert path.stat().st_size < 10**4
    with pytest.raises(UserError, match="8000128 bytes are more than the 1000000"):
        arrays.read(path, most_bytes=10**6)


def test_healthy_files(tmp_path: pathlib.Path) -> None:
    """Numbers of every kind, without axes and without elements; bfloat16 only where the format has it."""
    given = {"a": np.ones((2, 3), np.float16), "b": np.asarray(7), "c": np.zeros((0, 2))}
    np.savez(tmp_path / "a.npz", **given)
    (tmp_path / "a.safetensors").write_bytes(save(given | {"d": np.ones(2, jnp.bfloat16)}, {"of": "test"}))
    for kind, facts in (("npz", {}), ("safetensors", {"of": "test"})):
        found, read_facts = arrays.read(tmp_path / f"a.{kind}")
        assert read_facts == facts
        for name, one in given.items():
            np.testing.assert_array_equal(found[name], one, strict=True)
    assert found["d"].dtype == jnp.bfloat16
