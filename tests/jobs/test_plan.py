"""Compiling for chips that are not there: if it fails, a plan says what a pod would not do.

Needs the TPU's compiler, which `launch/test.sh` installs.
"""

import importlib.util
import json
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import pytest
import tiny

from diffcurr import config as config_lib
from diffcurr import experiment as experiment_lib
from diffcurr.errors import UserError
from diffcurr.experiment import Experiment
from diffcurr.jobs import plan
from diffcurr.planning import chips, costs, search


@pytest.fixture
def compiler() -> None:
    if importlib.util.find_spec("libtpu") is None:
        if os.environ.get("CI") and sys.platform == "linux":
            pytest.fail("CI must install libtpu")
        pytest.skip("needs libtpu")


@pytest.mark.usefixtures("compiler")
def test_plan(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A small network on four chips: everything asked for is there, and adds up."""
    monkeypatch.setattr(search, "SEARCH", 1)
    assert plan.run(tiny.config(mesh__fsdp=2, mesh__data=-1), tmp_path, "v5e:2x2") == 0
    facts = json.loads((tmp_path / "plan.json").read_text())
    text = (tmp_path / "plan.md").read_text()
    assert text in capsys.readouterr().out + "\n" and "v5e:2x2" in text
    assert (facts["chips"], facts["processes"], facts["executables_over_all_stages"]) == (4, 1, 1)
    assert facts["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1}
    experiment = tiny.experiment()
    params = jax.tree.leaves(experiment.abstract_network[1])
    assert facts["parameters"] == sum(x.size for x in params)
    assert facts["fits"] and facts["largest_batch_size"] > facts["batch_size"]
    state = facts["chip_bytes"]["state"]
    whole = 4 * 4 * facts["parameters"]  # parameters, average, two moments
    assert 0.5 * whole < state < 0.8 * whole  # halved by fsdp, but for what its rules leave whole
    assert facts["step_flops"]["recomputed"] == 0
    assert facts["lower_bound_seconds"] == max(facts["lower_bounds_seconds"].values()) > 0
    assert facts["images_a_second_at_bound"] == pytest.approx(16 / facts["lower_bound_seconds"])
    assert facts["chip_hours_at_bound"] == pytest.approx(20 * facts["lower_bound_seconds"] * 4 / 3600)


@pytest.mark.usefixtures("compiler")
def test_a_large_transformer_on_sixteen_chips() -> None:
    """DiT-XL/2, batch 256: parameters alone are gathered, activations are spread, flops are as counted by hand."""
    config = config_lib.complete(config_lib.load("imagenet256:dit_xl_2"))
    chip, devices = chips.open_topology("v5e:4x4")

    def make(changes: Mapping[str, Any]) -> Experiment:
        return experiment_lib.from_config(config_lib.changed(config, {"mesh": {"fsdp": 16}} | changes), devices)

    experiment = make({})
    needed, recomputed = costs.step_flops(experiment, make)
    assert needed == pytest.approx(2 * 3 * 256 * 118.64e9, rel=0.01)  # Peebles & Xie 2023, table 4
    assert 0 < recomputed < 0.02 * needed  # attention alone: weight products are kept
    compiled = costs.compile_for(experiment)
    assert not compiled.needed and compiled.total_bytes < chip.memory
    assert compiled.temporary_bytes < 4.0e9
    assert "all-to-all" not in compiled.traffic
    traffic = sum(kind.bytes for kind in compiled.traffic.values())
    assert traffic < 1.3 * costs.least_traffic(experiment)


@pytest.mark.skipif(not importlib.util.find_spec("jax_cuda12_plugin"), reason="needs jax-cuda12-plugin")
def test_gpus(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts of eight GPUs; the compiler counts no operations there."""
    monkeypatch.setattr(search, "SEARCH", 1)
    assert plan.run(tiny.config(mesh__fsdp=8, mesh__data=-1), tmp_path, "cuda:h100x16") == 0
    facts = json.loads((tmp_path / "plan.json").read_text())
    assert (facts["chips"], facts["processes"], facts["mesh"]["data"]) == (16, 2, 2)
    assert facts["fits"] and facts["chip_bytes"]["temporaries"] > 0
    assert 0.5 < facts["traffic_bytes"] / facts["least_traffic_bytes"] < 2  # small arrays are gathered once
    assert "counts no operations" in (tmp_path / "plan.md").read_text()


@pytest.mark.usefixtures("compiler")
def test_what_does_not_fit(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler's words, and the first gentler setting that fits; the exit code says so."""
    config = config_lib.load("imagenet256:dit_xl_2")
    config.network.update(remat="none", depth=4)
    config.batch_size = 4096
    monkeypatch.setattr(search, "remedies", lambda *_: "--config.batch_size=256")
    assert plan.run(config, tmp_path, "v5e:2x2") == 1
    facts = json.loads((tmp_path / "plan.json").read_text())
    assert not facts["fits"] and "exceeds available HBM" in facts["does_not_fit"]
    assert facts["would_fit"] == "--config.batch_size=256"
    assert "**no**" in (tmp_path / "plan.md").read_text()


def test_bad_input(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for topology, message in {
        None: "--topology is missing: name the chips",
        "v9:2x2": "--topology 'v9:2x2': there is none of that name; examples are v4:8x8x8",
    }.items():
        with pytest.raises(UserError, match=message):
            plan.run(tiny.config(), tmp_path, topology)
    for topology in ("cuda:", "cuda:h100", "cuda:k80x8", "cuda:h100x0", "cuda:h100x12"):
        with pytest.raises(UserError, match=f"--topology '{topology}': GPUs are a100, h100, h200, up to 8 on one host"):
            plan.run(tiny.config(), tmp_path, topology)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs its compiler: pip install 'libtpu"):
        plan.run(tiny.config(), tmp_path, "v5e:2x2")
    with pytest.raises(UserError, match="needs JAX's CUDA plugin: pip install 'jax-cuda12-plugin=="):
        plan.run(tiny.config(), tmp_path, "cuda:h100x8")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("compiler")
def test_shapes_and_meshes_that_do_not_exist(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="--topology 'v5e:3x3': v5e comes as v5e:2x2, v5e:2x4"):
        plan.run(tiny.config(), tmp_path, "v5e:3x3")
    with pytest.raises(UserError, match="--topology 'v5e:2x2,slices=0': v5e comes as .* or more with ,slices=2 behind"):
        plan.run(tiny.config(), tmp_path, "v5e:2x2,slices=0")
    with pytest.raises(UserError, match="mesh: data = 3, fsdp = 1, tensor = 1: .* the number of devices, 4"):
        plan.run(tiny.config(mesh__data=3), tmp_path, "v5e:2x2")
