"""If a test here fails, the error on held-out images depends on the devices or the run, or is of other images."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from flax import nnx

from diffcurr.errors import UserError
from diffcurr.experiment import Experiment
from diffcurr.metrics.denoising import NAME
from diffcurr.processes import DDPM
from diffcurr.processes.prediction import X0
from diffcurr.sampling import held_out
from diffcurr.sampling.held_out import Denoising, HeldOutError
from diffcurr.training import sharding

SETTINGS = dict(dataset__held_out=0.2, evaluation__denoising__images=21, evaluation__denoising__levels=3)
DENOISING = Denoising(images=21, log_snr=(-2.0, 6.0), levels=3)


def measured(experiment: Experiment) -> dict[str, Any]:
    """Of some weights, none of them 0 as the first ones of the last layers are."""
    found = experiment.held_out_error()
    assert found is not None
    waves = jax.tree.map(
        lambda x: np.cos(np.arange(x.size)).reshape(x.shape).astype(x.dtype) / 4, experiment.abstract_state.ema
    )
    return found(waves)[NAME]


class Told(nnx.Module):
    """Says that x0 is a tenth of the label, and something more."""

    def __init__(self, more: float):
        self.more = nnx.Param(np.float32(more))

    def __call__(self, x: jax.Array, t: jax.Array, condition: dict[str, jax.Array]) -> jax.Array:
        return 0.0 * x + 0.1 * condition["label"][:, None, None, None] + self.more[...]


def of_told(devices: int, more: float, values: np.ndarray | None = None) -> dict[str, Any]:
    """The error of that network on 21 images, of which each is as bright as its label says, but for the last."""
    experiment = tiny.experiment(devices, **SETTINGS)
    found = experiment.held_out_error()
    assert found is not None
    label = np.arange(21, dtype=np.int32) % 10
    x = np.broadcast_to(0.1 * label[:, None, None, None], (21, 8, 8, 1)).astype(np.float32)
    x[-1] += 2.1
    graph, params = nnx.split(Told(more))
    everywhere = jax.tree.map(lambda _: sharding.replicated(experiment.mesh), params)
    images = found.images._replace(x=x, condition={"label": label})
    changed: HeldOutError = dataclasses.replace(
        found,
        graph=graph,
        process=DDPM(prediction=X0()),
        images=images,
        values=values,
        settings=DENOISING,
        param_shardings=everywhere,
    )
    return changed(params)[NAME]


@pytest.mark.parametrize("devices", [1, 4])
def test_each_image_counts_once_with_its_own_label(devices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts that 21 images do not fill; each level with its own noise."""
    monkeypatch.setattr(held_out, "ROWS", 4)
    found = of_told(devices, more=0.5)
    log_snr = np.array([-2.0, 2.0, 6.0])
    errors = np.append(np.full(20, 0.25), 1.6**2)  # of the images, whatever the noise
    assert found["examples"] == 21
    np.testing.assert_allclose(found["log_snr"], log_snr)
    np.testing.assert_allclose(found["x0_error"], np.full(3, errors.mean()), rtol=1e-5)
    np.testing.assert_allclose(found["noise_error"], np.exp(log_snr) * errors.mean(), rtol=1e-5)
    np.testing.assert_allclose(found["noise_error_sd"], np.exp(log_snr) * errors.std(ddof=1), rtol=1e-5)
    assert found["low"] < found["value"] < found["high"]
    # What is beside the integral is the same for another network.
    other = of_told(devices, more=0.0)
    mean = 2.1**2 / 21
    integral = (errors.mean() - mean) * np.trapezoid(np.exp(log_snr), log_snr) / 2
    assert found["value"] - other["value"] == pytest.approx(integral / np.log(2), rel=1e-4)


def test_of_pixels_their_probability_is_bounded() -> None:
    """The entropy of values at the cleanest level stands in the place of the noise's own."""
    density = of_told(1, more=0.0)["value"]
    values = np.linspace(0, 3, 31)
    probability = of_told(1, more=0.0, values=values)["value"]
    # Of values twice as far apart as the noise is wide, the probability is nearly the density times their distance.
    assert probability == pytest.approx(density - np.log2(0.1), abs=0.2)


