"""If these fail, alignment is another loss than REPA's, touches what it must not, or does not stop when told."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax import nnx

from diffcurr.errors import UserError
from diffcurr.experiment import Experiment
from diffcurr.networks.convert import export_torch
from diffcurr.training import step as step_lib
from diffcurr.weights import HEAD

REPA = {"name": "repa", "block": 1, "hidden": 12, "features": 6, "until": 2}
LATENTS = {"name": "encoded", "size": 8, "channels": 1, "classes": 10}  # planned, where no folder is


def config_of(**overrides: Any) -> dict[str, Any]:
    own = {"process": "edm", "sampling__clip": 0.0, "network__depth": 2, "microbatches": 2}
    return own | {"dataset": LATENTS, "alignment": REPA} | overrides


@pytest.fixture(scope="module")
def aligned() -> Experiment:
    return tiny.experiment(**config_of(devices=8, mesh__fsdp=2, mesh__tensor=2))


@pytest.fixture(scope="module")
def without() -> Experiment:
    return tiny.experiment(**config_of(alignment="none"))


@pytest.fixture(scope="module")
def trained(aligned: Experiment) -> tuple[Any, ...]:
    """(the first state's parameters, metrics, first moments of a layer's gradient, compilations) of three steps."""
    compiled, state = aligned.compiled, aligned.init_state()
    first, weights, metrics, moments = jax.device_get(state.params), compiled.initial_carry(state), [], []
    for step in range(3):
        state, weights, told = compiled.step(state, tiny.batch(aligned, step), weights)
        metrics.append(jax.device_get(told))
        moments.append(jax.device_get(optax.tree.get(state.opt_state, "mu")[HEAD]["fc3"]["kernel"]))
    return first, metrics, moments, compiled.step._cache_size()


def moved(params: Any) -> Any:
    """No gate is closed any more, as all are at first."""
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params)


@pytest.fixture(scope="module")
def computed(aligned: Experiment, trained: tuple[Any, ...]) -> dict[str, Any]:
    """On one device, of the first microbatch: its losses, the gradient of the alignment alone, what the network puts
    out; and the alignment of each microbatch of the first step.
    """
    config, batch = aligned.step_config, jax.device_get(tiny.batch(aligned, 0))
    parts = [jax.tree.map(lambda x, first=m: jnp.asarray(x[first::2]), batch) for m in (0, 1)]
    params, weights = moved(trained[0]), jnp.asarray(trained[1][0].weights)

    @jax.jit
    def compute(params: Any, first: Any) -> dict[str, Any]:
        drawn = [step_lib.draw(config, jnp.int32(0), m, weights, part.x.shape) for m, part in enumerate(parts)]

        def alignment(params: Any, m: int = 0) -> tuple[Any, Any]:
            total, (loss, _, aligned) = step_lib.microbatch_loss(params, config, parts[m], drawn[m])
            return aligned, (total, loss)

        (aligned, (total, loss)), grads = jax.value_and_grad(alignment, has_aux=True)(params)
        network, told = nnx.merge(config.graph, params), config.conditioning.drop(parts[0].condition, drawn[0].dropped)
        seen: dict[str, Any] = {"of_parts": [alignment(first, m)[0] for m in (0, 1)]}

        def predict(x: jax.Array, t: jax.Array) -> jax.Array:
            seen["beside"], seen["tokens"] = network.with_block(1, x, t, told)
            seen["output"] = network(x, t, told)
            return seen["output"]

        seen["loss"] = jnp.mean(config.process.losses(predict, parts[0].x, drawn[0].u, drawn[0].noise).loss)
        return seen | {"losses": (total, loss, aligned), "grads": grads}

    found = jax.device_get(compute(params, trained[0]))
    return found | {"params": params, "features": parts[0].features}


def test_the_loss_is_minus_the_cosine(computed: dict[str, Any]) -> None:
    """Against NumPy; and the output beside the tokens is the one without."""
    np.testing.assert_allclose(computed["beside"], computed["output"], atol=1e-6)
    head = jax.tree.map(lambda x: np.asarray(x, np.float64), computed["params"][HEAD])
    values, features = (np.asarray(computed[name], np.float64) for name in ("tokens", "features"))
    for layer in ("fc1", "fc2", "fc3"):
        values = values @ head[layer]["kernel"] + head[layer]["bias"]
        values = values / (1 + np.exp(-values)) if layer != "fc3" else values
    norms = np.linalg.norm(values, axis=-1) * np.linalg.norm(features, axis=-1)
    total, loss, aligned = computed["losses"]
    np.testing.assert_allclose(aligned, -np.mean(np.sum(values * features, axis=-1) / norms), rtol=1e-5)
    np.testing.assert_allclose(
        [loss, total], [computed["loss"], loss + 0.5 * 64 * aligned], rtol=1e-5
    )  # a sum over pixels


def test_its_gradient_reaches_the_head_and_the_blocks_before_it(computed: dict[str, Any]) -> None:
    grads = computed["grads"]
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(grads[HEAD]))
    for x in jax.tree.leaves(grads["blocks"]):
        assert np.abs(x[0]).max() > 0 and np.abs(x[1]).max() == 0
    assert all(np.abs(x).max() == 0 for x in jax.tree.leaves((grads["final_linear"], grads["final_modulation"])))


def test_the_network_is_that_without_and_the_curriculum_sees_the_denoising(
    aligned: Experiment, trained: tuple[Any, ...]
) -> None:
    without = tiny.experiment(**config_of(alignment="none"))
    _, (told,) = tiny.train(without, 1)
    first, metrics, *_ = trained
    plain = jax.device_get(without.init_state().params)
    assert set(first) - set(plain) == {HEAD}
    jax.tree.map(np.testing.assert_array_equal, {name: first[name] for name in plain}, plain)
    exported = [
        export_torch(nnx.merge(one.step_config.graph, params)) for one, params in ((aligned, first), (without, plain))
    ]
    jax.tree.map(np.testing.assert_array_equal, *exported)
    assert told.alignment is None and -1 <= metrics[0].alignment <= 1
    for field in ("loss", "cluster_loss", "cluster_noise_error", "cluster_count"):
        np.testing.assert_allclose(getattr(metrics[0], field), getattr(told, field), rtol=1e-5)


def test_it_stops_at_its_step_in_one_compilation(trained: tuple[Any, ...]) -> None:
    """From then on the first moment of the head's gradient only decays."""
    _, metrics, moments, compilations = trained
    assert compilations == 1 and all(m.alignment != 0 for m in metrics)
    np.testing.assert_allclose(moments[2], 0.9 * moments[1], rtol=1e-6)
    assert np.abs(moments[1] - 0.9 * moments[0]).max() > 0.1 * np.abs(moments[1]).max()


def test_the_step_reports_it_over_microbatches_and_devices(computed: dict[str, Any], trained: tuple[Any, ...]) -> None:
    np.testing.assert_allclose(trained[1][0].alignment, np.mean(computed["of_parts"]), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alignment": REPA | {"block": 3}}, "block = 3: the network has only 2 blocks"),
        (
            {"network": "song_unet"},
            "SongUNet has no blocks over tokens to align",
        ),
        ({"alignment": REPA | {"features": 0}}, "features = 0: to plan without the data, give the width"),
        ({"dataset": "digits"}, "Digits stores no features of its pictures: encode it by --job=encode"),
        ({"task": "autoencoder"}, "alignment.name = 'repa': is for task.name = 'diffusion'"),
    ],
)
def test_what_cannot_be_aligned(changes: dict, message: str) -> None:
    settings = config_of(**changes)
    if "network" in changes:
        del settings["network__depth"]
    with pytest.raises(UserError) as caught:
        tiny.experiment(**settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)
