"""If these fail, `diffcurr.load_run` opens another network than was trained, or samples and denoises otherwise."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from ml_collections import ConfigDict

import diffcurr
from diffcurr import jobs
from diffcurr.config import to_json
from diffcurr.errors import UserError
from diffcurr.run import Run, load_run, open_run

METRICS = {"frechet_distance": {"resamples": 5}, "kernel_distance": {"pairs": 100}, "precision_recall": {"pairs": 100}}


def config() -> ConfigDict:
    """Trained so fast that the averaged weights differ, and that a class makes a difference."""
    return tiny.config(
        steps=8,
        optimizer__learning_rate=0.02,
        ema__decay=0.8,
        sample_every=0,
        sampling__samples=20,
        sampling__steps=4,
        sampling__guidance=2.0,
        evaluation__samples=160,
        evaluation__metrics=METRICS,
    )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert jobs.find("train").run(config(), folder) == 0
    return folder


@pytest.fixture(scope="module")
def run(workdir: pathlib.Path) -> Run:
    return diffcurr.load_run(workdir)


def draw(run: Run, labels: list[int], **settings: Any) -> np.ndarray:
    """Samples of these classes, by the sampler itself."""
    sampler = dataclasses.replace(
        run.experiment.sampler, settings=dataclasses.replace(run.experiment.sampling, **settings)
    )
    condition = {"label": np.asarray(labels, np.int32)}
    return sampler.draw(run.params, run.experiment.sample_key(), condition, len(labels))


def test_what_was_trained(run: Run, workdir: pathlib.Path) -> None:
    assert to_json(run.config) == to_json(config()) == json.loads((workdir / "config.json").read_text())
    assert run.step == 8 and isinstance(run, diffcurr.Run)
    assert run.experiment.config.is_locked


def test_params_with_and_without_the_average(run: Run, workdir: pathlib.Path) -> None:
    """Averaged is the default; 0.8 of the average and 0.2 of the last step's parameters is not either of them."""
    last = load_run(workdir, ema=False)
    jax.tree.map(np.testing.assert_array_equal, run.state, last.state)
    jax.tree.map(np.testing.assert_array_equal, run.params, run.state.ema)
    jax.tree.map(np.testing.assert_array_equal, last.params, run.state.params)
    bias = "final_linear"
    assert np.max(np.abs(np.asarray(run.params[bias]["kernel"]) - last.params[bias]["kernel"])) > 1e-3
    assert np.max(np.abs(run.sample(4) - last.sample(4))) > 1e-3


def test_the_default_is_what_the_job_draws(run: Run, workdir: pathlib.Path) -> None:
    assert jobs.find("sample").run(config(), workdir) == 0
    with np.load(workdir / "samples.npz") as drawn:
        images = run.sample(20)
        assert images.shape == (20, 8, 8, 1) and drawn["step"] == 8
        np.testing.assert_array_equal(drawn["labels"], np.arange(20) % 10)
        np.testing.assert_allclose(images, drawn["images"], atol=1e-6)


def test_samples_of_the_classes_that_are_asked_for(run: Run) -> None:
    np.testing.assert_allclose(run.sample(4, classes=[3]), draw(run, [3, 3, 3, 3]), atol=1e-6)
    np.testing.assert_allclose(run.sample(4, classes=[3, 5]), draw(run, [3, 5, 3, 5]), atol=1e-6)
    threes, mixed = run.sample(4, classes=[3]), run.sample(4, classes=[3, 5])
    np.testing.assert_allclose(threes[::2], mixed[::2], atol=1e-6)
    assert np.max(np.abs(threes[1::2] - mixed[1::2])) > 1e-3


def test_samples_of_a_seed(run: Run) -> None:
    np.testing.assert_array_equal(run.sample(4, seed=0), run.sample(4))
    other = run.sample(4, seed=1)
    assert np.max(np.abs(other - run.sample(4))) > 0.1
    np.testing.assert_array_equal(other, run.sample(4, seed=1))


