"""A file that is no latent would be trained, or would take the machine's memory."""

import io

import numpy as np
import pytest
from data.making import npy

from diffcurr.data import latents
from diffcurr.data.sources import BadExample

SHAPES = [(2, 4, 4), (4, 4, 4)]
LATENT = np.random.default_rng(0).normal(size=(2, 4, 4))


def header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    out = io.BytesIO()
    out.write(np.lib.format.magic(*version))
    content = text.encode().ljust(118) + b"\n"
    out.write(len(content).to_bytes(2 if version == (1, 0) else 4, "little") + content)
    return out.getvalue()


def claiming(shape: str) -> bytes:
    return header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}") + bytes(100)


def without(value: float) -> np.ndarray:
    return np.where(np.arange(32).reshape(2, 4, 4) == 5, value, LATENT)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4", np.int16])
def test_every_type_of_numbers(kind: type | str) -> None:
    stored = (10 * LATENT).astype(kind)
    expected = stored.transpose(1, 2, 0).astype(np.float32) * np.float32(0.5)
    for array in (stored, stored[None], np.asfortranarray(stored)):
        found = latents.decode(npy(array), SHAPES, np.float32(0.5))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a readable .npy file"),
        (b"\x93NUMPY", "is not a readable .npy file"),
        (b"PK\x03\x04 a zip", "is not a readable .npy file"),
        (npy(LATENT)[:-1], "is cut off: its header claims shape"),
        (npy(LATENT)[:40], "is not a readable .npy file"),
        (claiming("(1000000, 1000000)"), r"is cut off: its header claims shape \(1000000, 1000000\) of <f4"),
        (claiming("(4294967296, 4294967296)"), "is cut off"),
        (claiming("(-1, -8, 4)"), "is cut off"),
        (claiming("(2.5, 4)"), "is not a readable .npy file"),
        (header("{'descr': '<f4'"), "is not a readable .npy file"),
        (header("{}", (3, 0)), r"is of version \(3, 0\)"),
        (npy(np.array([{}], object)), r"is not a readable \.npy file: it holds type \|O; save float32"),
        (npy(np.array(["a"])), r"it holds type <U1"),
        (npy(np.zeros((2, 4, 4), "V2")), r"it holds type \|V2 \(NumPy has no bfloat16\); save float32"),
        (npy(LATENT.astype(complex)), "it holds type <c16"),
        (npy(LATENT[:1]), r"has shape \(1, 4, 4\), not \(2, 4, 4\) or, with standard deviations, \(4, 4, 4\)"),
        (npy(np.float32(1)), r"has shape \(\)"),
        (npy(without(np.nan)), "holds values that are not finite in float32"),
        (npy(without(-np.inf)), "holds values that are not finite in float32"),
        (npy(without(1e300)), "holds values that are not finite in float32"),
        (npy(np.concatenate([LATENT, LATENT])), r"holds standard deviations below 0: of log-variances, store exp"),
    ],
)
def test_refused_in_one_line(content: bytes, message: str) -> None:
    with pytest.raises(BadExample, match=message) as caught:
        latents.decode(content, SHAPES, np.float32(1))
    assert "\n" not in str(caught.value)
