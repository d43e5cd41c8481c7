"""If these fail, a trained run cannot be taken elsewhere, or what is written there is not what was trained."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from etils import epath
from ml_collections import ConfigDict
from safetensors import safe_open

from diffcurr import config as config_lib
from diffcurr import experiment as experiment_lib
from diffcurr.codecs.kl import KL
from diffcurr.errors import UserError
from diffcurr.jobs import export
from diffcurr.networks.convert import load_torch
from diffcurr.pretrained import arrays
from diffcurr.training.checkpoint import Restored
from diffcurr.training.state import TrainState, split_network

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[[ConfigDict], TrainState]:
    """Puts a state of a config in the place of the newest checkpoint: random numbers at step 7; compiles nothing."""

    def trained(config: ConfigDict) -> TrainState:
        rng = np.random.default_rng(0)

        def draw(x: jax.ShapeDtypeStruct) -> jax.Array:
            return jax.device_put(rng.random(x.shape, x.dtype) if x.shape else np.full((), 7, x.dtype), x.sharding)

        state = jax.tree.map(draw, experiment_lib.from_config(config).abstract_state)
        monkeypatch.setattr(export, "restored", lambda experiment, workdir: Restored(state, {}, {}, {}))
        return jax.device_get(state)

    return trained


def loaded(path: pathlib.Path, config: ConfigDict) -> Any:
    """The parameters in a file, read as public weights."""
    network = experiment_lib.from_config(config).network_outline
    load_torch(network, arrays.read(path)[0])
    return split_network(network)[1]


def test_a_denoiser(trained: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Averaged weights, or raw ones; public names, or diffusers' layout with what stands beside them there."""
    config = tiny.config(process="ddpm, learned variance", sampling__clip=1.0)
    state = trained(config)
    assert export.run(config, tmp_path) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"wrote model.safetensors into {tmp_path / 'export'}: ") and "averaged" in said
    assert "note" not in said
    file = tmp_path / "export" / "model.safetensors"
    jax.tree.map(np.testing.assert_array_equal, loaded(file, config), state.ema)
    with safe_open(file, framework="numpy") as opened:
        assert opened.metadata() == {"format": "pt", "trained": "step 7", "weights": "averaged"}

    out = tmp_path / "elsewhere"
    assert export.run(config, tmp_path, out=out, format="diffusers", raw=True) == 0
    said = capsys.readouterr().out
    assert "downscale_freq_shift = 0" in said and "what is noised is not encoded: give vae=None" in said
    jax.tree.map(np.testing.assert_array_equal, loaded(out / "transformer" / WEIGHTS, config), state.params)
    index = json.loads((out / "model_index.json").read_text())
    assert index["_class_name"] == "DiTPipeline" and index["vae"] == [None, None]
    assert index["transformer"] == ["diffusers", "DiTTransformer2DModel"]
    transformer = json.loads((out / "transformer" / "config.json").read_text())
    assert (transformer["num_embeds_ada_norm"], transformer["out_channels"]) == (10, 2)
    scheduler = json.loads((out / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == "epsilon" and scheduler["clip_sample"]
    np.testing.assert_allclose(scheduler["trained_betas"], np.linspace(1e-4, 0.02, 1000))


def test_an_autoencoder_and_a_pipeline_with_it(trained: Any, tmp_path: pathlib.Path) -> None:
    """What is exported is what the codec reads; a run in its latents is exported with it."""
    config = tiny.config(codec=tiny.AUTOENCODER, task="autoencoder")
    state = trained(config)
    assert export.run(config, tmp_path / "kl", format="diffusers") == 0
    file = tmp_path / "kl" / "export" / "vae" / WEIGHTS
    codec = KL(weights=str(file), **{key: value for key, value in tiny.AUTOENCODER.items() if key != "name"})
    jax.tree.map(np.testing.assert_array_equal, codec.load(), state.ema)
    vae = json.loads((tmp_path / "kl" / "export" / "vae" / "config.json").read_text())
    assert vae["_class_name"] == "AutoencoderKL" and vae["scaling_factor"] == 1.0 and vae["sample_size"] == 8

    # Nothing is restored: what stands beside the weights follows from the config.
    latents = tiny.config(codec=tiny.AUTOENCODER | {"weights": str(file)}, sampling__clip=0.0)
    experiment = experiment_lib.from_config(latents)
    folder = experiment.task.diffusers(experiment)
    assert folder.configs["model_index.json"]["vae"] == ["diffusers", "AutoencoderKL"]
    assert folder.configs["vae/config.json"] == vae
    found = folder.others[f"vae/{WEIGHTS}"]()
    assert found.keys() == arrays.read(file)[0].keys()
    shifted = config_lib.changed(latents, {"codec": {"shift": 0.5}})
    experiment = experiment_lib.from_config(shifted)
    folder = experiment.task.diffusers(experiment)
    assert not folder.others and "no codec.shift, mean or std" in folder.notes[-1]


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ({}, {}, "holds no checkpoint: train first"),
        ({"process": "edm"}, {"format": "diffusers"}, "--job=export: process EDM: diffusers samples .* by DDPM alone"),
        ({"process__prediction": "score"}, {"format": "diffusers"}, "process.prediction Score: diffusers knows"),
        ({"network": "song_unet"}, {"format": "diffusers"}, "--job=export: diffusers has no SongUNet"),
        ({"network__shared_modulation": True}, {}, "--job=export: this DiT has no public weights"),
    ],
)
def test_what_cannot_be_exported(
    tmp_path: pathlib.Path, settings: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    """In one line, before a checkpoint is read."""
    with pytest.raises(UserError, match=message):
        export.run(tiny.config(**settings), tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out=.*file: cannot be written .*: name another folder"):
        export._write(epath.Path(tmp_path / "file"), {"model.safetensors": bytes})
