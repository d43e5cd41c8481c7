"""Each mistake is one line that names the value and the remedy, before any compute."""

import pathlib
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
import tiny

from diffcurr import experiment
from diffcurr.errors import UserError
from diffcurr.jobs import train

BAD_VALUES = {
    "clusters 0": ({"curriculum__clusters": 0}, "curriculum: clusters = 0: there must be at least one"),
    "clusters > T": (
        {"curriculum__clusters": 1001},
        "curriculum: clusters = 1001: the process has only 1000 noise levels",
    ),
    "edges fall": (
        {"curriculum__clustering": "edges", "curriculum__edges": (0, 0.5, 0.4, 1)},
        "curriculum: edges = .* must rise strictly, but 0.5 is followed by 0.4",
    ),
    "edges and clusters": (
        {"curriculum__clustering": "edges", "curriculum__edges": (0, 0.5, 1)},
        "curriculum: edges = .* clusters = 3 needs 4 edges",
    ),
    "edges unused": ({"curriculum__edges": (0, 0.2, 0.5, 1)}, "used only with clustering = 'edges'"),
    "patience": ({"curriculum__patience": 0}, "curriculum: patience = 0: give a number of steps of at least 1"),
    "order": ({"curriculum__order": "up"}, "curriculum: order = 'up': choose one of easy_to_hard"),
    "clustering": (
        {"curriculum__clustering": "even"},
        "curriculum: clustering = 'even': choose one of uniform, log_snr",
    ),
    "batch": ({"batch_size": 17}, "batch_size = 17: must be divisible by 8, .* the next such size is 24"),
    "microbatches": (
        {"microbatches": 3},
        "batch_size = 16: must be divisible by 24, the 8 devices .* microbatches = 3",
    ),
    "patch": ({"network__patch_size": 3}, "network: patch_size = 3: must divide the image's side of 8"),
    "mesh": ({"mesh__data": 3}, "mesh: data = 3, fsdp = 1, tensor = 1: their product must be the number of devices, 8"),
    "data set": ({"dataset__name": "mnist"}, "dataset.name = 'mnist': choose one of digits, fashion_mnist, cifar10"),
    "no classes": ({"dataset__name": "ffhq64"}, "class_conditional = True: ffhq64 has no classes"),
    "augmentation": ({"dataset__augment": 1.5}, r"dataset.augment = 1.5: a probability must lie in \[0, 1\]"),
    "augmentation unknown to DiT": ({"dataset__augment": 0.1}, "network dit: takes no augmentation labels"),
    "mirrored twice": (
        {"dataset__name": "cifar10", "dataset__augment": 0.1, "network": "song_unet"},
        "dataset.augment = 0.1: mirrors images itself; set dataset.flip = False",
    ),
    "latents clipped": (
        {"dataset__name": "imagenet256_latents"},
        "sampling: clip = 1.0: latents have no limits; give 0",
    ),
    "latents scaled": ({"dataset__latent_scale": 0.0}, "dataset.latent_scale = 0.0: must be above 0"),
    "data brought": (
        {"dataset__name": "imagenet256_latents", "sampling__clip": 0.0},
        "dataset.data_dir is missing: imagenet256_latents is brought by you, a folder or zip of latents",
    ),
    "split": ({"dataset__split": "test"}, "dataset.split = 'test': digits has one split, 'train'"),
    "schedule": ({"process__schedule": "square"}, "process: schedule = 'square': choose one of linear, cosine"),
    "solver": (
        {"sampling__solver": "euler"},
        "sampling: solver = 'euler': choose one of adaptive, ancestral, ddim, heun, sde",
    ),
    "sde": ({"sampling__solver": "sde"}, "sampling: solver = 'sde': needs continuous time, which ddpm lacks"),
    "churn": (
        {"process": "flow", "sampling__solver": "heun", "sampling__churn": (1.0, 0.0, 1.0, 1.0)},
        "sampling: churn = .* needs solver = 'heun' and the process edm",
    ),
    "guided channels": ({"sampling__guidance_channels": 2}, "guidance_channels = 2: there are 1 channels"),
    "guided interval": (
        {"sampling__guidance_interval": (0.5, 0.2)},
        "guidance_interval = .*: two rising quantiles in",
    ),
    "weighting": ({"process__weighting": "snr"}, "process: weighting = 'snr': choose one of constant, min_snr"),
    "sampling steps": ({"sampling__steps": 1001}, "sampling: steps = 1001: choose between 1 and the 1000 timesteps"),
    "guidance": ({"class_conditional": False, "sampling__guidance": 2.0}, "guidance = 2.0: needs class_conditional"),
    "learning rate": ({"optimizer__learning_rate": 0.0}, "optimizer: learning_rate = 0.0: must be above 0"),
    "cosine": ({"optimizer__schedule": "cosine", "optimizer__warmup_steps": 20}, "warmup_steps = 20: must be fewer"),
    "ema": ({"ema__decay": 1.0}, r"ema.decay = 1.0: must lie in \[0, 1\)"),
    "ema ramp-up": ({"ema__rampup": -0.1}, "ema.rampup = -0.1: a share of the steps, or 0 for none"),
    "steps": ({"steps": 0}, "steps = 0: must be at least 1"),
    "interval": ({"log_every": -1}, "log_every = -1: a number of steps, or 0 for never"),
    "dtype": ({"dtype": "float16"}, "dtype = 'float16': choose float32 or bfloat16"),
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
        ("curriculum", "patince", "'curriculum.patince' is unknown: did you mean 'curriculum.patience'"),
        ("network", "widht", "'network.widht' is unknown to dit"),
        ("network", "num_classes", "'network.num_classes' follows from other settings"),
        ("network", "learn_sigma", "'network.learn_sigma' follows from other settings"),
        ("process", "timesteps", "'process.timesteps' is unknown to ddpm: did you mean 'num_timesteps'"),
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
        del config.curriculum["order"]
    with pytest.raises(UserError, match="'curriculum.order' is missing"):
        experiment.from_config(config)


def test_workdir_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"workdir .*file/run cannot be written .* choose another with --workdir"):
        train.run(tiny.config(), tmp_path / "file" / "run")


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
        "--config.process.distribution: the config has no such key. What a part takes beside": start(
            tmp_path / "h", "--config.process.distribution=speed"
        ),
        "invalid literal for int() with base 10: 'many'": start(tmp_path / "b", "--config.steps=many"),
        "--config is missing": start(tmp_path / "c", tiny=False),
        "nowhere.py": start(tmp_path / "d", "--config=nowhere.py", tiny=False),
        "error: there is no process 'vp': choose one of ddpm, edm, flow": start(
            tmp_path / "g", "--config=configs/digits.py:vp", tiny=False
        ),
        "patience = 0": start(tmp_path / "e", "--config.curriculum.patience=0"),
        "'surprise' is not a flag": start(tmp_path / "f", "surprise"),
    }
    for words, process in commands.items():
        assert words in fails(process)
    assert not list(tmp_path.iterdir())


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
