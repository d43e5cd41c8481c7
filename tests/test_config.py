"""If these fail, a shipped config does not run, a setting gets lost, or a run of version 0.1.0 is taken for another."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import zipfile
from types import ModuleType
from typing import Any

import jax
import pytest
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from diffcurr import config as config_lib
from diffcurr import experiment
from diffcurr.config import changed, complete, differences, files, load, outline, to_json, unflatten, upgrade
from diffcurr.curriculum import clusters
from diffcurr.errors import UserError
from diffcurr.processes import DDPM, EDM, Flow

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))

####################################################### the configs that are shipped


def module_of(path: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid(path: pathlib.Path) -> None:
    module = module_of(path)
    config = module.get_config()
    assert f"--config=configs/{path.name}" in (module.__doc__ or "")
    with pytest.raises(AttributeError, match="locked"):
        config.batch_sise = 3
    built = experiment.from_config(config, jax.devices()[:1])
    if built.edges is None:  # they follow from a curve that the run measures first
        assert config.curriculum.clustering.name == "relative_entropy"
        built = dataclasses.replace(built, edges=clusters.uniform(config.curriculum.clusters))
    assert len(built.edges) == config.curriculum.clusters + 1
    assert built.compiled.abstract_state.params

    config.curriculum.patince = 3  # a part's section is open, but its keys are checked when the part is built
    with pytest.raises(UserError, match="config key 'curriculum.patince' is unknown: did you mean 'patience'?"):
        experiment.from_config(config, jax.devices()[:1])


PROCESSES = {"ddpm": DDPM, "ddpm_speed": DDPM, "edm": EDM, "flow": Flow}


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "digits_compare"])
def test_the_variants_of_the_small_configs(name: str) -> None:
    module = module_of(ROOT / "configs" / f"{name}.py")
    for process, kind in PROCESSES.items():
        variant = experiment.from_config(module.get_config(process), jax.devices()[:1])
        assert isinstance(variant.process, kind)
        assert load(f"{name}:{process}") == module.get_config(process)
        assert load(str(ROOT / "configs" / f"{name}.py") + f":{process}") == module.get_config(process)
    with pytest.raises(UserError, match="variant 'vp': choose one of ddpm, ddpm_speed, edm, flow"):
        module.get_config("vp")


def test_the_presets_of_imagenet() -> None:
    module = module_of(ROOT / "configs" / "imagenet256.py")
    assert len(module.PRESETS) == 8
    for preset in module.PRESETS:
        config = load(f"imagenet256:{preset}")
        built = experiment.from_config(config, jax.devices()[:1])
        assert isinstance(built.process, DDPM if preset.startswith("dit") else Flow)
        assert built.process.learns_variance == preset.startswith("dit")
    large = experiment.from_config(load("imagenet512"), jax.devices()[:1])
    assert large.network_outline.hidden_size == 1152 and large.shape == (64, 64, 4)
    with pytest.raises(UserError, match=r"variant 'dit_h_2': choose one of dit_s_2, dit_b_2, .*, sit_xl_2"):
        load("imagenet256:dit_h_2")


@pytest.mark.parametrize(("size", "blocks"), [("s", 16), ("b", 24), ("l", 40)])
def test_the_sizes_of_the_tokenizer_of_imagenet(size: str, blocks: int) -> None:
    built = experiment.from_config(load(f"imagenet256_vit_vqgan:{size}"), jax.devices()[:1])
    shapes = jax.tree.leaves(built.codec.abstract_params(), is_leaf=lambda x: isinstance(x, dict) and "qkv" in x)
    assert sum(x["fc1"]["bias"].shape[0] for x in shapes if isinstance(x, dict)) == blocks


############################################################################ load


def test_load_takes_a_name_a_path_and_a_variant(tmp_path: pathlib.Path) -> None:
    assert load("digits").process.density.name == "speed"
    assert load("digits:edm").process.name == "edm"
    assert config_lib.run_name("digits:edm") == "digits_edm" and config_lib.run_name("configs/digits.py") == "digits"
    file = tmp_path / "mine.py"
    file.write_text(
        "from diffcurr.config import outline\n"
        "def get_config(size='2'):\n"
        "    config = outline()\n"
        "    config.steps = int(size)\n"
        "    return config\n"
    )
    assert load(str(file)).steps == 2 and load(f"{file}:17").steps == 17
    assert config_lib.run_name(f"{file}:17") == "mine_17"
    with pytest.raises(UserError, match="mine.py:many: invalid literal"):
        load(f"{file}:many")


def test_load_says_what_there_is(tmp_path: pathlib.Path) -> None:
    known = ", ".join(path.stem for path in CONFIGS)
    with pytest.raises(UserError, match=f"--config=digit: there is no such file; give a path or one of {known}$"):
        load("digit")
    with pytest.raises(UserError, match=r"--config=configs/none.py: there is no such file"):
        load("configs/none.py:edm")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("imagenet256_dit_xl_2", "imagenet256:dit_xl_2"),
        ("configs/imagenet256_sit_s_2.py", "imagenet256:sit_s_2"),
        ("ffhq256_dit_b_2", "ffhq256"),
    ],
)
def test_load_knows_where_a_config_of_version_0_1_0_went(old: str, new: str) -> None:
    with pytest.raises(UserError, match=f"^--config={old}: is now --config={new}$"):
        load(old)
    assert load(new)


def test_all_that_moved_is_there() -> None:
    for old, new in files.MOVED.items():
        assert not (ROOT / "configs" / f"{old}.py").exists()
        assert load(new)


@pytest.mark.parametrize(
    ("text", "variant", "message"),
    [
        ("x = 1\n", "", r"bad.py: .*bad.py has no get_config\(\)"),
        ("def get_config():\n    return {}\n", "", r"get_config\(\) of .*bad.py returns no ConfigDict"),
        ("def get_config():\n    return {}\n", ":edm", r"bad.py:edm: .*bad.py has no variants"),
    ],
)
def test_load_refuses(tmp_path: pathlib.Path, text: str, variant: str, message: str) -> None:
    file = tmp_path / "bad.py"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as found:
        load(f"{file}{variant}")
    assert "\n" not in str(found.value)


def test_a_variant_of_a_config_that_has_none() -> None:
    with pytest.raises(UserError, match=r"--config=cifar10:edm: .*cifar10.py has no variants"):
        load("cifar10:edm")


######################################################## outline, complete, changed


def test_the_outline_is_locked_where_no_part_is() -> None:
    config = outline()
    for holder, key in ((config, "steeps"), (config.ema, "decai"), (config.sampling, "step"), (config.mesh, "pipe")):
        with pytest.raises(AttributeError, match="locked"):
            setattr(holder, key, 1)
    config.process.schedule = "cosine"  # of parts it names the name alone, so their settings are added
    config.compare.arms.mine = {"seed": 1}
    assert "schedule" not in outline().process and not outline().compare.arms


def test_complete_adds_every_setting_of_every_part() -> None:
    config = outline()
    config.process.weighting = "min_snr"
    config.network.hidden_size = 8
    config.optimizer.name = "adamw"
    whole = complete(config)
    assert whole.process.weighting.to_dict() == {"name": "min_snr", "gamma": 5.0}
    assert whole.process.density.to_dict() == {"name": "uniform"} and whole.process.schedule == "linear"
    assert whole.network.hidden_size == 8 and whole.network.patch_size == 2
    assert whole.optimizer.weight_decay == 0.0 and whole.optimizer.b2 == 0.999
    assert whole.conditioning.to_dict() == {"name": "none"}
    assert whole.evaluation.metrics.kernel_distance.pairs == 10_000
    assert whole.is_locked and whole.process.is_locked
    assert complete(whole) == whole
    assert "hidden_size" in config.network and "patch_size" not in config.network, "the argument is left as it was"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process": {"name": "vp"}}, "process.name = 'vp': choose one of ddpm, edm, flow"),
        ({"process": {"weighting": "none"}}, "process.weighting.name = 'none': choose one of constant, "),
        ({"evaluation": {"metrics": {"fid": {}}}}, "evaluation.metrics = 'fid': choose one of frechet_distance, "),
        ({"sampling": 3}, "config key 'sampling' = 3: must be a section"),
        ({"steeps": 3}, "config key 'steeps' is unknown: did you mean 'steps'?"),
        ({"ema": {"decai": 0.9}}, "config key 'ema.decai' is unknown: did you mean 'ema.decay'?"),
        ({"class_dropout": 0.2}, "config key 'class_dropout' is now 'conditioning.dropout'"),
        ({"evaluation": {"resamples": 9}}, "'evaluation.resamples' is now 'evaluation.metrics.frechet_distance.resa"),
    ],
)
def test_a_key_or_a_part_that_there_is_not(change: dict, message: str) -> None:
    with pytest.raises(UserError) as found:
        changed(complete(outline()), change)
    assert message in str(found.value) and "\n" not in str(found.value)
    if "steps" not in str(change):
        plain = outline().to_dict()
        (section,) = change
        both = plain.get(section, {}) | change[section] if isinstance(change[section], dict) else change[section]
        with pytest.raises(UserError) as found:
            complete(plain | {section: both})
        assert message in str(found.value)


def test_complete_names_what_is_missing() -> None:
    plain = outline().to_dict()
    del plain["ema"]["decay"]
    with pytest.raises(UserError, match=r"config key 'ema.decay' is missing: start the config from .*outline\(\)"):
        complete(plain)
    with pytest.raises(UserError, match=r"config key 'curriculum.name' is missing"):
        complete(outline().to_dict() | {"curriculum": {"clusters": 3}})


def test_another_part_starts_from_its_own_settings() -> None:
    """What is the section's own stays, and so does what both parts have from one base class."""
    config = complete(outline())
    config = changed(
        config,
        {
            "curriculum": {"clusters": 7, "patience": 3, "order": "hard_to_easy", "clustering": "log_snr"},
            "optimizer": {"learning_rate": 0.5, "b1": 0.8},
            "process": {"prediction": "v", "weighting": {"name": "min_snr", "gamma": 2.0}, "num_timesteps": 50},
            "sampling": {"solver": {"eta": 0.5}, "steps": 9},
            "dataset": {"data_dir": "here", "augment": 0.3},
        },
    )
    assert config.process.weighting.gamma == 2.0 and config.sampling.solver.eta == 0.5

    fixed = changed(config, {"curriculum": "fixed"})
    assert fixed.curriculum.to_dict() == {
        "name": "fixed",
        "clusters": 7,
        "clustering": {"name": "log_snr"},
        "stages": {"name": "none"},
        "stratified": False,
        "unbiased": False,
        "order": "hard_to_easy",
        "accumulate": True,
        "steps_per_stage": (1000,),
    }
    assert changed(fixed, {"curriculum": {"name": "patience"}}).curriculum.patience == 200

    other = changed(config, {"process": "edm", "optimizer": "adamw", "sampling": {"solver": "heun"}})
    assert other.process == complete(outline().to_dict() | {"process": {"name": "edm"}}).process
    assert other.optimizer.learning_rate == 0.5 and other.optimizer.b1 == 0.8 and other.optimizer.weight_decay == 0.0
    assert "eta" not in other.sampling.solver and other.sampling.steps == 9

    weighted = changed(config, {"process": {"weighting": "p2"}})
    assert weighted.process.weighting.to_dict() == {"name": "p2", "gamma": 1.0, "k": 1.0}
    assert weighted.process.num_timesteps == 50 and weighted.process.prediction.name == "v"

    tokenizer = changed(config, {"task": {"name": "tokenizer", "perceptual": {"weight": 0.5}}}).task
    assert tokenizer.perceptual.to_dict() == {"name": "classifier", "weight": 0.5, "weights": ""}

    pictures = changed(config, {"dataset": "cifar10"}).dataset
    assert pictures.data_dir == "here" and pictures.augment == 0.3 and pictures.flip


