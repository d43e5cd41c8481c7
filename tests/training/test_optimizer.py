"""If these fail, parameters move by another amount than the settings say."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from diffcurr.training.optimizer import Adam, Optimizer

RATES: dict[str, tuple[dict[str, Any], dict[int, float]]] = {  # settings, {step: rate}, of a run of 100 steps
    "constant": ({}, {0: 0.8, 7: 0.8, 99: 0.8, 10**6: 0.8}),
    "constant, warmed up": ({"warmup_steps": 4}, {0: 0.0, 1: 0.2, 3: 0.6, 4: 0.8, 99: 0.8}),
    "cosine": ({"schedule": "cosine", "warmup_steps": 20}, {0: 0.0, 10: 0.4, 20: 0.8, 60: 0.4, 100: 0.0}),
    # 0.8 / sqrt(max(step / 16, 1)), and below it the rise.
    "inverse_sqrt": (
        {"schedule": "inverse_sqrt", "decay_from": 16, "warmup_steps": 8},
        {0: 0.0, 2: 0.2, 8: 0.8, 16: 0.8, 25: 0.64, 64: 0.4, 1600: 0.08},
    ),
    "wsd": (
        {"schedule": "wsd", "decay_share": 0.2, "warmup_steps": 10},
        {0: 0.0, 5: 0.4, 10: 0.8, 80: 0.8, 85: 0.6, 90: 0.4, 99: 0.04, 100: 0.0},
    ),
    "wsd, all of it": ({"schedule": "wsd", "decay_share": 1.0}, {0: 0.8, 50: 0.4, 100: 0.0}),
}


@pytest.mark.parametrize(("settings", "table"), RATES.values(), ids=RATES)
def test_learning_rates(settings: dict[str, Any], table: dict[int, float]) -> None:
    rate = Adam(learning_rate=0.8, **settings).rate(100)
    found = [float(rate(jnp.int32(step))) for step in table]
    np.testing.assert_allclose(found, list(table.values()), rtol=1e-6, atol=1e-7)


def test_the_endless_schedules_do_not_depend_on_the_length_of_a_run() -> None:
    for settings, table in RATES.values():
        optimizer = Adam(**settings)
        rates = [[float(optimizer.rate(steps)(jnp.int32(step))) for step in table] for steps in (100, 200)]
        assert (rates[0] == rates[1]) == (optimizer.schedule in Optimizer.endless)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay_from": 9}, "decay_from = 9: is for schedule = 'inverse_sqrt'; give 0 with 'constant'"),
        (
            {"schedule": "cosine", "decay_share": 0.1},
            "decay_share = 0.1: is for schedule = 'wsd'; give 0 with 'cosine'",
        ),
        ({"schedule": "inverse_sqrt"}, "decay_from = 0: schedule = 'inverse_sqrt' needs it above 0"),
        ({"schedule": "wsd"}, "decay_share = 0.0: schedule = 'wsd' needs it above 0"),
        (
            {"schedule": "inverse_sqrt", "decay_from": 9, "warmup_steps": 10},
            "decay_from = 9: must be at least warmup_steps = 10",
        ),
        (
            {"schedule": "wsd", "decay_share": 0.5, "warmup_steps": 51},
            "decay_share = 0.5: warmup_steps = 51 and 50 steps in which the rate falls are more than the run's 100",
        ),
    ],
)
def test_schedules_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adam(**settings).rate(100)
