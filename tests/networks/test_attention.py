"""If a test here fails, a network computes something else on an accelerator than on a CPU, or does not run there."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AbstractDevice, AbstractMesh, NamedSharding, PartitionSpec

from diffcurr.errors import UserError
from diffcurr.networks import attention
from diffcurr.networks.attention import Choice, Shape
from diffcurr.networks.remat import REMAT_POLICIES
from diffcurr.training.sharding import make_mesh


def with_gradients(attend, mesh, arrays) -> list[np.ndarray]:
    """What is attended, and its gradients, where blocks are recomputed."""

    def both(query, key, value, gradient):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            kept = jax.checkpoint(lambda *x: attend(*x), policy=REMAT_POLICIES["dots"])
            attended, back = jax.vjp(kept, query, key, value)
            return attended, *back(gradient)

    spread = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    return jax.device_get(jax.jit(both, in_shardings=spread)(*arrays))


# On eight devices the batch lies on four and the heads on two. More than 1,024 tokens are several blocks.
@pytest.mark.parametrize(
    ("mesh", "shape", "causal"),
    [((2, 2, 2), (4, 128, 2, 72), False), ((2, 2, 2), (4, 128, 2, 64), True), ((1, 1, 1), (1, 1152, 1, 8), False)],
    ids=["spread", "causal", "blocks"],
)
def test_flash_attention_is_that_of_xla(mesh: tuple[int, ...], shape: tuple[int, ...], causal: bool) -> None:
    arrays = [jax.random.normal(key, shape) for key in jax.random.split(jax.random.key(0), 4)]
    devices = make_mesh(*mesh, jax.devices()[: np.prod(mesh)])
    interpreted = functools.partial(attention.IMPLEMENTATIONS["flash"].attend, causal=causal, interpret=True)
    xla = functools.partial(jax.nn.dot_product_attention, is_causal=causal)
    found = with_gradients(interpreted, devices, arrays)
    for one, other in zip(found, with_gradients(xla, devices, arrays), strict=True):
        np.testing.assert_allclose(one, other, atol=5e-6)


def on(platform: str) -> AbstractMesh:
    device = AbstractDevice(device_kind=platform, num_cores=1, platform=platform)
    return AbstractMesh((1,), ("data",), abstract_device=device)


CHOICES = {
    ("cpu", 4096, 72, "bfloat16"): Choice("xla"),
    ("tpu", 256, 72, "bfloat16"): Choice("xla"),
    ("tpu", 1024, 72, "bfloat16"): Choice("flash"),
    ("tpu", 4096, 64, "float32"): Choice("flash"),
    ("tpu", 1296, 64, "bfloat16"): Choice("xla", "not flash: takes multiples of 128 tokens, and not 1296"),
    ("tpu", 1024, 256, "bfloat16"): Choice("xla", "not flash: takes heads of at most 128, and not 256"),
    ("gpu", 256, 72, "bfloat16"): Choice("xla"),
    ("gpu", 1024, 72, "bfloat16"): Choice("cudnn"),
    ("gpu", 1024, 72, "float32"): Choice("xla", "not cudnn: takes bfloat16 or float16, and not float32"),
}


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN is there."""
    row = attention.IMPLEMENTATIONS["cudnn"]

    def refusal(shape: Shape) -> str:
        return row.refusal(shape) if shape.dtype == jnp.float32 else ""

    monkeypatch.setitem(attention.IMPLEMENTATIONS, "cudnn", dataclasses.replace(row, refusal=refusal))


@pytest.mark.usefixtures("cudnn")
@pytest.mark.parametrize(("where", "choice"), CHOICES.items())
def test_what_is_chosen(where: tuple[str, int, int, str], choice: Choice) -> None:
    platform, tokens, width, dtype = where
    with jax.sharding.use_abstract_mesh(on(platform)):
        assert attention.choose("auto", Shape(tokens, width, jnp.dtype(dtype))) == choice


REFUSED = {
    ("flash", "cpu"): "attention = 'flash': is for a TPU, and this is a CPU; choose 'auto' or 'xla'",
    ("flash", "gpu"): "attention = 'flash': is for a TPU, and this is a GPU; choose 'auto' or 'xla'",
    ("cudnn", "tpu"): "attention = 'cudnn': is for a GPU, and this is a TPU; choose 'auto' or 'xla'",
    ("cudnn", "gpu"): "attention = 'cudnn': takes bfloat16 or float16, and not float32; choose 'auto' or 'xla'",
}


@pytest.mark.parametrize(("where", "message"), REFUSED.items())
def test_what_is_refused(where: tuple[str, str], message: str) -> None:
    name, platform = where
    with jax.sharding.use_abstract_mesh(on(platform)), pytest.raises(ValueError, match=f"^{message}$"):
        attention.choose(name, Shape(1024, 72, jnp.dtype("float32")))


def test_a_config_is_refused_before_anything_is_built() -> None:
    with pytest.raises(UserError, match="^network dit: attention = 'flash': is for a TPU, and this is a CPU"):
        tiny.experiment(network__attention="flash")


HAS_CUDNN = not attention.IMPLEMENTATIONS["cudnn"].refusal(Shape(1024, 72, jnp.dtype("bfloat16")))


@pytest.mark.skipif(HAS_CUDNN, reason="cuDNN is there")
def test_a_plan_without_cudnn_says_so() -> None:
    with jax.sharding.use_abstract_mesh(on("gpu")):
        choice = attention.choose("auto", Shape(1024, 72, jnp.dtype("bfloat16")))
    assert choice.name == "xla" and choice.instead.startswith("not cudnn: cuDNN")
    assert choice.instead.endswith(": pip install nvidia-cudnn-cu12")
