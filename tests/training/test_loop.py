"""If these fail, logged losses miss steps or count them twice, or a run that has broken down goes on unnoticed."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from diffcurr.batch import Batch
from diffcurr.data import pipeline, sources
from diffcurr.training import sharding
from diffcurr.training.loop import Loop
from diffcurr.training.window import CurriculumWindow, Window

DEVICE = sharding.replicated(sharding.make_mesh(1, 1, 1, jax.devices()[:1]))


class Metrics(NamedTuple):
    loss: jax.Array
    grad_norm: jax.Array


@jax.jit
def step(state: jax.Array, batch: jax.Array, carry: jax.Array) -> tuple[jax.Array, jax.Array, Metrics]:
    """The loss is the batch's own number, so that each step is known by it; the carry counts."""
    return state + batch.mean(), carry + 1, Metrics(batch.mean(), 2.0 * batch.mean())


def numbered(losses: list[float], first: int = 0) -> Iterator[np.ndarray]:
    yield from (np.full(4, loss, np.float32) for loss in losses[first:])


def make_loop(losses: list[float], number: int = 0) -> Loop:
    new_window = functools.partial(Window, batch_size=4)
    return Loop(step, jnp.zeros(()), jnp.zeros(()), numbered(losses, number), DEVICE, new_window, number)


@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize(("every", "checkpoint_every"), [(1, 5), (4, 6), (5, 5), (3, 100), (30, 7)])
def test_the_loss_of_every_step_is_in_one_summary(first: int, every: int, checkpoint_every: int) -> None:
    """Windows as the train job closes them, a checkpoint, which waits for the last one, between them or within one."""
    rng = np.random.default_rng(0)
    losses = rng.uniform(0.1, 2.0, 30).tolist()
    loop, summaries = make_loop(losses, first), []
    while loop.number < 30:
        loop.advance()
        if loop.number % every == 0:
            summaries.append(loop.close_window())
        if loop.number % checkpoint_every == 0 or loop.number == 30:
            summaries.append(loop.finish())
            loop.pending()
    summaries = [one for one in summaries if one is not None]
    begins = first
    for one in summaries:
        assert begins < one["step"] <= 30 and one["step"] % every == 0
        np.testing.assert_allclose(one["loss"], np.mean(losses[begins : one["step"]]), rtol=1e-6)
        np.testing.assert_allclose(one["grad_norm"], 2 * one["loss"], rtol=1e-6)
        assert one["steps_per_second"] > 0 and one["data_wait"] >= 0
        np.testing.assert_allclose(one["images_per_second"], 4 * one["steps_per_second"])
        begins = one["step"]
    assert begins == 30 - 30 % every
    assert loop.finish() is None, "a summary was given twice"
    assert float(loop.carry) == 30 - first
    np.testing.assert_allclose(loop.state, np.sum(losses[first:]), rtol=1e-5)


def test_a_summary_comes_one_window_late() -> None:
    """So the host does not wait for the steps that it has just dispatched."""
    loop = make_loop([float(n) for n in range(1, 9)])
    found = []
    for _ in range(4):
        loop.advance()
        loop.advance()
        found.append(loop.close_window())
    assert found[0] is None
    assert [one["step"] for one in found[1:]] == [2, 4, 6]
    last = loop.finish()
    assert last is not None and (last["step"], last["loss"]) == (8, 7.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("notice", ["close_window", "finish", "pending"])
def test_a_loss_that_is_not_finite_is_raised_with_its_step(bad: float, notice: str) -> None:
    losses = [1.0] * 20
    losses[12] = losses[13] = bad
    loop = make_loop(losses, number=10)
    for _ in range(2):
        loop.advance()
    assert loop.close_window() is None
    for _ in range(3):
        loop.advance()
    if notice != "pending":  # which sees the steps of a window that is open yet
        summary = loop.close_window()
        assert summary is not None and summary["step"] == 12
        loop.advance()
    with pytest.raises(FloatingPointError, match=f"^the loss is {bad} at step 13$"):
        getattr(loop, notice)()


def test_a_gradient_that_is_not_finite_is_raised_too() -> None:
    @jax.jit
    def broken(state: jax.Array, batch: jax.Array, carry: None) -> tuple[jax.Array, None, Metrics]:
        return state, carry, Metrics(batch.mean(), jnp.inf * batch.mean())

    loop = Loop(broken, jnp.zeros(()), None, numbered([1.0]), DEVICE, functools.partial(Window, batch_size=4))
    loop.advance()
    with pytest.raises(FloatingPointError, match="the gradient's norm is inf at step 1"):
        loop.pending()


class Interrupted:
    """Batches of an experiment of which one is spoilt."""

    def __init__(self, experiment: Any, spoilt: int = -1):
        dataset = pipeline.make_dataset(
            sources.ArraySource(
                np.random.default_rng(0).integers(0, 17, (64, 8, 8, 1)).astype(np.uint8), np.arange(64) % 10
            ),
            experiment.dataset,
            experiment.conditioning.of,
            batch_size=experiment.config.batch_size,
            seed=0,
        )
        self._batches, self._spoilt, self._taken = pipeline.make_iterator(dataset, threads=0, prefetch=0), spoilt, 0

    def __iter__(self) -> "Interrupted":
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self._taken += 1
        return batch._replace(x=np.full_like(batch.x, np.nan)) if self._taken == self._spoilt else batch


def make_training(spoilt: int = -1) -> Loop:
    experiment = tiny.experiment()
    state = experiment.init_state()
    new_window = functools.partial(CurriculumWindow, batch_size=16, num_stages=3)
    compiled = experiment.compiled
    weights = compiled.initial_carry(state)
    batches = Interrupted(experiment, spoilt)
    return Loop(compiled.step, state, weights, batches, compiled.batch_sharding, new_window)


def test_what_is_logged_of_a_curriculum() -> None:
    """Each cluster's own means, and nothing of those that were not drawn; the host transfers nothing by the way."""
    loop, compiled = make_training(), tiny.experiment().compiled
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            loop.advance()
        loop.close_window()
        summary = loop.finish()
    assert summary is not None

    experiment = tiny.experiment()
    batches, state = Interrupted(experiment), experiment.init_state()
    weights, seen = compiled.initial_carry(state), []
    for _ in range(2):
        state, weights, metrics = compiled.step(state, jax.device_put(next(batches), compiled.batch_sharding), weights)
        seen.append(jax.device_get(metrics))
    assert (summary["step"], summary["stage"], summary["num_stages"]) == (2, 1, 3)
    np.testing.assert_allclose(summary["loss"], np.mean([m.loss for m in seen]), rtol=1e-6)
    np.testing.assert_array_equal(summary["weight_by_cluster"], [0.0, 0.0, 1.0])
    assert summary["learning_rate"] == pytest.approx(1e-3)
    for name, total in (("loss_by_cluster", "cluster_loss"), ("noise_error_by_cluster", "cluster_noise_error")):
        expected = sum(getattr(m, total) for m in seen)[2] / 32
        np.testing.assert_allclose(summary[name], [np.nan, np.nan, expected], rtol=1e-6)


def test_where_training_broke_down() -> None:
    loop = make_training(spoilt=3)
    for _ in range(3):
        loop.advance()
    with pytest.raises(FloatingPointError, match=r"^the loss is nan at step 3, stage 1/3 in clusters 3$"):
        loop.pending()