def test_samples_with_other_steps_and_guidance(run: Run) -> None:
    """Each is what the sampler draws with that setting; the run's own settings stay what they were."""
    labels = [0, 1, 2, 3]
    first = run.sample(4)
    for settings in ({"steps": 2}, {"guidance": 1.0}, {"guidance": 4.0, "steps": 3}):
        found = run.sample(4, **settings)
        np.testing.assert_allclose(found, draw(run, labels, **settings), atol=1e-6)
        assert np.max(np.abs(found - first)) > 1e-3, settings
    np.testing.assert_array_equal(run.sample(4, steps=4, guidance=2.0), first)
    np.testing.assert_array_equal(run.sample(4), first)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"classes": [3, 10]}, r"classes \[3, 10\]: give some of 0..9"),
        ({"classes": [-1]}, r"classes \[-1\]: give some of 0..9"),
        ({"classes": []}, r"classes \[\]: give some of 0..9"),
        ({"steps": 0}, "steps = 0: must be an integer from 1"),
        ({"steps": 1001}, "steps = 1001: choose between 1 and the 1000 timesteps"),
    ],
)
def test_wishes_that_cannot_be_had(run: Run, wanted: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run.sample(4, **wanted)


@pytest.mark.parametrize(
    ("conditioning", "wanted", "message"),
    [
        ({"name": "none"}, {"guidance": 2.0}, "guidance = 2.0: the network is unconditional"),
        ({"name": "none"}, {"classes": [1]}, r"classes \[1\]: the network is unconditional"),
        ({"name": "class", "dropout": 0.0}, {"guidance": 3.0}, "guidance = 3.0: needs conditioning.dropout above 0"),
    ],
)
def test_wishes_that_another_network_cannot_have(run: Run, conditioning: dict, wanted: dict, message: str) -> None:
    other = Run(tiny.experiment(conditioning=conditioning), run.state)
    with pytest.raises(ValueError, match=message):
        other.sample(4, **wanted)


def noisy() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (6, 8, 8, 1))


@pytest.mark.parametrize("u", [np.float32(0.3), [0.05, 0.2, 0.4, 0.6, 0.8, 0.99]], ids=["one for all", "one for each"])
def test_denoise_is_the_process_s_at_that_quantile(run: Run, u: Any) -> None:
    labels = jnp.arange(6, dtype=jnp.int32)
    found = run.denoise(noisy(), np.asarray(u, np.float32), {"label": labels})
    assert found.shape == (6, 8, 8, 1)

    process = run.experiment.process
    network = nnx.merge(run.experiment.abstract_network[0], run.params)
    time = process.time(jnp.broadcast_to(jnp.asarray(u, jnp.float32), 6))
    expected = process.denoise(lambda x, t: network(x, t, {"label": labels}), noisy(), time)
    np.testing.assert_allclose(found, expected.x0, rtol=1e-4, atol=1e-5)


def test_denoise_takes_one_number_or_one_for_each(run: Run) -> None:
    label = {"label": np.arange(6)}
    np.testing.assert_array_equal(run.denoise(noisy(), 0.3, label), run.denoise(noisy(), np.full(6, 0.3), label))
    apart = run.denoise(np.asarray(noisy()), np.linspace(0.1, 0.9, 6), label)
    for k, u in enumerate(np.linspace(0.1, 0.9, 6)):
        np.testing.assert_allclose(apart[k], run.denoise(noisy(), float(u), label)[k], rtol=1e-4, atol=1e-5)


def test_a_network_that_was_told_something_of_every_x_is_told_something(run: Run) -> None:
    """Of its table of classes the row of "no class" is not there."""
    told = Run(tiny.experiment(conditioning={"name": "class", "dropout": 0.0}), run.state)
    with pytest.raises(UserError, match="condition is missing: conditioning.dropout = 0.0"):
        told.denoise(noisy(), 0.5)


def test_no_condition_is_the_one_that_says_nothing(run: Run) -> None:
    found = run.denoise(noisy(), 0.5)
    null = run.experiment.conditioning.null({"label": jnp.zeros(6, jnp.int32)})
    np.testing.assert_array_equal(null["label"], np.full(6, 10))
    np.testing.assert_array_equal(found, run.denoise(noisy(), 0.5, null))
    assert np.max(np.abs(found - run.denoise(noisy(), 0.5, {"label": jnp.full(6, 3)}))) > 1e-4


def test_evaluate(run: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = run.evaluate(140)
    assert found["frechet_distance"]["examples"] == 140 and found["frechet_distance"]["reference_examples"] == 1797
    assert found["frechet_distance"]["value"] > 2 * found["frechet_distance"]["floor"], "it has hardly been trained"
    assert found["precision"]["examples"] == found["kernel_distance"]["examples"] == 100
    assert run.evaluate()["frechet_distance"]["examples"] == 160
    assert run.evaluate(140) == found, "the same samples are measured the same"
    with pytest.raises(UserError, match="^100 samples to evaluate: give more than the 128 features of digits class"):
        run.evaluate(100)


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_that_is_no_workdir(tmp_path: pathlib.Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError) as error:
            load_run(folder)
        assert f"workdir {folder} holds no config.json" in one_line(error)


def test_a_workdir_without_a_checkpoint(tmp_path: pathlib.Path, workdir: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    for _ in range(2):
        with pytest.raises(UserError) as error:
            load_run(tmp_path)
        assert f"workdir {tmp_path} holds no checkpoint: train first" in one_line(error)
        (tmp_path / "checkpoints").mkdir(exist_ok=True)


def test_a_run_of_another_config_is_not_opened(workdir: pathlib.Path) -> None:
    other = tiny.config(optimizer__learning_rate=0.5)
    with pytest.raises(UserError, match="learning_rate: 0.02 there, 0.5 here") as error:
        open_run(other, workdir)
    one_line(error)
