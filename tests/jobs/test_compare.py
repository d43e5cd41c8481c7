"""If a test here fails, a comparison is not what it says: other runs, lost results, arms that do not differ."""

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import tiny
from etils import epath
from ml_collections import ConfigDict

from configs import digits_compare, study
from diffcurr import config as config_lib
from diffcurr.errors import UserError
from diffcurr.jobs import compare, train
from diffcurr.metrics import floor

ARMS = {"vanilla": {"curriculum": {"order": "none"}}, "easy": {}}


def config(arms: dict[str, Any] | None = None, **overrides: Any) -> ConfigDict:
    settings = dict(steps=20, log_every=5, sample_every=0, evaluate_every=10, sampling__steps=2, compare__seeds=2)
    settings |= dict(evaluation__samples=140, evaluation__training_samples=130)
    settings |= dict(evaluation__metrics__frechet_distance__resamples=5, evaluation__denoising__images=40)
    settings |= dict(dataset__held_out=0.2, evaluation__metrics__held_out_frechet_distance__resamples=5)
    settings |= dict(compare__measure="held_out_frechet_distance", compare__grids__even__spacing="log_snr")
    made = tiny.config(**settings | overrides)
    made.compare.arms = ConfigDict(ARMS if arms is None else arms)
    return made


def test_killed_and_shared_among_machines(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped in its second run and gone on with by two shards; a run that is lost is made again, the same."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(floor, "SPLITS", 1)  # their precision is not what is tested, and takes most of the time
    train_run, started = train.run, []

    def stops_at_the_second(config: ConfigDict, workdir: Any) -> int:
        started.append(workdir.relative_to(tmp_path).as_posix())
        return 143 if len(started) == 2 else train_run(config, workdir)

    monkeypatch.setattr(train, "run", stops_at_the_second)
    assert compare.run(config(), tmp_path) == 143
    assert compare.run(config(), tmp_path, "1/2") == 0
    assert "1 of 4 runs are left to others" in capsys.readouterr().out
    assert compare.run(config(), tmp_path, "0/2") == 0
    said = capsys.readouterr().out
    assert started == ["easy/00", "vanilla/00", "vanilla/00", "vanilla/01", "easy/01"]
    report, numbers = (tmp_path / "report.md").read_text(), results(tmp_path)
    verdict = report.splitlines()[0]
    assert verdict in said and verdict.startswith("**")
    assert "(95 % intervals; digits, ddpm, 20 steps, 2 seeds)" in verdict
    course = "| step | easy |\n|---|---|\n| 10 | "
    for words in ("| easy |", "| vanilla |", "copies", "digits classifier", "1 (1 to 1)", course):
        assert words in report
    assert numbers["easy/00"]["steps"] == [10, 20]
    assert (numbers["easy/00"]["stage"][-1], numbers["vanilla/00"]["stage"][-1]) == (3, 1)
    for words in ("359 images that no arm was trained on", "| even | 1 (", "Denoising 40 held-out images"):
        assert words in report
    vanilla = numbers["vanilla/00"]
    assert vanilla["grids"]["even"]["sampling"]["spacing"] == "log_snr"
    assert vanilla["distance"][-1] != vanilla["evaluation"]["frechet_distance"]["value"]
    assert np.shape(vanilla["denoising"]["noise_error"]) == (2, 17) and len(vanilla["denoising"]["bound"]) == 2
    np.testing.assert_allclose(vanilla["exposure"], 1.0)
    assert np.argmax(numbers["easy/00"]["exposure"]) == 2  # the noisiest was trained longest
    for picture in ("distance.png", "ratio.png", "samples.png", "denoising.png"):
        assert (tmp_path / picture).stat().st_size > 10_000

    shutil.rmtree(tmp_path / "easy" / "01")
    assert compare.run(config(), tmp_path) == 0
    assert results(tmp_path) == numbers

    # The results are all that the report needs, and they belong to their config.
    for folder in tmp_path.glob("*/0?"):
        shutil.rmtree(folder / "checkpoints")
    monkeypatch.setattr(train, "run", None)
    assert compare.run(config(compare__candidates=("easy",)), tmp_path) == 0
    assert "| easy |" in (tmp_path / "report.md").read_text()
    with pytest.raises(UserError, match=r"easy/00/result.json: was made with another config \(curriculum.patience\)"):
        compare.run(config({"vanilla": ARMS["vanilla"], "easy": {"curriculum": {"patience": 2}}}), tmp_path)
    with pytest.raises(
        UserError, match=r"result.json: was made with another config \(compare.measure, compare.grids\)"
    ):
        compare.run(config(compare__measure="frechet_distance", compare__grids__odd__steps=3), tmp_path)
    path = tmp_path / "easy" / "00" / "result.json"
    path.write_text(path.read_text().replace("digits classifier", "another classifier"))
    with pytest.raises(UserError, match=r"evaluated by different features \(another classifier .*, digits classifier"):
        compare.run(config(), tmp_path)


def results(workdir: pathlib.Path) -> dict[str, Any]:
    """Of every run, without what depends on the machine."""
    found = {f"{path.parent.parent.name}/{path.parent.name}": path for path in workdir.glob("*/*/result.json")}
    read = {run: json.loads(path.read_text()) for run, path in found.items()}
    return {run: {key: value for key, value in one.items() if key != "steps_per_second"} for run, one in read.items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compare__baseline": "plain"}, "compare.baseline = 'plain': is none of compare.arms"),
        ({"compare__candidates": ("vanilla",)}, "compare.candidates: 'vanilla' is none of the other arms"),
        (
            {"compare__measure": "recall"},
            "compare.measure = 'recall': choose one of frechet_distance, held_out_frechet",
        ),
        ({"compare__seeds": 1}, "give two arms and two seeds"),
        ({"evaluate_every": 7}, "evaluate_every = 7: a comparison needs the distance over the steps"),
        ({"arms": ARMS | {"a": {"curriculum": {"ordr": "none"}}}}, "compare.arms.a: .*ordr"),
        ({"arms": ARMS | {"a": {"curriculum": {"order": "up"}}}}, "compare.arms.a: curriculum: order = 'up'"),
        (
            {"arms": ARMS | {"a": {"curriculum": {"patience": "x"}}}},
            "compare.arms.a: .*patience = 'x': must be an integer from 1",
        ),
        (
            {"arms": ARMS | {"a": {"curriculum": 3}}},
            "compare.arms.a: config key 'curriculum' = 3: choose one of patience",
        ),
        ({"log_every": 0}, "log_every = 0: a comparison needs the log"),
        ({"evaluation__reference": "a.npz"}, "evaluation.reference = 'a.npz': a comparison needs the data set's own"),
        ({"evaluation__samples": 128}, "compare.arms.easy: 128 samples to evaluate: give more than the 128 features"),
        ({"compare__grids__a__solver": "heum"}, "compare.grids.a, compare.arms.easy: .*'heum'"),
        ({"arms": ARMS | {"a": {"evaluation": {"samples": 200}}}}, "compare.arms.a: evaluation is the same"),
        ({"arms": ARMS | {"a": 3}}, "compare.arms.a = 3: must be a section"),
        ({"arms": ARMS | {"a": {"steps": 40}}}, "compare.arms.a: steps is the same for all arms"),
        ({"arms": ARMS | {"a": {"seed": 40}}}, "compare.arms.a: seed is the same for all arms"),
    ],
)
def test_bad_input(tmp_path: pathlib.Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare.run(config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_shard(tmp_path: pathlib.Path) -> None:
    for shard in ("2/2", "a/2", "1"):
        with pytest.raises(UserError, match=f"--shard={shard}: give index/count"):
            compare.run(config(), tmp_path / "run", shard)


STUDIES = {f"digits {name}": (digits_compare, name) for name in ("ddpm", "ddpm_speed", "edm", "flow")}
STUDIES |= {f"digits {name}": (digits_compare, name) for name in digits_compare.VARIANTS}
STUDIES |= {
    name: (study, name)
    for name in (
        *(f"{data}_{process}" for data in ("digits", "fashion_mnist") for process in ("edm", "flow", "ddpm")),
        *(f"digits_{change}" for change in ("ddpm_v", "ddpm_x0", "edm_aim", "flow_pacing", "edm_long")),
    )
}


@pytest.mark.parametrize(("file", "name"), STUDIES.values(), ids=STUDIES)
def test_shipped_studies_are_valid(tmp_path: pathlib.Path, file: Any, name: str) -> None:
    """Each arm differs from the baseline, and from every other."""
    study_config = file.get_config(name)
    runs = compare.plan_runs(study_config, epath.Path(tmp_path))
    first = {one.arm: json.dumps(config_lib.to_json(one.config)) for one in runs if one.seed == study_config.seed}
    assert list(first) == list(study_config.compare.arms) and len(set(first.values())) == len(first)