def test_naming_the_same_part_resets_nothing() -> None:
    config = changed(complete(outline()), {"curriculum": {"patience": 3}})
    assert changed(config, {"curriculum": "patience"}) == config
    assert changed(config, {"curriculum": {"name": "patience", "clusters": 4}}).curriculum.patience == 3
    assert changed(config, {}) == config


###################################################################### comparison


def test_differences() -> None:
    old = to_json(complete(outline()))
    config = complete(outline())
    config.update(log_every=7, steps=9)
    config.mesh.fsdp = 2
    config.dataset.data_dir = "elsewhere"
    assert differences(old, config) == {}
    config.curriculum.patience = 3
    config.optimizer.schedule = "cosine"  # now the learning rate depends on the number of steps
    assert differences(old, config) == {
        "curriculum.patience": (200, 3),
        "optimizer.schedule": ("constant", "cosine"),
        "steps": (4000, 9),
    }
    config.optimizer.update(schedule="inverse_sqrt", decay_from=100)
    assert set(differences(old, config)) == {"curriculum.patience", "optimizer.schedule", "optimizer.decay_from"}


def test_the_analysis_matters_where_clusters_follow_from_it() -> None:
    config = complete(outline())
    old = to_json(config)
    config.analysis.samples = 77
    assert differences(old, config) == {}
    config = changed(config, {"curriculum": {"clustering": "relative_entropy"}})
    assert set(differences(old, config)) == {
        "analysis.samples",
        "curriculum.clustering.name",
        "curriculum.clustering.power",
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_todays_configs_are_read_back(path: pathlib.Path) -> None:
    """As a workdir's config.json, and as the flat config of a comparison's result."""
    config = complete(load(str(path)))
    assert to_json(upgrade(to_json(config))) == to_json(config)
    assert to_json(upgrade(config_lib.flatten(to_json(config)))) == to_json(config)
    assert differences(to_json(config), config, ()) == {}


def test_metrics_that_were_left_out_stay_out() -> None:
    config = outline()
    config.evaluation.metrics = {"frechet_distance": {"resamples": 7}}
    config = complete(config)
    assert to_json(upgrade(to_json(config))) == to_json(config)
    assert to_json(upgrade(config_lib.flatten(to_json(config)))) == to_json(config)
    assert differences(config_lib.without(to_json(config), ("mesh",)), config, ("mesh",)) == {}


# The flags of tests/training/test_old_workdir.py, with which the old workdir was made.
OLD_WORKDIR = {
    "network.hidden_size": 8,
    "network.depth": 1,
    "network.num_heads": 1,
    "network.patch_size": 4,
    "batch_size": 16,
    "steps": 10,
    "curriculum.clusters": 5,
    "curriculum.patience": 2,
    "sampling.steps": 3,
    "sampling.samples": 10,
    "sample_every": 0,
    "process.density.about": "tau",  # SpeeD as it was then
    "process.weighting.over": "below",
    "log_every": 5,
    "analysis.samples": 64,
    "analysis.images": 500,
}


def old_workdir() -> dict[str, Any]:
    """The config.json of version 0.1.0."""
    with zipfile.ZipFile(ROOT / "tests" / "reference" / "workdir_0_1.zip") as archive:
        return json.loads(archive.read("config.json"))


def old_result(name: str) -> dict[str, Any]:
    """The config, flat and without what is free, in a comparison's result of version 0.1.0."""
    return json.loads((ROOT / "docs" / "evidence" / name / "result.json").read_text())["config"]


def arm(study: str, name: str, seed: int) -> ConfigDict:
    """An arm of one of today's comparisons."""
    config = complete(load(study))
    return changed(config, config.compare.arms[name].to_dict() | {"seed": seed})


def test_a_workdir_of_version_0_1_0_holds_todays_config() -> None:
    """Every key of it, the free ones too."""
    config = changed(complete(load("digits")), unflatten(OLD_WORKDIR | {"dataset.threads": 2}))  # the default then
    assert differences(old_workdir(), config, ()) == {}
    config.seed = 1
    assert differences(old_workdir(), config) == {"seed": (0, 1)}


@pytest.mark.parametrize(
    ("name", "study", "of_arm", "seed"),
    [
        ("digits_edm/easy_uniform/00", "digits_compare:edm", "easy_uniform", 0),
        ("digits/easy_relative_entropy_speed/03", "digits_compare", "easy_relative_entropy_speed", 3),
        ("digits_flow/vanilla/01", "digits_compare:flow", "vanilla", 1),
    ],
)
def test_results_of_version_0_1_0_belong_to_todays_comparisons(name: str, study: str, of_arm: str, seed: int) -> None:
    from diffcurr.jobs.compare import FREE

    config = arm(study, of_arm, seed)
    assert differences(old_result(name), config, FREE) == {}
    assert set(differences(old_result(name), arm(study, of_arm, seed + 1), FREE)) == {"seed"}


DDPM_0_1 = {"process.name": "ddpm"}
EDM_0_1 = {"process.name": "edm", "process.weighting": "edm"}
FLOW_0_1 = {"process.name": "flow", "process.prediction": "velocity", "process.distribution": "logit_normal"}
# Old key -> (its value, what stands beside it, value of each new key where it is another).
RENAMED: dict[str, tuple[Any, dict[str, Any]]] = {
    "class_conditional": (True, {}),
    "class_dropout": (0.3, {"class_conditional": True}),
    "process.prediction": ("v", DDPM_0_1),
    "process.sigma_data": (0.9, EDM_0_1),
    "process.weighting": ("p2", DDPM_0_1),
    "process.weighting_gamma": (3.0, DDPM_0_1 | {"process.weighting": "min_snr"}),
    "process.weighting_k": (2.0, EDM_0_1 | {"process.weighting": "p2"}),
    "process.distribution": ("speed", DDPM_0_1),
    "process.mean": (0.4, FLOW_0_1),
    "process.std": (0.7, FLOW_0_1),
    "process.speed_tau": (500, DDPM_0_1 | {"process.weighting": "speed", "process.distribution": "speed"}),
    "process.speed_k": (4.0, DDPM_0_1 | {"process.distribution": "speed"}),
    "process.speed_lambda": (0.8, DDPM_0_1 | {"process.weighting": "speed"}),
    "curriculum.pacing": ("fixed", {}),
    "curriculum.clustering": ("log_snr", {}),
    "curriculum.edges": ([0.0, 0.25, 1.0], {"curriculum.clustering": "edges", "curriculum.clusters": 2}),
    "curriculum.entropy_power": (0.5, {"curriculum.clustering": "relative_entropy"}),
    "sampling.solver": ("heun", {}),
    "sampling.eta": (0.5, {"sampling.solver": "ddim"}),
    "sampling.churn": ([40.0, 0.05, 50.0, 1.003], EDM_0_1 | {"sampling.solver": "heun"}),
    "sampling.tolerance": (1e-3, FLOW_0_1 | {"sampling.solver": "adaptive"}),
    "evaluation.resamples": (7, {}),
}


def test_every_renamed_key_is_tried() -> None:
    assert set(RENAMED) == set(config_lib.RENAMED)


@pytest.mark.parametrize("key", RENAMED)
def test_a_renamed_key(key: str) -> None:
    """Its value arrives at each of the new keys, and changes nothing else; the config can be run."""
    value, beside = RENAMED[key]
    old = {name: one for name, one in config_lib.flatten(old_workdir()).items() if not name.startswith("process.")}
    old |= {"class_conditional": False, "sampling.guidance": 1.0}
    with_it, without_it = (upgrade(old | beside | more) for more in ({key: value}, {}))
    flat = config_lib.flatten(to_json(with_it))
    expected = "class" if key == "class_conditional" else value
    for new in config_lib.RENAMED[key]:
        assert flat[new] == expected
    found = differences(to_json(without_it), with_it, ())
    reset = {".".join(new.split(".")[:-1]) for new in config_lib.RENAMED[key] if new.endswith(".name")}
    for other in found:  # another part has other settings
        assert other in config_lib.RENAMED[key] or other.rpartition(".")[0] in reset, f"{other}: {found[other]}"
    assert set(config_lib.RENAMED[key]) <= set(found)
    experiment.from_config(with_it, jax.devices()[:1])


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ({"class_conditional": False}, "conditioning.name", "none"),
        ({"process.weighting": "soft_min_snr", "process.weighting_gamma": 0.0}, "process.weighting.gamma", 4.0),
        ({"process.weighting": "p2", "process.weighting_gamma": 0.0}, "process.weighting.gamma", 1.0),
        ({"process.name": "edm", "process.weighting": "min_snr"}, "process.prediction.name", "preconditioned"),
    ],
)
def test_values_that_meant_another_than_they_say(old: dict, new: str, value: Any) -> None:
    plain = {name: one for name, one in config_lib.flatten(old_workdir()).items() if not name.startswith("process.")}
    assert config_lib.flatten(to_json(upgrade(plain | DDPM_0_1 | old)))[new] == value


