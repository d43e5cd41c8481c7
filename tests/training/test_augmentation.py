"""If these fail, EDM's geometric augmentations distort the images, or the network is told wrongly of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from diffcurr.training import augmentation
from diffcurr.training.augmentation import Transformations


def nothing(number: int = 1, **changes: float) -> Transformations:
    """No transformation, but for those named."""
    values = {name: jnp.full(number, changes.get(name, 0.0)) for name in Transformations._fields}
    return Transformations(**values)


def smooth(side: int = 32) -> np.ndarray:
    """A picture that two interpolations agree on, without symmetry: [1, side, side, 2]."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    first = np.exp(-8 * ((x - 0.3) ** 2 + 2 * (y + 0.1) ** 2)) - 0.5 * np.exp(-9 * ((x + 0.4) ** 2 + (y - 0.3) ** 2))
    return np.stack([first, np.cos(2 * x + y) * np.exp(-2 * (x**2 + y**2))], -1)[None].astype(np.float32)


def test_the_filter_is_an_orthonormal_wavelet() -> None:
    """Unit energy, orthogonal to its own even shifts, and six vanishing moments of its mirror: this defines sym6."""
    taps = np.asarray(augmentation.SYM6)
    for shift in range(6):
        np.testing.assert_allclose(np.dot(taps[2 * shift :], taps[: 12 - 2 * shift]), float(shift == 0), atol=1e-10)
    mirror = taps[::-1] * (-1.0) ** np.arange(12)
    for moment in range(6):
        assert abs(np.dot(mirror, np.linspace(-1, 1, 12) ** moment)) < 1e-10


def test_nothing_changes_nothing() -> None:
    images = jax.random.normal(jax.random.key(0), (4, 9, 9, 3))
    np.testing.assert_allclose(augmentation.transform(images, nothing(4)), images, atol=2e-6)
    kept, labels = augmentation.augment(jax.random.key(1), images, 0.0)
    mirrored = np.asarray(labels[:, 0]) == 1
    assert 0 < mirrored.sum() < 4 and not np.any(labels[:, 1:])
    np.testing.assert_allclose(kept, np.where(mirrored[:, None, None, None], images[:, :, ::-1], images), atol=2e-6)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"flip_x": 1}, lambda x: x[:, :, ::-1]),
        ({"flip_y": 1}, lambda x: x[:, ::-1]),
        ({"shift_x": 1}, lambda x: np.pad(x, [(0, 0), (0, 0), (4, 0), (0, 0)], mode="reflect")[:, :, :32]),
        ({"shift_y": -1}, lambda x: np.pad(x, [(0, 0), (0, 4), (0, 0), (0, 0)], mode="reflect")[:, 4:]),
        ({"angle": np.pi / 2}, lambda x: np.rot90(x, axes=(1, 2))),
        ({"anisotropy": 1, "anisotropy_angle": np.pi}, None),
        ({"scale": 1.5}, None),
        ({"scale": -2}, None),
        ({"angle": 0.4, "shift_x": 0.5}, None),
        ({"anisotropy": -1.5, "anisotropy_angle": 0.7, "scale": 0.5, "shift_y": 1}, None),
    ],
)
def test_each_transformation(changes: dict, expected) -> None:
    """Whole pixels exactly; anything else as SciPy's splines have it."""
    images = smooth()
    result = np.asarray(augmentation.transform(jnp.asarray(images), nothing(**changes)))
    if expected is not None:
        # The wavelet is almost symmetric, not quite: turned half pixels are not those of the turned picture.
        np.testing.assert_allclose(result, expected(images), atol=0.02 if "angle" in changes else 1e-5)
        return
    t = {name: changes.get(name, 0.0) for name in Transformations._fields}

    def rotation(a: float) -> np.ndarray:
        return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])

    # Forwards, as the paper's table lists them, on (x, y); SciPy wants the way back, on (row, column).
    stretch = np.diag([2 ** (0.2 * t["anisotropy"]), 2 ** (-0.2 * t["anisotropy"])])
    forwards = rotation(t["anisotropy_angle"]) @ stretch @ rotation(-t["anisotropy_angle"])
    forwards = forwards @ rotation(-t["angle"]) * 2 ** (0.2 * t["scale"])
    back = np.linalg.inv(forwards)[::-1, ::-1]
    centre = np.full(2, 15.5)
    shift = np.array([t["shift_y"], t["shift_x"]]) * 32 / 8
    for channel in range(2):
        other = scipy.ndimage.affine_transform(
            images[0, ..., channel], back, centre - back @ (centre + shift), order=3, mode="mirror"
        )
        np.testing.assert_allclose(result[0, ..., channel], other, atol=0.02)


def test_draws() -> None:
    """Each transformation with its probability and distribution; labels that say what was done, 0 where nothing was."""
    drawn = augmentation.draw(jax.random.key(0), 20_000, 0.12)
    share = {name: float(np.mean(np.asarray(value) != 0)) for name, value in drawn._asdict().items()}
    expected = dict.fromkeys(share, 0.12) | {"flip_x": 0.5, "flip_y": 0.06}
    for name, value in share.items():
        assert abs(value - expected[name]) < 0.015, name
    for name in ("scale", "anisotropy", "shift_x", "shift_y"):
        values = np.asarray(getattr(drawn, name))
        np.testing.assert_allclose(values[values != 0].std(), 1.0, atol=0.06)
    np.testing.assert_array_equal(np.asarray(drawn.shift_x) != 0, np.asarray(drawn.shift_y) != 0)
    labels = np.asarray(augmentation.labels(drawn))
    assert labels.shape == (20_000, augmentation.NUM_LABELS)
    np.testing.assert_array_equal(labels[:, 2], drawn.scale)
    np.testing.assert_allclose(np.hypot(labels[:, 3] + 1, labels[:, 4]), 1.0, atol=1e-6)
    np.testing.assert_allclose(np.hypot(labels[:, 5], labels[:, 6]), np.abs(drawn.anisotropy), atol=1e-6)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        augmentation.transform(jnp.zeros((1, 4, 6, 1)), nothing())
