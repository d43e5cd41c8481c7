"""Images as the patches that a transformer takes for tokens."""

from jaxtyping import Array, Float


def patchify(x: Float[Array, "batch height width channel"], p: int) -> Float[Array, "batch token features"]:
    """Cuts images into p x p patches, row by row; features are ordered (row, column, channel)."""
    b, h, w, c = x.shape
    return x.reshape(b, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, p * p * c)


def unpatchify(
    tokens: Float[Array, "batch token features"], p: int, height: int, width: int
) -> Float[Array, "batch height width channel"]:
    """Inverse of `patchify`."""
    b, _, features = tokens.shape
    x = tokens.reshape(b, height // p, width // p, p, p, features // (p * p))
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, height, width, -1)
