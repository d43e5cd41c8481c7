"""If these fail, parameters move by another amount than the settings say."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import worded
from flax import nnx

from diffcurr.layout import path_name
from diffcurr.networks.discriminator import Discriminator
from diffcurr.training import muon
from diffcurr.training.optimizer import Adafactor, Adam, AdamW, Muon, Optimizer
from diffcurr.training.state import split_network
from diffcurr.weights import HEAD

guests = worded.guests  # a fixture of this module too

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


def orthogonalised(matrix: np.ndarray) -> np.ndarray:
    """Five Newton-Schulz iterations on the smaller side, with the coefficients of Jordan et al. 2024, in float64."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def test_muon_makes_each_part_of_a_fused_kernel_orthogonal_by_itself() -> None:
    rng = np.random.default_rng(0)
    shapes = {
        "blocks": {"qkv": {"kernel": (2, 4, 18), "bias": (2, 18)}, "fc2": {"kernel": (2, 8, 4)}},
        "shared_modulation": {"kernel": (4, 24)},
        "text": {"key_value": {"kernel": (4, 10)}},
        "8x8_in0": {"qkv": {"conv": {"kernel": (1, 1, 6, 15)}}, "conv0": {"conv": {"kernel": (3, 3, 2, 5)}}},
        "x_embedder": {"kernel": (4, 6)},
    }
    is_shape = dict(is_leaf=lambda shape: isinstance(shape, tuple))
    params, first, second = (jax.tree.map(lambda s: rng.normal(size=s), shapes, **is_shape) for _ in range(3))
    expected: dict[str, list[np.ndarray]] = {  # the matrices of each kernel
        "blocks/qkv/kernel": [np.s_[block, :, 6 * part : 6 * part + 6] for block in (0, 1) for part in range(3)],
        "blocks/fc2/kernel": [np.s_[block] for block in (0, 1)],
        "shared_modulation/kernel": [np.s_[:, 4 * part : 4 * part + 4] for part in range(6)],
        "text/key_value/kernel": [np.s_[:, :5], np.s_[:, 5:]],
        "8x8_in0/qkv/conv/kernel": [np.s_[0, 0, :, part::3] for part in range(3)],  # they alternate
        "8x8_in0/conv0/conv/kernel": [np.s_[:]],
    }
    optimizer = Muon(learning_rate=0.5, weight_decay=0.1, clip_norm=0.0)
    transformation, adamw = optimizer.transformation(9), AdamW(learning_rate=0.5, weight_decay=0.1, clip_norm=0.0)
    params, first, second = jax.tree.map(jnp.float32, (params, first, second))

    @functools.partial(jax.jit, static_argnums=0)
    def second_update(of: Any) -> Any:
        return of.update(second, of.update(first, of.init(params), params)[1], params)[0]

    found, by_adamw = second_update(transformation), second_update(adamw.transformation(9))

    def check(path: Any, update: Any, param: Any, a: Any, b: Any, of_adamw: Any) -> None:
        name = path_name(path)
        if name not in expected:
            np.testing.assert_allclose(update, of_adamw, rtol=1e-6, err_msg=name)
            return
        param, a, b = (np.asarray(x, np.float64) for x in (param, a, b))
        # Nesterov's momentum, both terms free of the bias of their start from 0.
        mean = 0.95 * 0.05 * (0.95 * a + b) / (1 - 0.95**3) + 0.05 * b / (1 - 0.95**2)
        wanted = np.full(param.shape, np.nan)
        for where in expected[name]:
            matrix = mean[where].reshape(-1, mean[where].shape[-1])
            moved = 0.2 * np.sqrt(max(matrix.shape)) * orthogonalised(matrix)
            wanted[where] = -0.5 * (moved.reshape(mean[where].shape) + 0.1 * param[where])
        np.testing.assert_allclose(update, wanted, rtol=1e-3, atol=1e-4, err_msg=name)

    jax.tree_util.tree_map_with_path(check, found, params, first, second, by_adamw)


