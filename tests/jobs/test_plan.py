"""If a test here fails, `--job=plan` finds, says or writes something else than it should.

Most of them need the TPU's compiler, which `launch/test.sh` installs.
"""

import functools
import importlib.util
import json
import math
import os
import pathlib
import re
import sys

import jax
import pytest
import tiny

from diffcurr import config as config_lib
from diffcurr.errors import UserError
from diffcurr.jobs import plan
from diffcurr.planning import chips, costs, program, search
from diffcurr.planning.chips import Chip
from diffcurr.training.perceptual import OfClassifier


@pytest.fixture
def compiler() -> None:
    if importlib.util.find_spec("libtpu") is None:
        if os.environ.get("CI") and sys.platform == "linux":
            pytest.fail("CI must install libtpu")
        pytest.skip("needs libtpu")


@pytest.mark.usefixtures("compiler")
def test_plan(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A small network on four chips: everything asked for is there, and adds up."""
    monkeypatch.setattr(search, "COMPILATIONS", 1)
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
    assert facts["estimated_seconds"] == facts["estimated_cycles"] / 1.5e9 > 0 and "million cycles: " in text
    assert facts["choices"] == {"attention": "xla"} and "| attention | xla |" in text
    assert min(facts["compile_seconds"], facts["compile_seconds_least_effort"]) > 0.2  # two compilations
    assert facts["lower_bound_seconds"] == max(facts["lower_bounds_seconds"].values()) > 0
    assert facts["images_a_second_at_bound"] == pytest.approx(16 / facts["lower_bound_seconds"])
    assert facts["chip_hours_at_bound"] == pytest.approx(20 * facts["lower_bound_seconds"] * 4 / 3600)


@pytest.mark.usefixtures("compiler")
def test_a_large_transformer_on_sixteen_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    """DiT-XL/2, batch 256: kernels and conditions alone are gathered, gradients of kernels summed in float32.

    Operations are as counted in the paper.
    """
    texts: list[str] = []
    read = program.traffic

    def traffic_of(text: str) -> dict[str, program.Traffic]:
        texts.append(text)
        return read(text)

    monkeypatch.setattr(program, "traffic", traffic_of)
    config = config_lib.load("imagenet256:dit_xl_2")
    config.mesh.fsdp = 16
    chip, devices = chips.open_topology("v5e:4x4")
    with_settings = functools.partial(plan.planned_step, config, devices)
    planned = with_settings({})
    needed, recomputed = costs.step_flops(planned, with_settings)
    assert needed == pytest.approx(2 * 3 * 256 * 118.64e9, rel=0.01)  # Peebles & Xie 2023, table 4
    assert 0 < recomputed < 0.02 * needed  # attention alone: weight products are kept
    compiled = costs.compile_step(planned)
    assert not compiled.needed and compiled.total_bytes < chip.memory
    assert compiled.temporary_bytes < 3.9e9
    assert compiled.traffic["all-to-all"].bytes < 0.03e9  # modulations, from columns to rows
    traffic = sum(kind.bytes for kind in compiled.traffic.values())
    assert costs.least_traffic(planned) < traffic < 3.75e9

    condition, kernels = 256 * 1152, {leaf.shape[-2:] for leaf in jax.tree.leaves(planned.state.params)}
    for result, kind in re.findall(
        r" = (.*?) (all-gather|all-reduce|reduce-scatter|collective-permute)[a-z-]*\(", texts[0]
    ):
        for dtype, sizes in re.findall(r"\b(bf16|f32)\[([\d,]+)\]", result):
            shape = tuple(map(int, sizes.split(",")))
            kernel = shape[-2:] in kernels if kind == "all-gather" else dtype == "f32"
            assert kernel or math.prod(shape) <= condition, result


@pytest.mark.usefixtures("compiler")
def test_attention_of_many_tokens() -> None:
    """On TPUs that are not there it is a kernel, which the backward pass does not run a second time."""
    config = config_lib.load("imagenet512:dit_s_2")
    config.network.update(hidden_size=64, depth=2, num_heads=1)
    config.batch_size = 4
    planned = plan.planned_step(config, chips.open_topology("v5e:2x2")[1], {"mesh.fsdp": 2, "mesh.data": -1})
    assert planned.choices == {"attention": "flash"}
    lowered = planned.step.lower(planned.state, planned.batch, planned.weights[0]).as_text()
    kernels = re.findall(r'kernel_name = "(\w+)"', lowered)
    assert kernels == ["splash_mha_fwd_residuals", "splash_mha_dkv_no_residuals"]


@pytest.mark.skipif(not importlib.util.find_spec("jax_cuda12_plugin"), reason="needs jax-cuda12-plugin")
def test_gpus(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts of eight GPUs; the compiler counts no operations there."""
    monkeypatch.setattr(search, "COMPILATIONS", 1)
    assert plan.run(tiny.config(mesh__fsdp=8, mesh__data=-1), tmp_path, "cuda:h100x16") == 0
    facts = json.loads((tmp_path / "plan.json").read_text())
    assert (facts["chips"], facts["processes"], facts["mesh"]["data"]) == (16, 2, 2)
    assert facts["fits"] and facts["chip_bytes"]["temporaries"] > 0
    assert 1 <= facts["traffic_bytes"] / facts["least_traffic_bytes"] < 2
    assert "counts no operations" in (tmp_path / "plan.md").read_text()


@pytest.mark.usefixtures("compiler")
def test_what_does_not_fit(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler's words, and the first gentler setting that fits; the exit code says so."""
    config = config_lib.load("imagenet256:dit_xl_2")
    config.network.update(remat="none", depth=4)
    config.batch_size = 4096
    monkeypatch.setattr(search.Search, "gentler_settings", lambda self: "--config.batch_size=256")
    assert plan.run(config, tmp_path, "v5e:2x2") == 1
    facts = json.loads((tmp_path / "plan.json").read_text())
    assert not facts["fits"] and "exceeds available HBM" in facts["does_not_fit"]
    assert facts["would_fit"] == "--config.batch_size=256"
    assert "**no**" in (tmp_path / "plan.md").read_text()


def test_what_a_tokenizer_recomputes_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both networks and the perceptual loss, whose weights are not read; by the codec's own setting."""
    monkeypatch.setattr(OfClassifier, "load", lambda *_: pytest.fail("reads the weights"))
    config = tiny.config(task=tiny.TOKENIZER_TASK, codec=tiny.TOKENIZER | {"remat": "full"}, conditioning="none")
    with_settings = functools.partial(plan.planned_step, config, jax.devices()[:2])
    planned = with_settings({})
    needed, recomputed = costs.step_flops(planned, with_settings)
    assert planned.remat == "full" and 0 < recomputed < needed
    without, nothing = costs.step_flops(with_settings({"codec.remat": "none"}), with_settings)
    assert (without, nothing) == (needed, 0)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices of this machine as the chips of every topology: any machine has their compiler."""
    chip = Chip(memory=1e9, flops=1e12, bandwidth=1e11, interconnect=1e10, shapes=("8",))
    monkeypatch.setattr(chips, "open_topology", lambda name: (chip, jax.devices()[:2]))


@pytest.mark.usefixtures("stand_in")
def test_every_line_of_the_report(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that can be said of a step that fits; clusters that follow from a curve need none to be planned."""
    monkeypatch.setattr(search, "COMPILATIONS", 1)
    config = tiny.config(mesh__fsdp=2, mesh__data=-1, curriculum__clustering__name="relative_entropy")
    assert plan.run(config, tmp_path, "some:chips") == 0
    out, text = capsys.readouterr().out, (tmp_path / "plan.md").read_text()
    assert "compiling the train step for 2 chips of some:chips ...\ncompiled in" in out
    assert re.search(r"looking for the largest batch \.\.\.\nbatch \d+: fits \(\d+ s\)\n# The train", out)
    assert text.startswith("# The train step on some:chips\n\n| | |\n|---|---|\n| chips, processes | 2, 1 |\n")
    for row in (
        "| mesh | data 1 x fsdp 2 x tensor 1 |",
        "| global batch, compute dtype, recomputation | 16, float32, none |",
        "| **fits** | **yes**: ",
        "| memory a chip | state ",
        "| largest global batch found to fit | ",
        "| flops a step | 587.8 kFLOP for forward and backward, 0.0 FLOP again |",
        "| flops a chip | 293.9 kFLOP counted in the program; the compiler counts ",
        "| all-reduce a step | ",
        "| traffic over the least for this mesh | ",
        "| lower bound on a step | ",
        "| at that bound | ",
        "| the config's 20 steps at that bound | 0 chip-hours |",
        "| compile time | ",
        "| executables over all stages | 1 |\n",
    ):
        assert row in text


@pytest.mark.usefixtures("stand_in")
def test_every_line_of_the_report_where_it_does_not_fit(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The compiler gives up until the batch is a quarter."""
    whole = costs.compile_step

    def gives_up(planned: costs.PlannedStep) -> costs.Compiled:
        if planned.config.batch_size > 16:
            return costs.Compiled(seconds=1.0, needed="too much")
        return whole(planned)

    monkeypatch.setattr(costs, "compile_step", gives_up)
    assert plan.run(tiny.config(batch_size=64), tmp_path, "some:chips") == 1
    flags = "--config.mesh.data=1 --config.mesh.fsdp=2"
    out, text = capsys.readouterr().out, (tmp_path / "plan.md").read_text()
    assert f"does not fit: too much; looking for what does ...\n{flags}: does not fit (1 s)\n" in out
    assert "| **fits** | **no**: too much |" in text
    assert re.search(r"\| the first setting tried that fits \| `--config.* --config.batch_size=16` \|\n$", text)
    facts = json.loads((tmp_path / "plan.json").read_text())
    assert facts["would_fit"].endswith("--config.batch_size=16") and "largest_batch_size" not in facts


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
