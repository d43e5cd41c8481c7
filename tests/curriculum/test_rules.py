"""A curriculum would move on at another step than the paper's rule says, or train other clusters."""

import itertools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from diffcurr import experiment, parts
from diffcurr.curriculum import RULES, rules
from diffcurr.curriculum.rules import Fixed, Patience, Seen
from diffcurr.errors import UserError


def reference(losses: list[float], rule: Patience | Fixed) -> list[int]:
    """The rule in plain Python: the stage after each loss. Float32 where the device has it."""
    f32 = np.float32
    stage, best, stale, smoothed, stages = 1, math.inf, 0, f32(0), []
    for loss in map(f32, losses):
        if isinstance(rule, Patience):
            if math.isinf(best):
                smoothed, threshold = loss, math.inf
            else:
                smoothed = f32(f32(rule.smoothing) * smoothed + f32(1 - rule.smoothing) * loss)
                threshold = f32(best - f32(rule.min_improvement) * abs(best))
            if smoothed < threshold:
                best, improved = smoothed, True
            else:
                improved = False
            stale = 0 if improved else stale + 1
            due = stale > rule.patience
        else:
            stale += 1
            length = rule.steps_per_stage
            if isinstance(length, tuple):
                length = length[min(stage, len(length)) - 1]
            due = stale >= length
        if due and stage < rule.num_stages:
            stage, stale = stage + 1, 0
            if isinstance(rule, Fixed) or rule.reset_best:
                best = math.inf
        stages.append(stage)
    return stages


def seen(loss: jax.Array, clusters: int) -> Seen:
    """A step of 8 examples in each cluster; the rules of the paper read the mean loss alone."""
    each = jnp.full((clusters,), 8.0)
    return Seen(loss, each * loss, each * 0.5, each)


def on_device(losses: list[float], rule: Patience | Fixed) -> list[int]:
    def body(state: rules.StagesState, loss: jax.Array) -> tuple[rules.StagesState, jax.Array]:
        state = rule.update(state, seen(loss, rule.clusters))
        return state, rule.stage(state)

    _, stages = jax.lax.scan(body, rule.init(), jnp.asarray(losses, jnp.float32))
    return np.asarray(stages).tolist()


STAGES = {
    "clusters": st.integers(1, 5),
    "order": st.sampled_from(rules.ORDERS),
    "accumulate": st.booleans(),
}


@hypothesis.given(
    losses=st.lists(st.integers(-20, 20), min_size=60, max_size=60),
    rule=st.builds(
        Patience,
        **STAGES,
        patience=st.integers(1, 4),
        # Powers of two keep float32 exact, so that the two programs cannot differ by rounding.
        min_improvement=st.sampled_from([0.0, 0.25]),
        smoothing=st.sampled_from([0.0, 0.5]),
        reset_best=st.booleans(),
    )
    | st.builds(Fixed, **STAGES, steps_per_stage=st.integers(1, 9)),
)
def test_equals_plain_python(losses: list[int], rule: Patience | Fixed) -> None:
    assert on_device(losses, rule) == reference(losses, rule)


def test_paper_rule() -> None:
    """More than tau consecutive steps without improvement, and the best loss forgotten at each stage."""
    rule = Patience(clusters=3, patience=2)
    #                     stage 1: best 1, then three that are not better; stage 2 begins with a higher loss
    assert on_device([2.0, 1.0, 1.0, 1.5, 1.0, 9.0, 8.0, 8.0, 8.0, 8.0], rule) == [1, 1, 1, 1, 2, 2, 2, 2, 2, 3]


def test_lengths_for_each_stage() -> None:
    rule = Fixed(clusters=3, steps_per_stage=(2, 3))
    assert on_device([1.0] * 8, rule) == [1, 2, 2, 2, 3, 3, 3, 3]


def active(rule: Patience | Fixed) -> list[list[int]]:
    """The active clusters (1-based) of every stage; each is drawn with weight 1 and the others with 0."""
    state, result = rule.init(), []
    for stage in range(1, rule.num_stages + 1):
        weights = np.asarray(rule.weights(state._replace(stage=jnp.int32(stage))))
        assert weights.dtype == np.float32 and weights.shape == (rule.clusters,) and np.all(np.isin(weights, [0, 1]))
        result.append((np.flatnonzero(weights) + 1).tolist())
    return result


@pytest.mark.parametrize("kind", [Patience, Fixed])
def test_orders(kind: type[Patience] | type[Fixed]) -> None:
    assert active(kind(clusters=3)) == [[3], [2, 3], [1, 2, 3]]
    assert active(kind(clusters=3, order="hard_to_easy")) == [[1], [1, 2], [1, 2, 3]]
    assert active(kind(clusters=3, order="none")) == [[1, 2, 3]]
    assert active(kind(clusters=3, accumulate=False)) == [[3], [2], [1], [1, 2, 3]]
    first, second = (
        active(kind(clusters=9, order="random", seed=1)),
        active(kind(clusters=9, order="random", seed=2)),
    )
    assert first != second
    for stages in (first, second):
        assert [len(stage) for stage in stages] == list(range(1, 10))
        assert all(set(a) < set(b) for a, b in itertools.pairwise(stages))


def test_the_step_can_be_compiled_for_a_rule() -> None:
    """Settings are static, so equal rules are equal and hashable; the state keeps its shapes and dtypes."""
    assert hash(Fixed(clusters=3, steps_per_stage=[2, 3])) == hash(Fixed(clusters=3, steps_per_stage=(2, 3)))
    for kind in RULES.values():
        rule = kind(clusters=3)
        assert rule == kind(clusters=3) and hash(rule) == hash(kind(clusters=3))
        state = rule.init()
        after = jax.eval_shape(lambda state, rule=rule: rule.update(state, seen(jnp.float32(1), 3)), state)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Patience, {"clusters": 0}),
        (Patience, {"order": "backwards"}),
        (Patience, {"patience": 0}),
        (Patience, {"patience": -3}),
        (Patience, {"smoothing": 1.0}),
        (Patience, {"min_improvement": -0.1}),
        (Fixed, {"clusters": 0}),
        (Fixed, {"order": "backwards"}),
        (Fixed, {"steps_per_stage": 0}),
        (Fixed, {"clusters": 4, "steps_per_stage": (5, 5)}),
        (Fixed, {"order": "none", "steps_per_stage": ()}),
    ],
)
def test_rejects(kind: type[Patience] | type[Fixed], settings: dict) -> None:
    name = list(settings)[-1]
    with pytest.raises(ValueError, match=name):
        kind(**settings)


def test_unknown() -> None:
    assert parts.TABLES["curriculum"] is RULES and experiment
    with pytest.raises(UserError, match=r"curriculum\.name = 'slow': choose one of patience, fixed"):
        parts.build("curriculum", {"name": "slow"}, clusters=3, seed=0)
