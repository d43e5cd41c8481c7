"""If these fail, control variates change the means that they should only make more precise."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffcurr.difficulty import control_variates

NUM_PAIRS, NUM_SAMPLES = 3, 40


def samples(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_regression_in_two_steps_equals_a_single_fit() -> None:
    """Value and standard error are those of the intercept of ordinary least squares on all control variates."""
    controls, further = samples(0, NUM_SAMPLES, 2), samples(1, NUM_PAIRS, NUM_SAMPLES)
    y = 3.0 + controls @ [1.0, -2.0] + 0.5 * further + 0.1 * samples(2, NUM_PAIRS, NUM_SAMPLES)
    first, control = (control_variates.regress(jnp.asarray(part), jnp.asarray(controls)) for part in (y, further))
    found = control_variates.regress_further(first, control)
    for pair in range(NUM_PAIRS):
        design = np.column_stack([np.ones(NUM_SAMPLES), controls, further[pair]])
        fit, (squares,), *_ = np.linalg.lstsq(design, y[pair])
        variance = squares / (NUM_SAMPLES - 4) * np.linalg.inv(design.T @ design)[0, 0]
        assert found.value[pair] == pytest.approx(fit[0], rel=1e-4)
        assert found.standard_error[pair] == pytest.approx(np.sqrt(variance), rel=1e-3)
