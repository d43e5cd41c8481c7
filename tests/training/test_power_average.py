"""If these fail, the averages of EDM2 are other ones, or another width is not what training would have given."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from etils import epath
from safetensors.numpy import load_file

from diffcurr import experiment as experiment_lib
from diffcurr.errors import UserError
from diffcurr.jobs import train
from diffcurr.layout import path_name
from diffcurr.run import load_run
from diffcurr.training import averages, power_average


def test_width_and_exponent() -> None:
    """Widths of EDM2 and of two profiles by hand: gamma 0 is the mean over all steps, gamma 1 a triangle."""
    np.testing.assert_allclose(power_average.width_of(0.0), np.sqrt(1 / 12), rtol=1e-12)
    np.testing.assert_allclose(power_average.width_of(1.0), np.sqrt(1 / 18), rtol=1e-12)
    for width, gamma in ((0.05, 16.97), (0.10, 6.94)):
        assert power_average.gamma_of(width) == pytest.approx(gamma, abs=0.01)
    for width in (1e-3, 0.05, 0.1, 0.25, 0.28):
        assert power_average.width_of(power_average.gamma_of(width)) == pytest.approx(width, rel=1e-9)
    for width in (0.0, -0.1, 0.29, float("nan")):
        with pytest.raises(ValueError, match="must be above 0 and at most 0.28"):
            power_average.gamma_of(width)


def walk(steps: int, size: int = 50) -> np.ndarray:
    """A random walk of parameters that slows down, float32 [steps, size]."""
    rng = np.random.default_rng(0)
    moves = rng.normal(size=(steps, size)) / np.sqrt(np.arange(1, steps + 1))[:, None]
    return np.float32(1.0 + np.cumsum(moves, axis=0))


@pytest.mark.parametrize("gamma", [0.0, 6.94, 16.97])
def test_the_average_is_the_closed_form(gamma: float) -> None:
    """Also late in a run, where a share of 1e-5 comes in at each step."""
    params = walk(400)

    def step(average: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        average = power_average.update(average, inputs[1], inputs[0], gamma)
        return average, average

    _, found = jax.lax.scan(step, jnp.full(50, 9.0), (jnp.arange(1, 401), jnp.asarray(params)))
    for steps in (1, 2, 57, 400):
        profile = power_average.profile(steps, gamma)
        assert profile.sum() == pytest.approx(1.0)
        scale = np.abs(params[:steps]).max()
        np.testing.assert_allclose(found[steps - 1], profile @ params[:steps].astype(np.float64), atol=1e-6 * scale)
    late = [float(power_average.share_of(jnp.int32(t), gamma)) for t in (10**6, 2 * 10**9)]
    np.testing.assert_allclose(late, [-np.expm1((gamma + 1) * np.log1p(-1 / t)) for t in (10**6, 2 * 10**9)], rtol=1e-6)


def test_inner_products_are_integrals() -> None:
    for a, b in (((300.0, 16.97), (200.0, 6.94)), ((50.0, 0.0), (50.0, 3.0)), ((7.0, 2.5), (1000.0, 6.94))):
        time = (np.arange(200_000) + 0.5) / 200_000 * min(a[0], b[0])
        product = np.prod([(gamma + 1) * time**gamma / end ** (gamma + 1) for end, gamma in (a, b)], axis=0)
        numeric = product.sum() * (time[1] - time[0])
        np.testing.assert_allclose(power_average.inner_product(*a, *b), numeric, rtol=1e-6)


@pytest.mark.parametrize("width", [0.04, 0.08, 0.15])
def test_another_width_is_recovered(width: float) -> None:
    """Within 1e-3 of the average that was tracked, from 2 x 32 snapshots, also in the middle of the run."""
    params, gammas = walk(1600).astype(np.float64), [power_average.gamma_of(w) for w in (0.05, 0.10)]
    stored = [(time, gamma) for time in range(50, 1601, 50) for gamma in gammas]
    snapshots = [{"w": power_average.profile(time, gamma) @ params[:time]} for time, gamma in stored]
    for end in (1600, 1000):
        kept = [index for index, (time, _) in enumerate(stored) if time <= end]
        times, exponents = ([stored[index][axis] for index in kept] for axis in (0, 1))
        chosen = (snapshots[index] for index in kept)
        found = power_average.reconstruct(chosen, times, exponents, width, end)["w"]
        tracked = power_average.profile(end, power_average.gamma_of(width)) @ params[:end]
        assert np.linalg.norm(found - tracked) < 1e-3 * np.linalg.norm(tracked)
        nearest = min(gammas, key=lambda gamma: abs(power_average.width_of(gamma) - width))
        stored_one = power_average.profile(end, nearest) @ params[:end]
        assert np.linalg.norm(found - tracked) < 0.1 * np.linalg.norm(stored_one - tracked), (
            "no better than a stored one"
        )
        assert power_average.fit(times, exponents, width, end).error < 0.05


def test_too_few_snapshots_are_seen_in_the_error() -> None:
    gamma = power_average.gamma_of(0.1)
    assert power_average.fit([1000], [gamma], 0.1, 1000).error < 1e-6
    assert power_average.fit([1000], [gamma], 0.01, 1000).error > 0.5
    with pytest.raises(ValueError, match="nothing to reconstruct from"):
        power_average.fit([], [], 0.1, 1000)


def test_another_width_of_a_run(tmp_path: pathlib.Path) -> None:
    """Within 1e-3 of the one that was tracked, from float16 files of two others; what a run does with them."""
    settings = {"ema__widths": (0.05, 0.1, 0.08), "optimizer__learning_rate": 0.01, "checkpoint_every": 4}
    settings |= {"sample_every": 0, "log_every": 0}
    workdir, stored = tmp_path / "run", tmp_path / "run" / "averages"
    assert train.run(tiny.config(steps=32, **settings), workdir) == 0
    assert averages.steps_in(epath.Path(stored)) == list(range(4, 33, 4))
    state = load_run(workdir).state

    times = [step for step in range(4, 33, 4) for _ in range(2)]
    gammas = [power_average.gamma_of(0.05), power_average.gamma_of(0.1)] * 8
    files = [load_file(stored / f"{step:08d}.safetensors") for step in range(4, 33, 4)]
    halves = ({name[2:]: x for name, x in file.items() if name[0] == which} for file in files for which in "01")
    found = power_average.reconstruct(halves, times, gammas, 0.08, 32)
    tracked = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(state.averages[2])}
    assert found.keys() == tracked.keys()

    def distance(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
        return float(np.linalg.norm(np.concatenate([np.ravel(a[name] - b[name]) for name in a])))

    length = distance(tracked, {name: np.zeros_like(x) for name, x in tracked.items()})
    narrow = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(state.averages[0])}
    assert distance(found, tracked) < 1e-3 * length < 0.1 * distance(narrow, tracked)

    run = load_run(workdir, ema_width=0.08)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), run.params, state.averages[2])
    other = tiny.config(steps=36, **settings | {"ema__widths": (0.05, 0.1, 0.09)})
    with pytest.raises(UserError, match="--allow_change=ema.widths: the averages that were kept are of other"):
        train.run(other, workdir, ["ema.widths"])
    with pytest.raises(
        UserError, match="ema_width = 0.01: the averages of 7 steps in .* only to [0-9]+%; choose one near"
    ):
        load_run(workdir, ema_width=0.01)
    with pytest.raises(UserError, match="ema_width = 0.3: relative width 0.3: must be above 0 and at most 0.28"):
        load_run(workdir, ema_width=0.3)
    with pytest.raises(UserError, match="ema_width = 0.1: is of an average; leave out ema=False"):
        load_run(workdir, ema_width=0.1, ema=False)
    with pytest.raises(UserError, match=r"keeps no averages of other widths; train with --config.ema.widths='\(0.05"):
        averages.of_width(epath.Path(workdir), state, (), 0.1)

    kept = load_file(stored / "00000032.safetensors")
    snapshots = averages.Snapshots(epath.Path(workdir), (0.05, 0.1, 0.08), "float16")
    snapshots.drop_after(28)  # a run that goes on from an earlier checkpoint
    assert averages.steps_in(epath.Path(stored)) == list(range(4, 29, 4)) and not snapshots.has(32)
    snapshots.store(state, 32, lambda write, *arguments: write(*arguments))
    jax.tree.map(np.testing.assert_array_equal, load_file(stored / "00000032.safetensors"), kept)
    assert sum(x.nbytes for x in kept.values()) == 3 * 2 * sum(x.size for x in jax.tree.leaves(state.params))
    content = (stored / "00000004.safetensors").read_bytes()
    (stored / "00000004.safetensors").write_bytes(content[:-9])
    with pytest.raises(UserError, match=r"00000004.safetensors: cannot be read \(.*: bring it back, or remove it"):
        load_run(workdir, ema_width=0.08)


def test_averages_are_sharded_like_the_parameters_and_cost_nothing_unless_asked_for() -> None:
    spread = experiment_lib.from_config(tiny.config(mesh__fsdp=8, ema__widths=(0.05, 0.1))).abstract_state
    assert len(spread.averages) == 2
    for average in spread.averages:
        assert jax.tree.map(lambda x: x.sharding, average) == jax.tree.map(lambda x: x.sharding, spread.params)
    assert tiny.experiment().abstract_state.averages == ()