def test_the_same_on_one_device_and_on_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a network that is told of augmentation in training: here there is none."""
    monkeypatch.setattr(held_out, "ROWS", 8)
    settings = SETTINGS | {"process": "edm", "network": "song_unet", "dataset__augment": 0.5}
    one, four = (measured(tiny.experiment(devices, **settings)) for devices in (1, 4))
    assert one["examples"] == 21 and np.all(np.isfinite(one["noise_error"])) and len(set(one["noise_error"])) == 3
    for name, values in one.items():
        np.testing.assert_allclose(four[name], values, rtol=1e-4, err_msg=name)


def test_the_same_images_and_noise_whatever_the_seed_and_the_process() -> None:
    """They are held-out digits, with their labels."""
    one, seeded, other = (
        tiny.experiment(**SETTINGS, **changes) for changes in ({}, {"seed": 5}, {"seed": 5, "process": "flow"})
    )
    found, again = one.held_out_error(), other.held_out_error()
    assert found is not None and again is not None
    jax.tree.map(np.testing.assert_array_equal, again.images, found.images)
    np.testing.assert_array_equal(found.values, np.linspace(-1, 1, 17))
    unseen = one.dataset.opened_held_out()
    assert len(unseen) == 359
    known = {unseen[i]["image"].tobytes(): int(unseen[i]["label"]) for i in range(359)}
    pixels = np.round((found.images.x + 1) * 8).astype(np.uint8)
    assert [known[x.tobytes()] for x in pixels] == found.images.condition["label"].tolist()
    assert len({x.tobytes() for x in pixels}) == 21
    assert measured(seeded) == measured(one)


def test_latents_of_held_out_pictures_are_noised_as_they_are_trained_on() -> None:
    experiment = tiny.experiment(**SETTINGS, codec=tiny.AUTOENCODER, sampling__clip=0.0)
    assert experiment.encoder is not None
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(x.dtype), experiment.codec.abstract_params())
    experiment.__dict__["codec_params"] = weights  # in the place of those of a file
    found = experiment.held_out_error()
    assert found is not None and found.values is None
    pixels = tiny.experiment(**SETTINGS).held_out_error()
    assert pixels is not None
    np.testing.assert_allclose(found.images.x, experiment.decoder.encoded(pixels.images.x), atol=1e-5)


def test_where_there_is_nothing_to_measure() -> None:
    assert tiny.experiment(**SETTINGS | {"evaluation__denoising__images": 0}).held_out_error() is None
    assert tiny.experiment(**SETTINGS | {"dataset__held_out": 0.0}).held_out_error() is None
    for settings, held in (({"evaluation__denoising__images": 1}, 359), ({"dataset__held_out": 0.0006}, 1)):
        with pytest.raises(UserError, match=f"evaluation.denoising.images = .*: one image of {held} held out"):
            tiny.experiment(**SETTINGS | settings).held_out_error()
    with pytest.raises(
        UserError, match=r"1e-05: of 1797 examples that leaves 0 .*evaluation\.denoising\.images = 0\)$"
    ):
        tiny.experiment(**SETTINGS | {"dataset__held_out": 1e-5}).held_out_error()


def test_noise_levels_that_the_process_lacks() -> None:
    """Are refused before anything is read, unless nothing is measured there."""
    wide = {"evaluation__denoising__log_snr": (-11.0, 8.0)}
    with pytest.raises(
        UserError, match=r"evaluation\.denoising: log-SNR -11 to 8: the process's noise levels lie in -10.12 to 9.21"
    ):
        tiny.experiment(**SETTINGS, **wide)
    for settings in ({"dataset__held_out": 0.0}, {"evaluation__denoising__images": 0}, {"process": "flow"}):
        tiny.experiment(**SETTINGS | settings, **wide)


def test_a_distance_from_held_out_images_needs_some() -> None:
    metric = {"evaluation__metrics": {"held_out_frechet_distance": {}}}
    with pytest.raises(
        UserError,
        match=r"evaluation\.metrics\.held_out_frechet_distance: dataset digits has no images that training never sees; "
        r"set dataset\.held_out",
    ):
        tiny.experiment(**metric)
    assert "held_out_frechet_distance" in tiny.experiment(**SETTINGS, **metric).metrics


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_snr": (8.0, -8.0)}, r"log_snr = \(8.0, -8.0\): give two rising numbers"),
        ({"log_snr": (1.0, 1.0)}, "give two rising numbers"),
        ({"log_snr": (1.0,)}, "log_snr = .*: must be a sequence of 2"),
        ({"levels": 1}, "levels = 1: must be an integer from 2"),
        ({"images": -1}, "images = -1: must be"),
    ],
)
def test_rejects(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DENOISING, **changes)
