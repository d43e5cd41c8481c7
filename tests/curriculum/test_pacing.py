import itertools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from diffcurr.curriculum import pacing
from diffcurr.curriculum.pacing import PacingConfig


def reference(losses: list[float], config: PacingConfig) -> list[int]:
    """Pacing in plain Python: the stage after each loss. Float32 where the device has it."""
    f32 = np.float32
    stage, best, stale, smoothed, stages = 1, math.inf, 0, f32(0), []
    for loss in map(f32, losses):
        if math.isinf(best):
            smoothed, threshold = loss, math.inf
        else:
            smoothed = f32(f32(config.smoothing) * smoothed + f32(1 - config.smoothing) * loss)
            threshold = f32(best - f32(config.min_improvement) * abs(best))
        if smoothed < threshold:
            best, improved = smoothed, True
        else:
            improved = False
        if config.pacing == "patience":
            stale = 0 if improved else stale + 1
            due = stale > config.patience
        else:
            stale += 1
            length = config.steps_per_stage
            if isinstance(length, tuple):
                length = length[min(stage, len(length)) - 1]
            due = stale >= length
        if due and stage < config.num_stages:
            stage, stale = stage + 1, 0
            if config.reset_best:
                best = math.inf
        stages.append(stage)
    return stages


def on_device(losses: list[float], config: PacingConfig) -> list[int]:
    def body(state: pacing.PacingState, loss: jax.Array) -> tuple[pacing.PacingState, jax.Array]:
        state = pacing.update(state, loss, config)
        return state, state.stage

    _, stages = jax.lax.scan(body, pacing.init(config), jnp.asarray(losses, jnp.float32))
    return np.asarray(stages).tolist()


@hypothesis.given(
    losses=st.lists(st.integers(-20, 20), min_size=60, max_size=60),
    config=st.builds(
        PacingConfig,
        clusters=st.integers(1, 5),
        order=st.sampled_from(pacing.ORDERS),
        pacing=st.sampled_from(pacing.RULES),
        patience=st.integers(1, 4),
        steps_per_stage=st.integers(1, 9),
        # Powers of two keep float32 exact, so that the two programs cannot differ by rounding.
        min_improvement=st.sampled_from([0.0, 0.25]),
        smoothing=st.sampled_from([0.0, 0.5]),
        reset_best=st.booleans(),
        accumulate=st.booleans(),
    ),
)
def test_equals_plain_python(losses: list[int], config: PacingConfig) -> None:
    assert on_device(losses, config) == reference(losses, config)


def test_paper_rule() -> None:
    """More than tau consecutive steps without improvement, and the best loss forgotten at each stage."""
    config = PacingConfig(clusters=3, patience=2)
    #                     stage 1: best 1, then three that are not better; stage 2 begins with a higher loss
    assert on_device([2.0, 1.0, 1.0, 1.5, 1.0, 9.0, 8.0, 8.0, 8.0, 8.0], config) == [1, 1, 1, 1, 2, 2, 2, 2, 2, 3]


def test_lengths_for_each_stage() -> None:
    config = PacingConfig(clusters=3, pacing="fixed", steps_per_stage=(2, 3))
    assert on_device([1.0] * 8, config) == [1, 2, 2, 2, 3, 3, 3, 3]


def masks(config: PacingConfig) -> list[list[int]]:
    """The active clusters (1-based) of every stage."""
    state, result = pacing.init(config), []
    for stage in range(1, config.num_stages + 1):
        active = pacing.active_clusters(state._replace(stage=jnp.int32(stage)), config)
        result.append((np.flatnonzero(active) + 1).tolist())
    return result


def test_orders() -> None:
    assert masks(PacingConfig(clusters=3)) == [[3], [2, 3], [1, 2, 3]]
    assert masks(PacingConfig(clusters=3, order="hard_to_easy")) == [[1], [1, 2], [1, 2, 3]]
    assert masks(PacingConfig(clusters=3, order="none")) == [[1, 2, 3]]
    assert masks(PacingConfig(clusters=3, accumulate=False)) == [[3], [2], [1], [1, 2, 3]]
    first, second = (
        masks(PacingConfig(clusters=9, order="random", seed=1)),
        masks(PacingConfig(clusters=9, order="random", seed=2)),
    )
    assert first != second
    for stages in (first, second):
        assert [len(stage) for stage in stages] == list(range(1, 10))
        assert all(set(a) < set(b) for a, b in itertools.pairwise(stages))


@pytest.mark.parametrize(
    "settings",
    [
        {"clusters": 0},
        {"order": "backwards"},
        {"pacing": "slow"},
        {"patience": 0},
        {"patience": -3},
        {"smoothing": 1.0},
        {"min_improvement": -0.1},
        {"steps_per_stage": 0},
        {"clusters": 4, "pacing": "fixed", "steps_per_stage": (5, 5)},
    ],
)
def test_rejects(settings: dict) -> None:
    name = list(settings)[-1]
    with pytest.raises(ValueError, match=name):
        PacingConfig(**settings)
