"""If these fail, a run may lose its progress, or go on from a damaged checkpoint without a word."""

import functools
import itertools
import os
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny
from etils import epath

from diffcurr.errors import UserError
from diffcurr.training import checkpoint, distributed
from diffcurr.training.checkpoint import Checkpoints
from diffcurr.training.fingerprint import ROW, fingerprint, prints
from diffcurr.training.state import TrainState

CONFIG = {"seed": 0}


@functools.cache
def states_by_step() -> dict[int, TrainState]:
    """The states of a short training run, on the host."""
    experiment = tiny.experiment()
    compiled, state = experiment.compiled, experiment.init_state()
    weights, states = compiled.initial_carry(state), {}
    for step in range(1, 8):
        state, weights, _ = compiled.step(state, tiny.batch(experiment, step), weights)
        states[step] = jax.tree.map(np.array, state)  # copies: the next step takes the state's memory
    return states


@functools.cache
def abstract_state(**mesh: int) -> TrainState:
    return tiny.experiment(**mesh).compiled.abstract_state


def save(folder: pathlib.Path, losses: dict[int, float | None]) -> dict[int, TrainState]:
    """Checkpoints of that run at some of its steps; gives back its states."""
    checkpoints = Checkpoints(folder)
    for step, loss in losses.items():
        state = jax.device_put(states_by_step()[step])
        checkpoints.save(step, state, {"next_index": step}, CONFIG, loss)
    checkpoints.close()
    return states_by_step()


def steps_in(folder: pathlib.Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def assert_same(a: TrainState, b: TrainState) -> None:
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_keeps_two_latest_and_the_best(tmp_path: pathlib.Path) -> None:
    # Steps 1 and 2 belong to early stages: their losses, lower as they are, say nothing.
    save(tmp_path / "c", {1: None, 2: None, 3: 0.5, 4: 0.2, 5: 0.4, 6: 0.9, 7: 0.3})
    assert steps_in(tmp_path / "c") == [4, 6, 7]


@pytest.mark.parametrize("mesh", [{"devices": 1}, {"devices": 8}, {"devices": 8, "mesh__fsdp": 4}])
def test_restores_bit_for_bit_onto_any_number_of_devices(tmp_path: pathlib.Path, mesh: dict) -> None:
    states = save(tmp_path / "c", {3: None})
    abstract = abstract_state(**mesh)
    restored = Checkpoints(tmp_path / "c").restore(abstract)
    assert restored is not None
    assert_same(restored[0], states[3])
    assert restored[1] == {"next_index": 3}
    jax.tree.map(lambda x, want: x.sharding == want.sharding or pytest.fail("sharding"), restored[0], abstract)


def test_eight_then_four_devices_then_one(tmp_path: pathlib.Path) -> None:
    """Each goes on from the checkpoint that the one before it wrote."""
    state = states_by_step()[3]
    for number, devices in enumerate((8, 4, 1), start=1):
        abstract = abstract_state(devices=devices, mesh__fsdp=min(4, devices))
        if number == 1:
            state = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), state, abstract)
        else:
            restored = Checkpoints(tmp_path / f"{number - 1}").restore(abstract)
            assert restored is not None and restored[1] == {"next_index": 3}
            state = restored[0]
        kernel = state.params["blocks"]["qkv"]["kernel"]
        assert len(kernel.devices()) == devices and kernel.sharding.is_fully_replicated == (devices == 1)
        assert_same(state, states_by_step()[3])
        checkpoints = Checkpoints(tmp_path / f"{number}")
        checkpoints.save(3, state, {"next_index": 3}, CONFIG, None)
        checkpoints.close()


def test_nothing_to_restore(tmp_path: pathlib.Path) -> None:
    assert Checkpoints(tmp_path / "c").restore(abstract_state()) is None


def files_of(checkpoint: pathlib.Path, item: str) -> list[pathlib.Path]:
    """Every file that holds arrays (Orbax writes some of them twice), or the one of a JSON item."""
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    if item == "arrays":
        found = [path for path in files if path.parent.name == "d"]
    else:
        found = [path for path in files if path.parent.name == item and path.name == "metadata"]
    assert found
    return found


