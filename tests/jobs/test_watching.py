"""If a test here fails, to trace a run or to know its utilisation changes it, or shows something else than the run."""

import functools
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
import tiny

from diffcurr import experiment as experiment_lib
from diffcurr.data import pipeline
from diffcurr.errors import UserError
from diffcurr.experiment import Experiment
from diffcurr.jobs import train
from diffcurr.planning import chips
from diffcurr.planning.chips import Chip
from diffcurr.reporting.progress import Progress
from diffcurr.reporting.writers import read_rows
from diffcurr.training.loop import Loop
from diffcurr.training.profiling import Profile

SETTINGS = dict(steps=8, log_every=4, sample_every=0, checkpoint_every=8)
PEAK = 1e9


def plainly(experiment: Experiment) -> tuple[Any, Any]:
    """Parameters after the run's steps, and their average, by a loop that does nothing else."""
    compiled = experiment.compiled
    batches = pipeline.make_iterator(experiment.batches(experiment.dataset.opened()), threads=1)
    state, window = experiment.init_state(), functools.partial(experiment.task.window, experiment)
    loop = Loop(compiled.step, state, compiled.initial_carry(state), batches, compiled.batch_sharding, window)
    for _ in range(experiment.config.steps):
        loop.advance()
    return jax.device_get((loop.state.params, loop.state.ema))


def test_a_trace_and_the_utilisation_change_no_bit(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny.config(**SETTINGS)
    experiment = experiment_lib.from_config(config)
    params, ema = plainly(experiment)
    monkeypatch.setattr(chips, "KINDS", {"cpu": Chip(1e9, PEAK, 1e9, 1e9, ())})
    assert train.run(config, tmp_path / "watched", profile="5:2") == 0
    assert " mfu " in capsys.readouterr().out

    saved = tiny.saved_state(tmp_path / "watched" / "checkpoints" / "8")
    jax.tree.map(np.testing.assert_array_equal, (saved["params"], saved["ema"]), (params, ema))
    (trace,) = (tmp_path / "watched" / "profile").rglob("*.xplane.pb")
    content = trace.read_bytes()
    assert content.count(b"train_step") and b"step_num" in content
    flops = experiment_lib.model_flops(experiment)
    assert flops
    for row in read_rows(tmp_path / "watched"):
        utilisation = flops * row["steps_per_second"] / (jax.device_count() * PEAK)
        assert row["mfu"] == pytest.approx(utilisation, rel=1e-6)


def test_what_is_recomputed_does_not_count() -> None:
    """Forward and backward are three products for each of the forward pass, but for what needs no gradient."""
    plain, full = (experiment_lib.model_flops(tiny.experiment(network__remat=remat)) for remat in ("none", "full"))
    assert plain == full
    # Tokens, width, inner width and features of a patch of tests/tiny.py's DiT, and the products of its layers.
    t, d, p, batch = 4, 8, 16, 16
    block = t * d * (3 * d + d + 8 * d) + 2 * t * t * d + 6 * d * d  # attention, perceptron, modulation
    others = t * 2 * p * d + 256 * d + d * d + 2 * d * d  # patches in and out, time, last modulation
    ungraded = t * p * d + 256 * d  # the gradients of x and of the time's features
    assert plain == batch * 2 * (3 * (block + others) - ungraded)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("TPU v4", "v4"), ("TPU v5 lite", "v5e"), ("TPU v5", "v5p"), ("TPU v5p", "v5p"), ("TPU v6 lite", "v6e")],
)
def test_tpus_are_known(kind: str, name: str) -> None:
    assert chips.known(kind) is chips.TPUS[name]


def test_other_devices() -> None:
    """A slower card of the same family is not taken for the faster one."""
    assert chips.known("NVIDIA H100 80GB HBM3") is chips.GPUS["h100"]
    assert chips.known("NVIDIA A100-SXM4-40GB") is chips.GPUS["a100"]
    assert chips.known("NVIDIA H100 PCIe") is chips.known("cpu") is None
    assert experiment_lib.utilisation(tiny.experiment()) is None


def test_the_status_line(capsys: pytest.CaptureFixture[str]) -> None:
    rates = {"loss": 0.5, "steps_per_second": 2.0, "images_per_second": 32.0, "data_wait": 0.0}
    Progress(10).report(5, rates | {"mfu": 0.4321})
    Progress(10).report(5, rates)
    first, second = capsys.readouterr().out.splitlines()
    assert "images/s  mfu 43.2%  waiting" in first and "images/s  waiting" in second


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("5", "--profile=5: give STEP:STEPS, such as 100:5"),
        ("5:0", "--profile=5:0: give STEP:STEPS"),
        ("-1:2", "--profile=-1:2: give STEP:STEPS"),
        ("7:3", "--profile=7:3: the run ends at step 8: name steps before that"),
        ("1:2", "--profile=1:2: step 1 is the first one here, which compiles: begin at step 2 or later"),
    ],
)
def test_steps_that_cannot_be_traced(wanted: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Profile(wanted, total=8).check(0)
    with pytest.raises(UserError, match="step 21 is the first one here"):
        Profile("21:1", total=40).check(20)
