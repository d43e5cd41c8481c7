"""An .npy file's bytes -> a latent, of which nothing is taken on trust."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from diffcurr.data.sources import BadExample
from diffcurr.errors import first_line

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_array(content: bytes, kinds: str) -> np.ndarray:
    """The array of an .npy file.

    Args:
      kinds: the kinds of NumPy types that it may have, such as "fiu".

    Raises:
      BadExample: if it is none, is of another type, or is shorter than its header says.
    """
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise BadExample(f"is of version {version} of .npy: only structured arrays need it")
        shape, _, dtype = _HEADERS[version](file)
    except BadExample:
        raise
    except Exception as error:  # a header is parsed as Python, which fails in many ways
        raise BadExample(f"is not a readable .npy file: {first_line(error)}") from error
    if dtype.kind not in kinds:
        bfloat16 = " (NumPy has no bfloat16)" if dtype.kind == "V" else ""
        raise BadExample(f"is not a readable .npy file: it holds type {dtype.str}{bfloat16}; save float32 or integers")
    number = 1
    for length in shape:  # of Python's integers, which do not overflow
        number *= length
    if min(shape, default=0) < 0 or number * dtype.itemsize > len(content) - file.tell():
        raise BadExample(
            f"is cut off: its header claims shape {shape} of {dtype.str}, and there are {len(content):,} bytes"
        )
    file.seek(0)
    array: np.ndarray = np.load(file, allow_pickle=False)
    return array


def decode(
    content: bytes, shapes: Sequence[tuple[int, int, int]], scale: np.float32
) -> Float[np.ndarray, "height width channel"]:
    """The latent of an .npy file, times `scale`.

    Args:
      shapes: shape of a latent, [channels, height, width], and of one that its standard deviations follow.

    Raises:
      BadExample: if it is no array of numbers of such a shape, or a value is not finite or cannot be.
    """
    latent = read_array(content, "fiu")
    latent = latent[0] if latent.ndim == 4 and len(latent) == 1 else latent
    if latent.shape not in shapes:
        raise BadExample(f"has shape {latent.shape}, not {shapes[0]} or, with standard deviations, {shapes[1]}")
    with np.errstate(over="ignore", invalid="ignore"):  # such values are found below
        values = latent.transpose(1, 2, 0).astype(np.float32) * scale
    if not np.isfinite(values).all():
        raise BadExample("holds values that are not finite in float32")
    channels = shapes[0][0]
    if values.shape[-1] > channels and values[..., channels:].min() < 0:
        raise BadExample(
            f"holds standard deviations below 0: of log-variances, store exp(x / 2) in channels {channels}.."
        )
    return values


def decode_label(content: bytes) -> int:
    """The class in DiT's file of one label.

    Raises:
      BadExample: if it is not one integer.
    """
    label = read_array(content, "iu")
    if label.size != 1:
        raise BadExample(f"holds {label.reshape(-1)[:3].tolist()} instead of one integer, the class")
    return int(label.item())