def truncate(path: pathlib.Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def alter(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [truncate, alter, os.remove])
@pytest.mark.parametrize("which", ["arrays", "data", "config"])
def test_damage_falls_back_to_the_checkpoint_before(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture, damage: Callable[[pathlib.Path], None], which: str
) -> None:
    states = save(tmp_path / "c", {3: None, 6: None})
    for target in files_of(tmp_path / "c" / "6", which):
        damage(target)

    checkpoints = Checkpoints(tmp_path / "c")
    restored = checkpoints.restore(abstract_state())
    assert restored is not None
    assert_same(restored[0], states[3])
    said = capsys.readouterr().err
    assert "WARNING: checkpoint 6 is damaged" in said and "falling back to checkpoint 3" in said
    assert steps_in(tmp_path / "c") == [3] and steps_in(tmp_path / "checkpoints_damaged") == [6]

    # The place is free again.
    checkpoints.save(6, jax.device_put(states[6]), {"next_index": 6}, CONFIG, None)
    checkpoints.close()
    assert steps_in(tmp_path / "c") == [3, 6]


def test_all_processes_pass_over_what_one_cannot_read(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    states, failed = save(tmp_path / "c", {3: None, 6: None}), iter(((1.0, 0.0), (0.0, 0.0), (0.0, 0.0)))
    monkeypatch.setattr(distributed, "total", lambda values: next(failed))
    restored = Checkpoints(tmp_path / "c").restore(abstract_state())
    assert restored is not None
    assert_same(restored[0], states[3])
    assert "checkpoint 6 is damaged (another process could not read its part)" in capsys.readouterr().err


@pytest.mark.parametrize("error", [MemoryError("none left"), PermissionError(13, "Permission denied")])
def test_what_says_nothing_of_a_checkpoint_passes_over_none(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    save(tmp_path / "c", {3: None, 6: None})

    def fail(*_: object) -> None:
        raise ValueError("Orbax could not restore") from error

    monkeypatch.setattr(Checkpoints, "_read", fail)
    with pytest.raises(ValueError, match="could not restore"):
        Checkpoints(tmp_path / "c").restore(abstract_state())
    assert steps_in(tmp_path / "c") == [3, 6]


def test_no_good_checkpoint_is_an_error_and_touches_nothing(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "c", {3: None})
    for target in files_of(tmp_path / "c" / "3", "arrays"):
        truncate(target)
    with pytest.raises(UserError, match="no checkpoint .* can be read"):
        Checkpoints(tmp_path / "c").restore(abstract_state())
    assert steps_in(tmp_path / "c") == [3]


def test_does_not_save_parameters_that_are_not_finite(tmp_path: pathlib.Path) -> None:
    state = jax.tree.map(jax.numpy.asarray, states_by_step()[1])
    state.params["final_linear"]["bias"] = state.params["final_linear"]["bias"].at[0].set(np.nan)
    checkpoints = Checkpoints(epath.Path(tmp_path / "c"))
    with pytest.raises(FloatingPointError, match="after step 5"):
        checkpoints.save(5, state, {}, CONFIG, None)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("loss", ["gone", "changed"])
def test_the_first_save_is_read_back(loss: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that does not give back what it took would be found out when the run is to go on."""
    wait = ocp.CheckpointManager.wait_until_finished

    def wait_and_lose(manager: ocp.CheckpointManager) -> None:
        wait(manager)
        for path in (tmp_path / "c" / "3" / "state").rglob("*"):
            if loss == "gone" and path.is_file():
                path.unlink()

    monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", wait_and_lose)
    checkpoints, state = Checkpoints(tmp_path / "c"), jax.device_put(states_by_step()[3])
    if loss == "changed":
        count = itertools.count()  # other values each time that it is asked
        monkeypatch.setattr(checkpoint, "prints", lambda tree: np.full(len(jax.tree.leaves(tree)), next(count)))
    with pytest.raises(UserError, match=r"checkpoint of step 3 in .* was saved and cannot be read again \("):
        checkpoints.save(3, state, {"next_index": 3}, CONFIG, None)
    assert not checkpoints.proven


def test_prints_are_the_same_by_numpy_and_by_xla() -> None:
    """Of arrays of more than a row, too, and of every size of number."""
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=(3, ROW + 8)).astype(np.float32),
        rng.normal(size=(ROW, 2)).astype(jnp.bfloat16),
        rng.integers(0, 9, (7, 8, 3)),
        np.float32(-0.0),
    ]
    wide = [np.asarray(x, np.int32) if x.dtype == np.int64 else x for x in map(np.asarray, arrays)]
    here = jax.device_put(wide, jax.devices()[0])
    spread = jax.device_put(wide, jax.NamedSharding(jax.make_mesh((8,), ("x",)), jax.P()))
    np.testing.assert_array_equal(prints(here), prints(spread))
    whole = wide[0].reshape(-1)
    odd = 2 * np.arange(whole.size, dtype=np.uint64) + 1
    assert prints(here)[0] == int(np.sum(whole.view(np.uint32) * odd % 2**32)) % 2**32


def test_fingerprint_sees_any_bit_and_no_sharding() -> None:
    state = jax.device_put(states_by_step()[1])
    spread = jax.device_put(state, jax.tree.map(lambda x: x.sharding, abstract_state(devices=8, mesh__fsdp=4)))
    original, finite = fingerprint(state)
    assert finite
    np.testing.assert_array_equal(original, fingerprint(spread)[0])
    kernel = state.params["x_embedder"]["kernel"]
    for row, column in ((0, 0), (3, 5), (15, 7)):
        changed = kernel.at[row, column].set(np.nextafter(kernel[row, column], np.inf))
        params = state.params | {"x_embedder": state.params["x_embedder"] | {"kernel": changed}}
        assert np.sum(fingerprint(state._replace(params=params))[0] != original) == 1
    swapped = kernel.at[0].set(kernel[1]).at[1].set(kernel[0])
    params = state.params | {"x_embedder": state.params["x_embedder"] | {"kernel": swapped}}
    assert np.sum(fingerprint(state._replace(params=params))[0] != original) == 1
