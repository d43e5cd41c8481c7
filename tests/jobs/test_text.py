"""If this fails, text to image is broken somewhere: captions, a run on them, prompts, or what is said of wrong ones."""

import json
import pathlib

import numpy as np
import pytest
import tiny
import worded
from PIL import Image

import diffcurr
from diffcurr.errors import UserError
from diffcurr.jobs import evaluate, plan, sample, train

guests = worded.guests  # a fixture of this module too

SETTINGS = worded.TEXT | {
    "steps": 4,
    "ema__decay": 0.0,  # what is drawn has learned of the text
    "log_every": 2,
    "checkpoint_every": 0,
    "sample_every": 4,
    "sampling__samples": 6,
    "sampling__steps": 2,
    "sampling__guidance": 2.0,
    "sampling__clip": 0.0,  # after four steps pixels are far beyond the limits
    "dataset__held_out": 0.2,
    "evaluation__samples": 140,
    "evaluation__denoising__images": 20,
    "evaluation__denoising__levels": 3,
    "evaluation__metrics__frechet_distance__resamples": 5,
    "evaluation__features": "digits",
}
PROMPTS = ["the digit three", "a nine that no one has drawn"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run on digits with captions."""
    workdir = tmp_path_factory.mktemp("text") / "run"
    assert train.run(tiny.config(**SETTINGS), workdir) == 0
    return workdir


def test_the_captions_are_encoded_once_and_stand_under_pictures(workdir: pathlib.Path) -> None:
    (texts,) = workdir.glob("text/*/texts.json")
    assert len(json.loads(texts.read_text())["texts"]) == 20
    assert json.loads((workdir / "data.json").read_text())["text_encoder"]["name"] == "hashed"
    with Image.open(workdir / "samples" / "00000004.png") as grid:
        assert grid.size == (3 * 98 + 2, 2 * (96 + 24 + 2) + 2)
        below = np.asarray(grid)[2 + 96 : 2 + 96 + 24]
        assert (below < 128).any() and (below == 255).mean() > 0.5, "no words under the first row"


def test_prompts(workdir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    config = tiny.config(**SETTINGS)
    assert sample.run(config, workdir, prompt=PROMPTS, out=tmp_path / "asked") == 0
    with np.load(tmp_path / "asked" / "samples.npz") as found:
        assert found["captions"].tolist() == PROMPTS * 3
        images = found["images"]
    (tmp_path / "prompts.txt").write_text("\n".join([PROMPTS[0], "", f"  {PROMPTS[1]}"]) + "\n")
    assert sample.run(config, workdir, prompts=str(tmp_path / "prompts.txt"), out=tmp_path / "from file") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "from file" / "samples.npz")["images"], images)
    assert sample.run(config, workdir, prompt=PROMPTS, negative_prompt="grey", out=tmp_path / "not grey") == 0
    assert not np.array_equal(np.load(tmp_path / "not grey" / "samples.npz")["images"], images)
    assert sample.run(config, workdir, out=tmp_path / "of the data") == 0
    unseen = {caption for label in range(10) for caption in worded.caption_of(label)}
    assert set(np.load(tmp_path / "of the data" / "samples.npz")["captions"].tolist()) <= unseen

    run = diffcurr.load_run(workdir)
    np.testing.assert_allclose(run.sample(6, prompts=PROMPTS), images, rtol=1e-5, atol=1e-5)
    assert len(run.sample(prompts=PROMPTS)) == 2 and len(run.sample(prompts=PROMPTS[0], guidance=1.0)) == 1
    x, told = np.zeros((2, 8, 8, 1), np.float32), run.experiment.conditioning.chosen(2, PROMPTS)
    assert not np.array_equal(run.denoise(x, 0.5, told), run.denoise(x, 0.5))


def test_evaluate_says_whether_samples_are_what_their_captions_say(workdir: pathlib.Path) -> None:
    metrics = {"class_agreement": {}, "frechet_distance": {"resamples": 5}}
    config = tiny.config(**SETTINGS)
    config = diffcurr.config.changed(config, {"evaluation": {"metrics": metrics}})
    assert evaluate.run(config, workdir) == 0
    found = json.loads((workdir / "evaluation.json").read_text())["class_agreement"]
    assert found["examples"] == 140 and found["low"] <= found["value"] <= found["high"] and found["chance"] < 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": PROMPTS, "classes": [1]}, "--class and --prompt: give one of them"),
        ({"prompts": "nowhere.txt"}, "--prompts=nowhere.txt: cannot be read .*: give a text file"),
        ({"classes": [1]}, "--class: classes .1.: the network is told texts; give prompts"),
        ({"negative_prompt": "grey", "guidance": 1.0}, "--negative_prompt: .*'grey': needs sampling.guidance"),
    ],
)
def test_wrong_wishes(workdir: pathlib.Path, given: dict, message: str) -> None:
    settings = SETTINGS | ({"sampling__guidance": given.pop("guidance")} if "guidance" in given else {})
    with pytest.raises(UserError, match=message):
        sample.run(tiny.config(**settings), workdir, **given)


@pytest.mark.parametrize(
    ("content", "message"), [(b"\n \n", "holds no prompt"), (b"caf\xe9\n", "cannot be read .*codec")]
)
def test_wrong_files_of_prompts(workdir: pathlib.Path, tmp_path: pathlib.Path, content: bytes, message: str) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        sample.run(tiny.config(**SETTINGS), workdir, prompts=str(tmp_path / "prompts.txt"))


def test_another_encoder(workdir: pathlib.Path) -> None:
    """Whose weights changed without a word in the config; the test's encoder has a salt for it."""
    settings = SETTINGS | {"conditioning": {"name": "text", "encoder": {"name": "hashed", "salt": 1}}}
    with pytest.raises(UserError, match="conditioning.encoder.salt: 0 there, 1 here"):
        sample.run(tiny.config(**settings), workdir)
    data = workdir / "data.json"
    known = data.read_text()
    data.write_text(known.replace('"salt": 0', '"salt": 2'))
    try:
        with pytest.raises(UserError, match="was trained with another text_encoder .*'salt': 2.* there"):
            sample.run(tiny.config(**SETTINGS), workdir)
        with pytest.raises(UserError, match="was trained on other data .text_encoder"):
            train.run(tiny.config(**SETTINGS | {"steps": 8}), workdir)
    finally:
        data.write_text(known)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset__name": "digits"}, "conditioning.name = 'text': dataset digits has no captions"),
        ({"conditioning": {"name": "text", "encoder": {"name": "none"}}}, "conditioning.encoder.name = 'none': choose"),
        ({"conditioning": {"name": "text"}}, "config key 'conditioning.encoder.name' is missing: choose one of minilm"),
    ],
)
def test_configs_that_do_not_fit(settings: dict, message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=message):
        train.run(tiny.config(**SETTINGS | settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_needs_no_weights_of_the_encoder() -> None:
    """Nor the data."""
    config = tiny.config(**SETTINGS | {"conditioning": {"name": "text", "encoder": {"name": "t5", "width": 16}}})
    import jax

    planned = plan.planned_step(config, jax.devices()[:2], {})
    assert planned.batch.condition["text"].shape == (16, 120, 16)