def test_what_muon_moves() -> None:
    """All matrices but those that a network begins and ends with; its momentum has their shapes and shardings."""
    dit = worded.TEXT | {"mesh__fsdp": 4, "optimizer": "muon", "network__hidden_size": 16}
    state = tiny.experiment(8, **dit).abstract_state
    layers = ("fc1", "fc2", "modulation", "proj", "qkv", "text/key_value", "text/proj", "text/query")
    wanted = {f"blocks/{layer}/kernel" for layer in layers}
    wanted |= {f"t_embedder_{end}/kernel" for end in ("in", "out")}
    wanted |= {f"text_projection/{end}/kernel" for end in ("inner", "outer")}
    assert _moved(state.params) == wanted
    params = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state):
        name = path_name(path).rpartition("/mu/")[2]
        if name in params:
            assert (leaf.shape, leaf.sharding) == (params[name].shape, params[name].sharding), name
    unet = _moved(tiny.experiment(process="edm", network="song_unet").abstract_state.params)
    assert not any("8x8_conv" in name or "aux" in name or "map_label" in name for name in unet)
    assert {"enc/8x8_block0/conv0/conv/kernel", "dec/8x8_in0/qkv/conv/kernel", "map_layer0/kernel"} <= unet
    judge = split_network(Discriminator((8, 8), 1, 4, dtype="float32", rngs=nnx.Rngs(0)))[1]
    kernels = {path_name(path) for path, leaf in jax.tree_util.tree_leaves_with_path(judge) if leaf.ndim >= 2}
    assert kernels - _moved(judge) == {"from_picture/kernel", "score/kernel"}
    heads = [f"{HEAD}/fc{number}/kernel" for number in (1, 2, 3)]
    assert [muon.rule(name, 2) is not None for name in heads] == [True, True, False]


def test_adafactor_by_hand() -> None:
    """Two steps of a matrix and a vector in float64 (Shazeer & Stern 2018, algorithms 4 and 5)."""
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((3, 5)), "b": rng.standard_normal(5)}
    grads = [{name: rng.standard_normal(x.shape) for name, x in params.items()} for _ in range(2)]
    optimizer = Adafactor(learning_rate=0.5, factored_from=3, clip_norm=0.0, weight_decay=0.1, clip_rms=0.9)
    update = optimizer.transformation(10)
    state, mean = update.init(jax.tree.map(jnp.float32, params)), jax.tree.map(np.zeros_like, params)
    squares: dict[str, Any] = {}
    for step, gradient in enumerate(grads):
        found, state = update.update(jax.tree.map(jnp.float32, gradient), state, jax.tree.map(jnp.float32, params))
        for name, g in gradient.items():
            kept = 1 - (step + 1) ** -0.8
            squares[name] = kept * squares.get(name, 0.0) + (1 - kept) * g**2
            second = squares[name]
            if g.ndim == 2:  # rows times columns, by the mean of all
                second = np.outer(second.mean(axis=1), second.mean(axis=0)) / second.mean()
            moved = g / np.sqrt(second)
            moved = moved / max(1.0, np.sqrt(np.mean(moved**2)) / 0.9)
            mean[name] = 0.9 * mean[name] + 0.1 * moved
            np.testing.assert_allclose(found[name], -0.5 * (mean[name] + 0.1 * params[name]), rtol=1e-4)


def test_what_adafactor_keeps_is_small_and_lies_well() -> None:
    """First moments as the parameters; of second moments of matrices, rows and columns, whole on each device."""

    def by_name(tree: Any) -> dict[str, Any]:
        return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

    experiment = tiny.experiment(8, mesh__fsdp=4, optimizer={"name": "adafactor", "factored_from": 8})
    params, state = by_name(experiment.abstract_state.params), by_name(experiment.abstract_state.opt_state)
    means = {name.partition("/ema/")[2]: leaf for name, leaf in state.items() if "/ema/" in name}
    assert {name: (leaf.shape, leaf.sharding) for name, leaf in means.items()} == {
        name: (leaf.shape, leaf.sharding) for name, leaf in params.items()
    }
    factors = [leaf for name, leaf in state.items() if "/v_row/" in name or "/v_col/" in name]
    assert all(leaf.sharding.is_fully_replicated for leaf in factors)
    second = sum(leaf.size for name, leaf in state.items() if "/v" in name)
    assert second < 0.3 * sum(leaf.size for leaf in params.values())


def _moved(params: Any) -> set[str]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {path_name(path) for path, leaf in leaves if muon.rule(path_name(path), leaf.ndim) is not None}
