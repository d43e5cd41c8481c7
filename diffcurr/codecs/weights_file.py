"""The file of a codec's weights: where it is, and what tells it from another."""

import hashlib

from etils import epath

from diffcurr.errors import UserError

SHIPPED = epath.Path(__file__).parent / "weights"


def path_of(weights: str) -> epath.Path:
    """
    Args:
      weights: the setting `codec.weights`: a path, or the name of a file that is shipped.

    Raises:
      UserError: if it is empty.
    """
    if not weights:
        raise UserError(
            "codec.weights is empty: give the path of a safetensors file with the autoencoder's weights "
            "(docs/codecs.md says where to get one)"
        )
    shipped = {one.stem: one for one in SHIPPED.glob("*.safetensors")}
    return shipped.get(weights, epath.Path(weights).expanduser())


def digest(weights: str) -> str:
    """The first digits of the hash of the file.

    Raises:
      UserError: if it cannot be read.
    """
    path = path_of(weights)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): give a safetensors file") from error
