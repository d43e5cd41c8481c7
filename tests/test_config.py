import dataclasses
import importlib.util
import inspect
import pathlib

import jax
import pytest

from diffcurr import config as config_lib
from diffcurr import experiment
from diffcurr.curriculum import clusters
from diffcurr.processes import PROCESSES

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid(path: pathlib.Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    assert f"--config=configs/{path.name}" in (module.__doc__ or "")
    with pytest.raises(AttributeError, match="locked"):
        config.curriculum.patince = 3
    parts = experiment.from_config(config, jax.devices()[:1])
    if parts.edges is None:  # they follow from a curve that the run measures first
        assert config.curriculum.clustering == "relative_entropy"
        parts = dataclasses.replace(parts, edges=clusters.uniform(config.curriculum.clusters))
    assert len(parts.edges) == config.curriculum.clusters + 1
    assert parts.compiled.abstract_state.params
    if "process" in inspect.signature(module.get_config).parameters:
        for process in PROCESSES:
            variant = experiment.from_config(module.get_config(process), jax.devices()[:1])
            assert isinstance(variant.process, PROCESSES[process])
        with pytest.raises(ValueError, match="there is no process 'vp': choose one of ddpm, edm, flow, ddpm_speed"):
            module.get_config("vp")


def test_differences() -> None:
    old = config_lib.to_json(config_lib.outline())
    config = config_lib.outline()
    config.update(log_every=7, steps=9)
    config.mesh.fsdp = 2
    config.dataset.data_dir = "elsewhere"
    assert config_lib.differences(old, config_lib.to_json(config)) == {}
    config.curriculum.patience = 3
    config.optimizer.schedule = "cosine"  # now the learning rate depends on the number of steps
    assert config_lib.differences(old, config_lib.to_json(config)) == {
        "curriculum.patience": (200, 3),
        "optimizer.schedule": ("constant", "cosine"),
        "steps": (4000, 9),
    }
