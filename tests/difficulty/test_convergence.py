"""If these fail, the analysis reports wrongly which noise levels are learned sooner."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from sklearn.datasets import load_digits

from diffcurr.batch import Batch
from diffcurr.curriculum import clusters
from diffcurr.difficulty import convergence
from diffcurr.difficulty.convergence import Convergence, train_intervals
from diffcurr.training.state import split_network

EXPERIMENT = tiny.experiment(conditioning__name="none")
SETTINGS = dict(seeds=(3, 4), steps=12, batch_size=16, evaluate_every=4, num_evaluated=32)


def first_params(key: jax.Array) -> dict:
    return split_network(EXPERIMENT.make_network(nnx.Rngs(key)))[1]


def digits() -> Batch:
    return Batch(jnp.asarray(load_digits().images[..., None] / 8 - 1, jnp.float32), {})


def train(data: Batch | None = None, **overrides: object) -> Convergence:
    return train_intervals(
        EXPERIMENT.step_config,
        first_params,
        digits() if data is None else data,
        clusters.uniform(3),
        **SETTINGS | overrides,
    )


def test_a_network_sees_only_its_u_interval(compilations: Callable[[], int]) -> None:
    """One program serves all networks and steps, and each network is the same as if it were trained alone."""
    compiled: list[int] = []
    together = train(report=lambda done, total: compiled.append(compilations()))
    assert together.loss.shape == (2, 3, 4) and list(together.steps) == [0, 4, 8, 12]
    assert len(set(compiled[1:])) == 1  # the first report is before the first step

    alone = train(seeds=(4,))
    np.testing.assert_allclose(alone.loss[0], together.loss[1], rtol=1e-4)
    # At first the networks differ only in noise level, and a network whose output is zero has a loss of 1.
    np.testing.assert_allclose(together.loss[:, :, 0], 1.0, atol=0.1)
    assert np.all(together.loss[:, :, -1] < together.loss[:, :, 0])


def test_steps_to_a_share_of_the_improvement() -> None:
    steps = np.arange(0, 1001, 10)
    times = np.array([20.0, 50.0, 100.0])
    loss = 0.3 + 2.0 * np.exp(-steps / times[:, None])[None]
    curve = convergence.normalised(loss)
    np.testing.assert_allclose(curve[0], np.exp(-steps / times[:, None]), atol=2e-4)
    for share in (0.5, 0.9):
        found = convergence.steps_to_share(Convergence(steps, loss), share)
        np.testing.assert_allclose(found[0], -times * np.log(1 - share), rtol=0.05)


def test_a_loss_that_rises_has_no_improvement() -> None:
    steps, falls = np.arange(0, 101, 10), np.linspace(1.0, 0.5, 11)
    found = convergence.steps_to_share(Convergence(steps, np.stack([falls, falls[::-1], falls * 0 + 1])[None]), 0.5)
    np.testing.assert_array_equal(np.isnan(found), [[False, True, True]])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"steps": 10}, "steps = 10: must be a multiple of evaluate_every = 4"),
        ({"batch_size": 0}, "batch_size = 0: must be an integer from 1"),
        ({"seeds": ()}, "seeds = 0: must be an integer from 1"),
    ],
)
def test_rejects(overrides: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(**overrides)


def test_a_loss_that_is_not_finite() -> None:
    data = Batch(jnp.full_like(digits().x, jnp.nan), {})
    with pytest.raises(FloatingPointError, match="loss of u-interval 1 is not finite after 0 steps with seed 3"):
        train(data)


def test_an_invalid_share() -> None:
    with pytest.raises(ValueError, match=r"share = 1.0: must lie between 0 and 1"):
        convergence.steps_to_share(Convergence(np.arange(2), np.ones((1, 1, 2))), 1.0)
