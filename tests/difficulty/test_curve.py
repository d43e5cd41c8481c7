"""If these fail, a config's curve is not that of its images: of others, of pixels instead of latents, or cut short."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from diffcurr.codecs.base import WithWeights
from diffcurr.difficulty import analyzed, curve
from diffcurr.difficulty.analyzed import _encoder
from diffcurr.errors import UserError

SETTINGS = {
    "process__num_timesteps": 40,
    "sampling__steps": 2,
    "analysis__images": 300,
    "analysis__samples": 100,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaled(WithWeights):
    """Multiplies by a weight; its standard deviation is not to be used."""

    images_at_once = 8

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return (image_shape[0] * image_shape[1], image_shape[2])

    def abstract_params(self) -> Any:
        return {"weight": jnp.zeros(())}

    def load(self) -> Any:
        return {"weight": np.float32(3.0)}

    def encode_with(self, params: Any, images: Any) -> Any:
        latents = images.reshape(len(images), -1, images.shape[-1]) * params["weight"]
        return latents, jnp.full_like(latents, 1e3)

    def decode_with(self, params: Any, latents: Any) -> Any:
        return latents.reshape(-1, 8, 8, 1) / params["weight"]


def measured(**settings: Any) -> Any:
    experiment, counted = tiny.experiment(**SETTINGS | settings), []
    data = analyzed.load_data(experiment, lambda _: None)
    found = curve.measure(experiment, data, lambda what, unit: lambda *parts: counted.append((what, unit, *parts)))
    last = [one for one in counted if one[0] == "relative entropy"][-1]
    assert last == ("relative entropy", "pairs x levels", 300 * 100 * 39, 300 * 100 * 39)
    return found


def test_in_memory_and_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small data on one device are one array; on several, or in several blocks, the curve is the same."""
    in_blocks = measured(analysis__block=90)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    whole = measured()
    np.testing.assert_allclose(in_blocks.value, whole.value, rtol=1e-5)
    np.testing.assert_allclose(in_blocks.standard_error[8:], whole.standard_error[8:], rtol=1e-3)


def test_latents_are_encoded_as_they_are_read() -> None:
    experiment = tiny.experiment(**SETTINGS)
    pixels = analyzed.load_data(experiment, lambda _: None)
    latents = analyzed.load_data(dataclasses.replace(experiment, codec=Scaled()), lambda _: None)
    assert latents.shape == (64, 1) and latents.points.dimension == 64
    np.testing.assert_array_equal(latents.examples.x, 3.0 * pixels.examples.x.reshape(300, 64, 1))
    np.testing.assert_array_equal(next(iter(latents.points)).x, 3.0 * next(iter(pixels.points)).x)
    part = pixels.examples._replace(x=pixels.examples.x[:5])
    np.testing.assert_array_equal(_encoder(Scaled())(part).x, latents.examples.x[:5])


def test_networks_see_the_first_images() -> None:
    """Of data that do not fit, as many as a block; points of all blocks are all images."""
    whole, some = (
        analyzed.load_data(tiny.experiment(**SETTINGS | {"analysis__block": block}), lambda _: None)
        for block in (1000, 90)
    )
    assert len(whole.examples.x) == 300 and len(some.examples.x) == len(some.examples.condition["label"]) == 90
    np.testing.assert_array_equal(some.examples.x, whole.examples.x[:90])
    rows = np.concatenate([rows.x[rows.number > 0] for rows in some.points])
    np.testing.assert_array_equal(rows, whole.examples.x.reshape(300, -1))


def test_a_covariance_that_no_memory_holds() -> None:
    experiment = tiny.experiment(**SETTINGS)
    data = dataclasses.replace(analyzed.load_data(experiment, lambda _: None), shape=(256, 256, 3))
    with pytest.raises(UserError, match="images of 196,608 values, whose covariance would take 309 GB: analyze their"):
        curve.look(experiment, data, lambda what, unit: lambda *parts: None, covariance=True)
