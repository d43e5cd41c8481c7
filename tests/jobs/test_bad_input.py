"""If a test here fails, a mistake in a config or a flag costs compute, or is not one line with its value and remedy."""

import json
import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
import tiny
from etils import epath

from diffcurr import experiment
from diffcurr.errors import UserError
from diffcurr.jobs import features, train
from diffcurr.training.workdir import make_writable

BAD_VALUES = {
    "clusters 0": ({"curriculum__clusters": 0}, "curriculum.clusters = 0: must be an integer from 1 to 1000"),
    "clusters > T": (
        {"curriculum__clusters": 201, "process__num_timesteps": 200},
        "curriculum: clusters = 201: the process has only 200 noise levels",
    ),
    "edges fall": (
        {"curriculum__clustering": {"name": "edges", "at": (0, 0.5, 0.4, 1)}},
        r"curriculum: clustering.at = .* must rise strictly, but 0.5 is followed by 0.4",
    ),
    "edges and clusters": (
        {"curriculum__clustering": {"name": "edges", "at": (0, 0.5, 1)}},
        r"curriculum: clustering.at = \(0, 0.5, 1\): clusters = 3 needs 4 edges",
    ),
    "edges unused": (
        {"curriculum__clustering__at": (0, 0.2, 0.5, 1)},
        "config key 'curriculum.clustering.at' is unknown: .*; curriculum.clustering.name = 'edges' has it",
    ),
    "a negative seed": ({"seed": -1}, "seed = -1: must be an integer from 0 to 2\\^32 - 1"),
    "a large seed": ({"seed": 2**32}, "seed = 4294967296: must be an integer from 0 to 2\\^32 - 1"),
    "patience": ({"curriculum__patience": 0}, "curriculum: patience = 0: must be an integer from 1"),
    "order": ({"curriculum__order": "up"}, "curriculum: order = 'up': choose one of easy_to_hard"),
    "clustering": (
        {"curriculum__clustering": "even"},
        "curriculum.clustering.name = 'even': choose one of uniform, log_snr",
    ),
    "rule": ({"curriculum": "often"}, "curriculum.name = 'often': choose one of patience, fixed"),
    "batch": ({"batch_size": 17}, "batch_size = 17: must be divisible by 8, .* the next such size is 24"),
    "microbatches": (
        {"microbatches": 3},
        "batch_size = 16: must be divisible by 24, the 8 devices .* microbatches = 3",
    ),
    "patch": ({"network__patch_size": 3}, "network dit: patch_size = 3: must divide the image's side of 8"),
    "mesh": ({"mesh__data": 3}, "mesh: data = 3, fsdp = 1, tensor = 1: their product must be the number of devices, 8"),
    "data set": ({"dataset__name": "mnist"}, "dataset.name = 'mnist': choose one of digits, fashion_mnist, cifar10"),
    "no classes": (
        {"dataset__name": "ffhq64"},
        "conditioning: name = 'class': the data set has no classes; choose none, or see dataset.classes",
    ),
    "augmentation": ({"dataset__augment": 1.5}, r"dataset: augment = 1.5: must be a number in \[0, 1\]"),
    "augmentation unknown to DiT": (
        {"dataset__augment": 0.1},
        "network dit: DiT takes no augment; for dataset.augment choose song_unet, or set it to 0",
    ),
    "mirrored twice": (
        {"dataset": {"name": "cifar10", "augment": 0.1}, "network": "song_unet"},
        "dataset: augment = 0.1: mirrors images itself; set flip = False",
    ),
    "latents clipped": (
        {"dataset__name": "imagenet256_latents"},
        "sampling: clip = 1.0: latents have no limits; give 0",
    ),
    "latents scaled": (
        {"dataset": {"name": "imagenet256_latents", "latent_scale": 0.0}},
        "dataset: latent_scale = 0.0: must be a number above 0",
    ),
    "data brought": (
        {"dataset__name": "imagenet256_latents", "sampling__clip": 0.0},
        "dataset.data_dir is missing: give the folder or zip of your latents",
    ),
    "split": ({"dataset__split": "test"}, "dataset: split = 'test': choose one of train"),
    "schedule": ({"process__schedule": "square"}, "process: schedule = 'square': choose one of linear, cosine"),
    "solver": (
        {"sampling__solver": "euler"},
        "sampling.solver.name = 'euler': choose one of ddim, ancestral, heun, sde, adaptive",
    ),
    "sde": ({"sampling__solver": "sde"}, "sampling: solver = 'sde': needs continuous time, which DDPM lacks"),
    "churn": (
        {"process": "flow", "sampling__solver": {"name": "heun", "churn": (1.0, 0.0, 1.0, 1.0)}},
        r"sampling: churn = \(1.0, 0.0, 1.0, 1.0\): needs the process edm",
    ),
    "churn without heun": (
        {"process": "edm", "sampling__solver__churn": (1.0, 0.0, 1.0, 1.0)},
        "config key 'sampling.solver.churn' is unknown: .*; sampling.solver.name = 'heun' has it",
    ),
    "guided channels": ({"sampling__guidance_channels": 2}, "guidance_channels = 2: there are 1 channels"),
    "guided interval": (
        {"sampling__guidance_interval": (0.5, 0.2)},
        "guidance_interval = .*: two rising quantiles in",
    ),
    "weighting": (
        {"process__weighting": "snr"},
        "process.weighting.name = 'snr': choose one of constant, edm, min_snr",
    ),
    "sampling steps": ({"sampling__steps": 1001}, "sampling: steps = 1001: choose between 1 and the 1000 timesteps"),
    "guidance": (
        {"conditioning": "none", "sampling__guidance": 2.0},
        "sampling: guidance = 2.0: the network is unconditional; choose a conditioning",
    ),
    "conditioning": ({"conditioning": "sound"}, "conditioning.name = 'sound': choose one of none, class, text"),
    "class dropout": ({"conditioning__dropout": 1.5}, r"conditioning: dropout = 1.5: must be a number in \[0, 1\)"),
    "codec": ({"codec": "zip"}, "codec.name = 'zip': choose one of identity"),
    "metric": (
        {"evaluation__metrics": {"fid": {}}},
        "evaluation.metrics = 'fid': choose one of frechet_distance, kernel_distance, precision_recall",
    ),
    "learning rate": ({"optimizer__learning_rate": 0.0}, "optimizer: learning_rate = 0.0: must be a number above 0"),
    "cosine": ({"optimizer__schedule": "cosine", "optimizer__warmup_steps": 20}, "warmup_steps = 20: must be fewer"),
    "wsd": ({"optimizer__schedule": "wsd"}, "optimizer: decay_share = 0.0: schedule = 'wsd' needs it above 0"),
    "weight decay": (
        {"optimizer__weight_decay": 0.1},
        "config key 'optimizer.weight_decay' is unknown: .*; optimizer.name = 'adamw' or 'muon' or 'adafactor' has it",
    ),
    "ema": ({"ema__decay": 1.0}, r"ema.decay = 1.0: must be a number in \[0, 1\)"),
    "ema ramp-up": ({"ema__rampup": -0.1}, "ema.rampup = -0.1: must be a number of at least 0"),
    "steps": ({"steps": 0}, "steps = 0: must be an integer from 1"),
    "interval": ({"log_every": -1}, "log_every = -1: must be an integer from 0"),
    "dtype": ({"dtype": "float16"}, "dtype = 'float16': choose one of float32, bfloat16"),
}


