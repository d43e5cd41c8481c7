"""If a test here fails, the train, sample or evaluate job writes, says or draws something else than it should."""

import contextlib
import functools
import io
import json
import pathlib

import jax
import matplotlib.image
import numpy as np
import pytest
import tiny

from diffcurr import experiment
from diffcurr.errors import UserError
from diffcurr.jobs import evaluate, sample, train
from diffcurr.reporting.writers import EVALUATIONS, read_rows
from diffcurr.run import load_run
from diffcurr.sampling import drawing, evaluator
from diffcurr.training.checkpoint import Checkpoints
from diffcurr.training.window import Window

SETTINGS = dict(
    steps=40,
    log_every=10,
    sample_every=20,
    checkpoint_every=20,
    optimizer__warmup_steps=5,
    sampling__steps=2,
    sampling__samples=10,
    sampling__guidance=2.0,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    """(workdir of a finished run on eight devices, what it printed)."""
    workdir = tmp_path_factory.mktemp("run") / "new" / "folder"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert train.run(tiny.config(**SETTINGS), workdir) == 0
    return workdir, printed.getvalue()


def test_workdir(run: tuple[pathlib.Path, str]) -> None:
    workdir, _ = run
    assert json.loads((workdir / "config.json").read_text())["curriculum"]["clusters"] == 3
    rows = read_rows(workdir)
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    for row in rows:
        assert len(row["loss_by_cluster"]) == 3 and row["num_stages"] == 3 and row["stage"] in (1, 2, 3)
        assert row["loss"] > 0 and row["images_per_second"] > 0
        np.testing.assert_allclose(row["learning_rate"], 1e-3, rtol=1e-5)
    assert rows[-1]["stage"] == 3
    assert list(workdir.glob("events.out.tfevents.*"))
    assert matplotlib.image.imread(workdir / "samples" / "00000040.png").std() > 0
    assert matplotlib.image.imread(workdir / "curriculum.png").std() > 0
    left_over = [path.name for path in workdir.rglob(".*") if path.name != ".lock"]
    assert left_over == []


def test_what_the_user_reads(run: tuple[pathlib.Path, str]) -> None:
    _, printed = run
    for words in (
        "Total:",
        "digits: 1,797 images; 3 stages of easy_to_hard; 8 cpu device(s)",
        "compiled in",
        "finished 40 steps",
    ):
        assert words in printed
    lines = [line for line in printed.splitlines() if line.startswith("step ")]
    assert len(lines) == 4
    for words in ("step 40/40", "stage 3/3", "loss", "images/s", "waiting for data", "left"):
        assert words in lines[-1]


def test_a_finished_run_says_so(run: tuple[pathlib.Path, str], capsys: pytest.CaptureFixture) -> None:
    assert train.run(tiny.config(**SETTINGS), run[0]) == 0
    assert "this run is finished, at step 40" in capsys.readouterr().out


def test_sample(run: tuple[pathlib.Path, str]) -> None:
    workdir, _ = run
    config = tiny.config(**SETTINGS | {"sampling__samples": 12})
    for name in ("first", "second"):
        assert sample.run(config, workdir) == 0
        (workdir / "samples.npz").rename(workdir / f"{name}.npz")
    first, second = np.load(workdir / "first.npz"), np.load(workdir / "second.npz")
    assert first["images"].shape == (12, 8, 8, 1) and int(first["step"]) == 40
    np.testing.assert_array_equal(first["labels"], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
    np.testing.assert_array_equal(first["images"], second["images"])
    assert np.abs(first["images"]).max() <= 1.0


def test_samples_for_a_folder_that_cannot_be_written(
    run: tuple[pathlib.Path, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before the first of them is drawn."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(drawing.Sampler, "draw", lambda *_: pytest.fail("samples were drawn for nothing"))
    with pytest.raises(UserError, match=r"--out=.*file/out: cannot be written \(.*\): name another folder"):
        sample.run(tiny.config(**SETTINGS), run[0], out=tmp_path / "file" / "out")


def test_more_samples_than_one_part(run: tuple[pathlib.Path, str]) -> None:
    """Sample i has class i mod K, in the file and for the network, also where a part does not begin at class 0."""
    workdir, _ = run
    number = drawing.PART + 17
    assert drawing.PART % 10
    assert sample.run(tiny.config(**SETTINGS | {"sampling__samples": number}), workdir) == 0
    found = np.load(workdir / "samples.npz")
    labels = np.arange(number) % 10
    np.testing.assert_array_equal(found["labels"], labels)
    assert found["images"].shape == (number, 8, 8, 1)
    opened = load_run(workdir)
    draw = functools.partial(opened.experiment.sampler.draw, opened.params, opened.experiment.sample_key())
    drawn = draw({"label": labels}, number)
    np.testing.assert_allclose(drawn, found["images"], atol=1e-5)  # one device here, eight there
    others = draw({"label": np.append(labels[: drawing.PART], (labels[drawing.PART :] + 1) % 10)}, number)
    np.testing.assert_array_equal(others[: drawing.PART], drawn[: drawing.PART])
    assert np.any(others[drawing.PART :] != drawn[drawing.PART :])


def test_evaluate(
    run: tuple[pathlib.Path, str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every figure with its interval and its numbers; a network of 40 steps is far away; the reference is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = SETTINGS | {"evaluation__samples": 300}
    settings |= {"evaluation__metrics__frechet_distance__resamples": 10}
    assert evaluate.run(tiny.config(**settings), run[0]) == 0
    (kept,) = (tmp_path / "cache" / "diffcurr").iterdir()
    found = json.loads((run[0] / "evaluation.json").read_text())
    assert (found["dataset"], found["step"]) == ("digits", 40) and found["features"].startswith("digits classifier ")
    distance = found["frechet_distance"]
    assert (distance["examples"], distance["reference_examples"]) == (300, 1797)
    assert 10 * distance["floor"] < distance["low"] < distance["value"] < distance["high"]
    assert found["kernel_distance"]["low"] > 0
    assert "step 40, 300 samples against 1,797 of digits" in capsys.readouterr().out
    evaluator._KEPT.clear()
    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "of_reference", lambda *read, **stored: np.load(kept))
        assert evaluate.run(tiny.config(**settings), run[0]) == 0
    assert json.loads((run[0] / "evaluation.json").read_text()) == found
    held_out = {"dataset__held_out": 0.2, "evaluation__denoising__images": 20, "evaluation__denoising__levels": 5}
    during = SETTINGS | held_out | {"evaluate_every": 10, "evaluation__training_samples": 130}
    for process in ("whole", "stopped"):  # during training: the same row, also of a run that is continued
        steps = 20 if process == "stopped" else 30
        for end in (steps, 30):
            config = tiny.config(**during | {"steps": end})
            config.evaluation.metrics.frechet_distance.resamples = 5
            assert train.run(config, tmp_path / process) == 0
    rows = [read_rows(tmp_path / process, EVALUATIONS) for process in ("whole", "stopped")]
    assert [row["step"] for row in rows[0]] == [10, 20, 30] and rows[0] == rows[1]
    assert rows[0][0]["frechet_distance"] > rows[0][0]["frechet_distance_floor"]
    assert (rows[0][0]["frechet_distance_reference_examples"], rows[0][0]["denoising_bound_examples"]) == (1438, 20)
    for row in rows[0]:
        assert row["denoising_bound_low"] < row["denoising_bound"] < row["denoising_bound_high"]
        assert row["denoising_bound_log_snr"] == [-8, -4, 0, 4, 8]
        for name in ("noise_error", "x0_error", "noise_error_sd"):
            assert len(row[f"denoising_bound_{name}"]) == 5 and min(row[f"denoising_bound_{name}"]) > 0
    assert rows[0][-1]["denoising_bound"] != rows[0][0]["denoising_bound"], "the network has not learned since"

    # What was held out, after training.
    wanted = {"frechet_distance": {"resamples": 5}, "held_out_frechet_distance": {"resamples": 5}}
    last = tiny.config(**during | {"steps": 30, "evaluation__samples": 130, "evaluation__metrics": wanted})
    assert evaluate.run(last, tmp_path / "whole") == 0
    after = json.loads((tmp_path / "whole" / "evaluation.json").read_text())
    trained_on, unseen, denoised = (
        after[name] for name in ("frechet_distance", "held_out_frechet_distance", "denoising_bound")
    )
    assert (trained_on["reference_examples"], unseen["reference_examples"]) == (1438, 359)
    assert unseen["low"] < unseen["value"] < unseen["high"] and unseen["value"] != trained_on["value"]
    assert unseen["floor"] > trained_on["floor"], "of fewer images"
    for name, values in denoised.items():  # the same weights
        assert rows[0][-1]["denoising_bound" if name == "value" else f"denoising_bound_{name}"] == values
    with pytest.raises(UserError, match="100 samples to evaluate: give more than the 128 features of digits"):
        evaluate.run(tiny.config(**SETTINGS, evaluation__samples=100), run[0])
    with pytest.raises(UserError, match="nowhere: there are no such features"):
        evaluate.run(tiny.config(**SETTINGS, evaluation__features="nowhere"), run[0])


def test_sample_without_a_checkpoint(tmp_path: pathlib.Path) -> None:
    for job in (sample, evaluate):
        with pytest.raises(UserError, match="holds no checkpoint: train first"):
            job.run(tiny.config(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_config(run: tuple[pathlib.Path, str]) -> None:
    changed = tiny.config(**SETTINGS | {"curriculum__patience": 7, "batch_size": 32})
    for job in (train, sample):
        with pytest.raises(
            UserError, match=r"another config \(batch_size: 16 there, 32 here, curriculum.patience: 1 there, 7 here\)"
        ):
            job.run(changed, run[0])


def test_a_longer_run_and_other_intervals_are_the_same_run(run: tuple[pathlib.Path, str]) -> None:
    assert train.run(tiny.config(**SETTINGS | {"steps": 50, "log_every": 5}), run[0]) == 0
    assert [row["step"] for row in read_rows(run[0])] == [10, 20, 30, 40, 45, 50]


@pytest.mark.parametrize("steps", [8, 12], ids=["at the end", "on the way"])
def test_killed_between_a_save_and_what_was_to_be_seen(
    steps: int, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """The checkpoint of step 8 is there, its samples and their evaluation are not: the next start makes up for them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings: dict = dict(steps=steps, log_every=3, checkpoint_every=8, sample_every=8, evaluate_every=8)
    settings |= dict(sampling__steps=2, sampling__samples=4, evaluation__training_samples=130)
    config = tiny.config(**settings)
    config.evaluation.metrics = {"frechet_distance": {"resamples": 2}}
    assert train.run(config, tmp_path / "whole") == 0
    draw = drawing.Sampler.draw

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(drawing.Sampler, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        train.run(config, tmp_path / "killed")
    monkeypatch.setattr(drawing.Sampler, "draw", draw)
    assert not (tmp_path / "killed" / "samples").exists()
    assert train.run(config, tmp_path / "killed") == 0
    for name in ("samples/00000008.png", EVALUATIONS):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    rows = [[(row["step"], row["loss"]) for row in read_rows(tmp_path / name)] for name in ("whole", "killed")]
    assert rows[0] == rows[1] and [step for step, _ in rows[0]] == [
        *range(3, steps + 1, 3),
        *([8] if steps == 8 else []),
    ]


def test_a_loss_that_is_not_finite(tmp_path: pathlib.Path) -> None:
    config = tiny.config(
        steps=40,
        checkpoint_every=1,
        sample_every=0,
        optimizer__learning_rate=1e25,
        optimizer__warmup_steps=5,
        optimizer__clip_norm=0.0,
    )
    with pytest.raises(
        UserError,
        match=r"is (nan|inf) at step \d+, stage 1/3 in clusters 3; step \d+ is saved\. A lower rate may help; the same "
        r"command goes on with --config\.optimizer\.learning_rate=RATE --allow_change=optimizer\.learning_rate$",
    ):
        train.run(config, tmp_path)
    abstract_state = experiment.from_config(config).compiled.abstract_state
    restored = Checkpoints(tmp_path / "checkpoints").restore(abstract_state)
    assert restored is not None
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(restored[0].params))


def test_the_loop_makes_no_implicit_transfer(
    run: tuple[pathlib.Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """The guard that the loop runs under is there, and works: a batch left on the host is refused."""
    monkeypatch.setattr(jax, "make_array_from_process_local_data", lambda sharding, rows: rows)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train.run(tiny.config(**SETTINGS), tmp_path)


def test_metrics_are_fetched_an_interval_late(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """What is reported at step 20 is the interval up to step 10: no step waits for its own metrics."""
    dispatched, seen = 0, []
    original_add, original_summary = Window.add, Window.summary

    def add(self: Window, metrics: object) -> None:
        nonlocal dispatched
        dispatched += 1
        original_add(self, metrics)  # type: ignore[arg-type]

    def summary(self: Window, seconds: float) -> dict:
        seen.append((dispatched, self.last_step))
        return original_summary(self, seconds)

    monkeypatch.setattr(Window, "add", add)
    monkeypatch.setattr(Window, "summary", summary)
    train.run(tiny.config(steps=45, log_every=10, sample_every=0, checkpoint_every=0), tmp_path)
    assert seen == [(20, 10), (30, 20), (40, 30), (45, 40), (45, 45)]
