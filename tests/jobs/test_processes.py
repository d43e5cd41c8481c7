"""If a test here fails, some process compiles twice, depends on the number of devices, or resumes inexactly."""

import pathlib
from collections.abc import Callable

import coded
import jax
import numpy as np
import pytest
import tiny
import worded

from diffcurr import experiment as experiment_lib
from diffcurr.errors import UserError
from diffcurr.jobs import sample, train
from diffcurr.reporting.writers import read_rows
from diffcurr.tasks import Sampled
from diffcurr.training.checkpoint import Checkpoints

guests, coded_guests = worded.guests, coded.coded_guests  # fixtures of this module too

SETTINGS = {  # plain DDPM: tests/training/test_step.py, tests/jobs/test_resume.py
    "EDM, U-Net": {
        "process": "edm",
        "network": "song_unet",
        "sampling__solver": "heun",
        "dataset__augment": 0.5,
        "ema__rampup": 0.05,
    },
    "flow, averages of two widths": {"process": "flow", "sampling__solver": "heun", "ema__widths": (0.05, 0.1)},
    "DDPM, learned variance": {"process": "ddpm, learned variance", "sampling__solver": "ancestral"},
    "rule hold, unbiased": {
        "curriculum": {"name": "hold", "density": {"name": "table", "at": (1, 2, 0.5)}, "unbiased": True},
    },
    "rule schedule": {
        "curriculum": {"name": "schedule", "phases": ({"name": "laplace", "steps": 5}, {"name": "uniform"})},
    },
    "rule information in stages": {
        "curriculum": {"name": "information", "warm_up": 3, "stages": {"name": "patience", "patience": 1}},
    },
    "rule uncertainty": {"curriculum": {"name": "uncertainty", "features": 4}},
    "rule progress": {"curriculum": {"name": "progress", "memory": 10.0}, "process": "flow"},
    "text, U-Net": worded.TEXT | {"network": "song_unet", "process": "edm", "sampling__solver": "heun"},
    "optimizer muon, text with one modulation": worded.TEXT  # every kind of fused kernel
    | {"network__shared_modulation": True, "microbatches": 2, "optimizer": {"name": "muon", "weight_decay": 0.01}},
    "tokens, adafactor": coded.TOKENS
    | {"network__remat": "dots", "microbatches": 2, "optimizer": {"name": "adafactor", "factored_from": 4}},
    "autoencoder": {"task": "autoencoder", "codec": tiny.AUTOENCODER, "conditioning": "none"},
    "tokenizer": {"task": tiny.TOKENIZER_TASK, "codec": tiny.TOKENIZER, "conditioning": "none"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_guarantees(settings: dict, compilations: Callable[[], int], tmp_path: pathlib.Path) -> None:
    """One compilation over the curriculum, on eight devices the run of one, and a resume that changes no bit."""
    one, eight = tiny.experiment(**settings), tiny.experiment(8, **settings)
    compiled, state = one.compiled, one.init_state()
    weights, losses = compiled.initial_carry(state), []
    batches = [tiny.batch(one, step) for step in range(16)]
    for step, batch in enumerate(batches):
        before = compilations()
        state, weights, metrics = compiled.step(state, batch, weights)
        losses.append(jax.device_get(metrics.loss))
        assert compilations() - before == (1 if step == 0 else 0)
    if hasattr(metrics, "stage"):
        assert int(metrics.stage) == one.rule.num_stages
    _, spread = tiny.train(eight, 16)
    np.testing.assert_allclose([m.loss for m in spread], losses, rtol=2e-4)

    settings = settings | dict(
        steps=8,
        log_every=4,
        checkpoint_every=4,
        sample_every=0,
        sampling__steps=3,
        sampling__samples=10,
    )
    assert train.run(tiny.config(**settings), tmp_path / "whole") == 0
    assert train.run(tiny.config(**settings | {"steps": 4}), tmp_path / "parts") == 0
    assert train.run(tiny.config(**settings), tmp_path / "parts") == 0
    abstract = experiment_lib.from_config(tiny.config(**settings)).compiled.abstract_state
    whole, parts = (Checkpoints(tmp_path / name / "checkpoints").restore(abstract) for name in ("whole", "parts"))
    assert whole is not None and parts is not None
    jax.tree.map(np.testing.assert_array_equal, whole[0], parts[0])
    logged = [[row["loss"] for row in read_rows(tmp_path / name)] for name in ("whole", "parts")]
    assert logged[0] == logged[1]
    if not isinstance(one.task, Sampled):
        message = f"task.name = '{one.config.task.name}': samples are drawn of what 'diffusion' or 'tokens' trains"
        with pytest.raises(UserError, match=message):
            sample.run(tiny.config(**settings), tmp_path / "whole")
        return
    assert sample.run(tiny.config(**settings), tmp_path / "whole") == 0
    images = np.load(tmp_path / "whole" / "samples.npz")["images"]
    assert images.shape == (10, 8, 8, 1) and np.all(np.isfinite(images)) and images.std() > 0.05