def test_what_had_no_effect_is_dropped() -> None:
    """Version 0.1.0 kept the settings of every part there is beside the name of the one that was chosen."""
    whole = upgrade(old_workdir() | {"class_conditional": False})
    assert whole.conditioning.to_dict() == {"name": "none"}
    assert "weight_decay" not in whole.optimizer and "steps_per_stage" not in whole.curriculum
    assert whole.sampling.solver.to_dict() == {"name": "ddim", "eta": 0.0}
    assert set(whole.dataset) == {"name", "split", "data_dir", "augment", "held_out", "threads"}


def test_a_part_that_there_is_no_longer() -> None:
    with pytest.raises(UserError, match="network.name = 'unet2': choose one of dit, song_unet"):
        upgrade({"network": {"name": "unet2"}})


################################################################ files that fail

FAILING: dict[str, tuple[str | bytes, str]] = {
    "syntax": ("x = 1\ndef get_config(:\n", r"SyntaxError: .* \(.*, line 2\)$"),
    "indentation": ("def get_config():\nreturn 1\n", r"IndentationError: .* \(.*, line 2\)$"),
    "not UTF-8": (b"x = '\xff'\n", r"(SyntaxError|UnicodeDecodeError): .*"),
    "NUL": ("x = 1\0\n", r"SyntaxError: .*"),
    "import": ("\nimport nowhere_to_be_found\n", r"ModuleNotFoundError: No module named .* line 2\)$"),
    "exception": ("def get_config():\n    return {}['a']\n", r"KeyError: 'a' \(.*, line 2\)$"),
    "division": ("x = 1 / 0\n", r"ZeroDivisionError: division by zero \(.*, line 1\)$"),
    "exit": ("import sys\nsys.exit(3)\n", r"SystemExit: 3 \(.*, line 2\)$"),
    "recursion": ("def get_config():\n    return get_config()\n", r"RecursionError: .* line 2\)$"),
    "own words": ("def get_config():\n    raise ValueError('choose another')\n", r": choose another \(.*, line 2\)$"),
    "type": (
        "from diffcurr.config import outline\ndef get_config():\n    c = outline()\n    c.steps = 'many'\n",
        r"TypeError: .* line 4\)$",
    ),
    "unknown key": (
        "from diffcurr.config import outline\ndef get_config():\n    c = outline()\n    c.stepz = 3\n    return c\n",
        r"AttributeError: .* line 4\)$",
    ),
    "nothing": ("", r"has no get_config\(\)$"),
    "no function": ("get_config = 3\n", r"has no get_config\(\)$"),
    "returns None": ("def get_config():\n    pass\n", r"returns no ConfigDict, but None$"),
    "returns a dict": ("def get_config():\n    return {'steps': 3}\n", r"returns no ConfigDict, but \{'steps': 3\}$"),
    "wants more": ("def get_config(a, b):\n    return a\n", r"TypeError: get_config\(\) missing 2 required .*"),
}


@pytest.mark.parametrize(("text", "message"), FAILING.values(), ids=FAILING)
def test_a_config_file_that_fails(text: str | bytes, message: str, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "mine.py"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as caught:
        load(str(file))
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_config_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "text.txt").write_text("")
    for name, message in (
        ("folder.py", "is no regular"),
        ("pipe.py", "is no regular"),
        ("text.txt", "must end with .py"),
    ):
        with pytest.raises(UserError, match=message):
            load(str(tmp_path / name))


def test_a_placeholder_that_nothing_was_put_into() -> None:
    config = ConfigDict(outline().to_dict() | {"steps": placeholder(int, required=True)})
    with pytest.raises(UserError, match="config: None value found in required reference"):
        complete(config)
