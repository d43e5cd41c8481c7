"""If a test here fails, samples depend on the devices, or each device draws more than its share."""

import dataclasses
import re

import jax
import numpy as np
import pytest
import tiny

from diffcurr.experiment import Experiment
from diffcurr.planning import program
from diffcurr.sampling import drawing

SETTINGS = {"sampling__steps": 3, "conditioning__dropout": 0.1, "sampling__guidance": 1.5}


def drawn(experiment: Experiment, number: int, seed: int = 0) -> np.ndarray:
    params = experiment.init_state().ema
    # The first weights of the last layers are 0, and the samples would not depend on the conditions.
    moved = jax.tree.map(lambda x: x + 0.05 * np.cos(np.arange(x.size, dtype=np.float32)).reshape(x.shape), params)
    condition = experiment.conditioning.chosen(number)
    return experiment.sampler.draw(moved, jax.random.key(seed), condition, number)


@pytest.mark.parametrize("solver", ["ancestral", "heun"])
def test_samples_do_not_depend_on_the_devices(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To rounding: on one device, on eight, on six, which divide nothing, and with several parts drawn at once."""
    settings = SETTINGS | {"sampling__solver": solver}
    monkeypatch.setattr(drawing, "PART", 32)
    one = drawn(tiny.experiment(1, **settings), 110)
    assert one.shape == (110, 8, 8, 1) and one.std() > 0.1
    assert np.all(np.abs(one[32:] - one[:-32]).max(axis=(1, 2, 3)) > 0.01), "another part has another noise"
    for rows in (8, 3):  # four parts, and one part at a time
        monkeypatch.setattr(drawing, "ROWS", rows)
        np.testing.assert_allclose(drawn(tiny.experiment(8, **settings), 110), one, atol=2e-5)
    np.testing.assert_allclose(drawn(tiny.experiment(8, mesh__fsdp=4, **settings), 9), one[:9], atol=2e-5)
    six = tiny.experiment(6, **settings | {"batch_size": 12})
    np.testing.assert_allclose(drawn(six, 45), one[:45], atol=2e-5)


def test_any_number() -> None:
    """Each sample once, in order, with its own condition."""
    eight = tiny.experiment(8, sampling__steps=1)
    sampler = dataclasses.replace(eight.sampler, settings=dataclasses.replace(eight.sampling, steps=1))
    condition = {"label": np.arange(10_001, dtype=np.int32) % 10}
    numbers, told = [], []
    for part in sampler.parts(eight.init_state().ema, jax.random.key(0), condition, 10_001, lambda *_: told.append(_)):
        here, images = part.rows_here()
        assert len(here) == len(images)
        numbers.append(here)
    np.testing.assert_array_equal(np.sort(np.concatenate(numbers)), np.arange(10_001))
    assert told[-1] == (10_001, 10_001) and len(told) == 40
    assert len(sampler.draw(eight.init_state().ema, jax.random.key(0), condition, 10_001)) == 10_001
    with pytest.raises(ValueError, match="number = 0: give at least 1 sample"):
        sampler.draw(eight.init_state().ema, jax.random.key(0), condition, 0)


def test_each_device_draws_its_share() -> None:
    """An eighth of the operations of one device; of what is spread only parameters and conditions are gathered."""

    def compiled(devices: int, **mesh: int) -> tuple[float, str, dict]:
        experiment = tiny.experiment(devices, network__hidden_size=16, network__num_heads=2, **SETTINGS, **mesh)
        sampler, rows = experiment.sampler, 64
        state, key = experiment.abstract_state, jax.random.key(0)
        condition = {"label": np.zeros(rows, np.int32)}
        program_ = sampler.compiled.lower(state.ema, {}, key, np.int32(0), condition, rows, 1).compile()
        text = program_.as_text()
        return program_.cost_analysis()["flops"], text, program.traffic(text)

    alone, _, nothing = compiled(1)
    assert nothing == {}
    spread, _, nothing = compiled(8)
    assert nothing == {} and spread == pytest.approx(alone / 8, rel=0.02)
    sharded, text, traffic = compiled(8, mesh__data=1, mesh__fsdp=8)
    assert sharded == pytest.approx(alone / 8, rel=0.05)
    assert set(traffic) == {"all-gather", "all-to-all"}  # the latter of modulations, from columns to rows
    whole = tiny.experiment(1, **SETTINGS, network__hidden_size=16, network__num_heads=2).abstract_state.ema
    conditions = {(128, 16)}  # with and without guidance
    gathered = {x.shape[-2:] for x in jax.tree.leaves(whole)} | conditions
    for shape in re.findall(r"= f32\[([\d,]*)\]\S* all-gather\(", text):
        assert tuple(int(side) for side in shape.split(","))[-2:] in gathered, shape
