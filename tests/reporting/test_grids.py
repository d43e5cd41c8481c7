"""If these fail, grids show other images than they were given."""

import pathlib

import numpy as np
from PIL import Image

from diffcurr.reporting import grids


def test_what_is_invisible_is_white(tmp_path: pathlib.Path) -> None:
    images = np.full((2, 64, 64, 4), -1.0)
    images[1, ..., 3] = 1.0
    grids.save_grid(tmp_path / "grid.png", images, alpha=True)
    picture = np.asarray(Image.open(tmp_path / "grid.png"))
    assert (
        picture.shape == (68, 134, 3) and picture[30, 30].tolist() == [255] * 3 and picture[30, 100].tolist() == [0] * 3
    )


def test_grid(tmp_path: pathlib.Path) -> None:
    images = np.linspace(-1, 1, 5)[:, None, None, None] * np.ones((5, 32, 32, 3))
    grids.save_grid(tmp_path / "grid.png", images, columns=2)
    picture = np.asarray(Image.open(tmp_path / "grid.png"))
    assert picture.shape == (3 * 66 + 2, 2 * 66 + 2, 3)  # three rows of two, enlarged to 64 pixels, 2 pixels apart
    centres = picture[2 + 32 :: 66, 2 + 32 :: 66, 0]
    np.testing.assert_array_equal(centres, [[0, 64], [128, 191], [255, 255]])
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_grid_of_grey_images_is_square(tmp_path: pathlib.Path) -> None:
    grids.save_grid(tmp_path / "grid.png", np.zeros((9, 64, 64, 1)))
    assert Image.open(tmp_path / "grid.png").size == (3 * 66 + 2, 3 * 66 + 2)


def test_grid_of_latents(tmp_path: pathlib.Path) -> None:
    """The first three channels are shown, and values of 3 are white."""
    latents = np.broadcast_to([3.0, 0.0, -3.0, 9.0], (1, 64, 64, 4))
    grids.save_grid(tmp_path / "grid.png", latents)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "grid.png"))[32, 32], [255, 128, 0])
    grids.save_grid(tmp_path / "two.png", latents[..., 1:3])
    assert np.asarray(Image.open(tmp_path / "two.png"))[32, 32] == 128