@pytest.mark.parametrize(("overrides", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_values(overrides: dict, message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        train.run(tiny.config(**overrides), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("section", "key", "message"),
    [
        (None, "pacience", "config key 'pacience' is unknown"),
        ("curriculum", "patince", "'curriculum.patince' is unknown: did you mean 'patience'"),
        ("network", "widht", "'network.widht' is unknown: there are attention, depth"),
        ("network", "num_classes", "'network.num_classes' follows from other settings"),
        ("network", "learn_sigma", "'network.learn_sigma' follows from other settings"),
        ("process", "timesteps", "'process.timesteps' is unknown: did you mean 'num_timesteps'"),
        ("sampling", "stepz", "'sampling.stepz' is unknown: did you mean 'sampling.steps'"),
        ("conditioning", "num_classes", "'conditioning.num_classes' follows from other settings"),
        (None, "class_dropout", "'class_dropout' is now 'conditioning.dropout'"),
        ("sampling", "eta", "'sampling.eta' is now 'sampling.solver.eta'"),
        ("curriculum", "pacing", "'curriculum.pacing' is now 'curriculum.name'"),
        ("curriculum", "entropy_power", "'curriculum.entropy_power' is now 'curriculum.clustering.power'"),
        ("process", "speed_tau", "'process.speed_tau' is now 'process.density.tau and process.weighting.tau'"),
    ],
)
def test_unknown_keys_of_a_config_file(section: str | None, key: str, message: str) -> None:
    config = tiny.config()
    with config.unlocked():
        (config[section] if section else config)[key] = 1
    with pytest.raises(UserError, match=message):
        experiment.from_config(config)


def test_a_missing_key() -> None:
    config = tiny.config()
    with config.unlocked():
        del config.curriculum["clusters"]
    with pytest.raises(UserError, match="'curriculum.clusters' is missing: start the config from"):
        experiment.from_config(config)


def test_a_missing_setting_of_a_part_takes_its_default() -> None:
    config = tiny.config(curriculum__order="none")
    with config.unlocked():
        del config.curriculum["order"]
    assert experiment.from_config(config).config.curriculum.order == "easy_to_hard"


def test_workdir_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--workdir=.*file/run: cannot be written .*: name another folder$"):
        train.run(tiny.config(), tmp_path / "file" / "run")


def test_results_that_could_not_be_written(tmp_path: pathlib.Path) -> None:
    """Each job that writes results tries the folder first, and leaves nothing there by that."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--workdir=.*file: cannot be written \(.*\): name another folder"):
        features.run(tiny.config(), tmp_path / "file")
    make_writable(epath.Path(tmp_path / "new" / "folder"))
    assert not list((tmp_path / "new" / "folder").iterdir())


def test_a_folder_where_a_run_writes_a_file(tmp_path: pathlib.Path) -> None:
    """Said before anything is computed, not when the file is due."""
    (tmp_path / "curriculum.png").mkdir()
    with pytest.raises(UserError, match=r"curriculum.png: is a folder, where a run writes a file: move it"):
        train.run(tiny.config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["curriculum.png"]


def test_a_workdir_that_could_not_be_read_again(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint library takes these characters for a pattern, in the folders above the workdir too."""
    (tmp_path / "a[1]").mkdir()
    monkeypatch.chdir(tmp_path / "a[1]")
    for workdir, found in (("run", "[ and ]"), (tmp_path / "what?", "?"), (tmp_path / "all*", "*")):
        with pytest.raises(UserError, match=f"its path has {re.escape(found)}, with which no checkpoint .* --workdir"):
            train.run(tiny.config(), workdir)
    assert not list((tmp_path / "a[1]").iterdir())


def fails(process: "subprocess.Popen[str]") -> str:
    """The error line of a command that must fail."""
    out, err = process.communicate(timeout=60)
    lines = [line for line in err.splitlines() if line.strip()]
    assert process.returncode == 2, out + err
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    return lines[0]


def test_the_command_line(start: Callable, tmp_path: pathlib.Path) -> None:
    """All at once, since each costs an import of JAX: flags -> one line and exit code 2."""
    commands = {
        '--config.curriculum.patince: the config has no such key. Did you mean "patience"': start(
            tmp_path / "a", "--config.curriculum.patince=3"
        ),
        "--config.process.distribution: the config has no such key. It is now process.density.name.": start(
            tmp_path / "h", "--config.process.distribution=speed"
        ),
        "--config.class_conditional: the config has no such key. It is now conditioning.name.": start(
            tmp_path / "i", "--config.class_conditional=True"
        ),
        '--config.process.weighting.gama: the config has no such key. Did you mean "gamma"': start(
            tmp_path / "j", "--config.process.weighting=min_snr", "--config.process.weighting.gama=2"
        ),
        "optimizer.name = 'sgd': choose one of adam, adamw, muon": start(tmp_path / "k", "--config.optimizer=sgd"),
        "invalid literal for int() with base 10: 'many'": start(tmp_path / "b", "--config.steps=many"),
        "--config is missing": start(tmp_path / "c", tiny=False),
        "--config=nowhere.py: there is no such file; give a path or one of cifar10, coco256_speed, ": start(
            tmp_path / "d", "--config=nowhere.py", tiny=False
        ),
        "--config=nonsense: there is no such file; give a path or one of cifar10, coco256_speed, ": start(
            tmp_path / "l", "--config=nonsense", tiny=False
        ),
        "--config=configs/digits.py:vp: variant 'vp': choose one of ddpm, ddpm_speed, edm, flow": start(
            tmp_path / "g", "--config=configs/digits.py:vp", tiny=False
        ),
        "--config=digits:nonsense: variant 'nonsense': choose one of ddpm, ddpm_speed, edm, flow": start(
            tmp_path / "m", "--config=digits:nonsense", tiny=False
        ),
        "--config=configs/imagenet256_dit_b_2.py: is now --config=imagenet256:dit_b_2": start(
            tmp_path / "n", "--config=configs/imagenet256_dit_b_2.py", tiny=False
        ),
        "patience = 0": start(tmp_path / "e", "--config.curriculum.patience=0"),
        "conditioning.name = 'text': dataset digits has no captions": start(
            tmp_path / "g", "--config.conditioning.encoder=minilm", "--config.conditioning=text"
        ),
        "'surprise' is not a flag": start(tmp_path / "f", "surprise"),
    }
    for words, process in commands.items():
        assert words in fails(process)
    assert not list(tmp_path.iterdir())


def test_parts_switched_by_flags(start: Callable, tmp_path: pathlib.Path) -> None:
    """A part that is named has its own defaults, what both parts share, and the settings beside it, in any order."""
    short = ("--config.steps=2", "--config.log_every=0", "--config.checkpoint_every=0")
    adamw, edm = tmp_path / "adamw", tmp_path / "edm"
    commands = {
        adamw: ("--config.optimizer=adamw", "--config.optimizer.weight_decay=0.1", "--config.process.name=flow"),
        edm: ("--config.process.weighting=min_snr", "--config.process.weighting.gamma=3", "--config.process=edm"),
    }
    found = {}
    for workdir, flags in commands.items():
        process = start(workdir, *short, *flags)
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, out + err
        found[workdir] = json.loads((workdir / "config.json").read_text())
    assert found[adamw]["optimizer"]["name"] == "adamw" and found[adamw]["optimizer"]["weight_decay"] == 0.1
    assert found[adamw]["optimizer"]["learning_rate"] == 1e-3  # that of the config, which Adam has too
    assert found[adamw]["process"]["name"] == "flow" and found[adamw]["process"]["path"] == "linear"
    assert found[adamw]["process"]["prediction"] == {"name": "velocity"}
    process = found[edm]["process"]
    assert process["name"] == "edm" and process["prediction"] == {"name": "preconditioned", "sigma_data": 0.5}
    assert process["weighting"] == {"name": "min_snr", "gamma": 3.0}
    assert "schedule" not in process


def test_second_run_in_the_workdir(start: Callable, tmp_path: pathlib.Path) -> None:
    workdir = tmp_path / "run"
    first = start(workdir, "--config.steps=1000000", "--config.log_every=10")
    deadline = time.monotonic() + 60
    while not (workdir / "metrics.jsonl").exists():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    message = fails(start(workdir, "--config.steps=1000000", "--config.log_every=10"))
    assert f"in use by a run that is still active (process {first.pid} on" in message and "--workdir" in message
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    # The claim dies with its process, even with one that could not let go of it.
    third = start(workdir, "--config.steps=10", "--config.log_every=10")
    assert third.communicate(timeout=60) and third.returncode == 0
