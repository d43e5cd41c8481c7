"""If these fail, FD-DINOv2 is computed in other features than the public network's.

`tests/reference/dinov2.npz` holds weights, images and states of a tiny Dinov2Model of Hugging Face (REFERENCE, section
9), whose position embeddings are interpolated from 4x4 to 3x3.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from flax import nnx
from reference_files import Reference

from diffcurr.networks.convert import load_torch
from diffcurr.pretrained import dinov2, resizing
from diffcurr.pretrained.dinov2 import DINOv2

Arrays = dict[str, np.ndarray]
OLD_NAMES = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
}


def under_old_names(arrays: Arrays) -> Arrays:
    """As the published files name them."""
    found = {}
    for name, array in arrays.items():
        for new, old in OLD_NAMES.items():
            name = name.replace(new, old)
        found[name] = array
    return found


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference("dinov2")


@pytest.mark.parametrize("named", [dict, under_old_names])
def test_states_are_the_public_networks(reference: Reference, named: Callable[[Arrays], Arrays]) -> None:
    network = nnx.eval_shape(lambda: DINOv2(56, 14, 48, 2, 4, 4.0, False, rngs=nnx.Rngs(0)))
    load_torch(network, named(reference.weights()))
    states, pooled = network(reference["x_nchw"])
    np.testing.assert_allclose(states, reference["last_hidden_state"], atol=1e-5)
    np.testing.assert_allclose(pooled, reference["pooled"], atol=1e-5)
    made = dinov2.from_arrays(named(reference.weights()), num_heads=4)  # of the same sizes
    np.testing.assert_array_equal(made(reference["x_nchw"])[1], pooled)


def swiglu_arrays() -> tuple[DINOv2, Arrays]:
    """Random weights of a network with gated perceptrons, under the published names."""
    network = nnx.eval_shape(lambda: DINOv2(28, 14, 64, 2, 1, 4.0, True, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    layers = [
        "norm1.weight",
        "norm1.bias",
        "norm2.weight",
        "norm2.bias",
        "layer_scale1.lambda1",
        "layer_scale2.lambda1",
    ]
    dense = {f"attention.attention.{layer}": (64, 64) for layer in ("query", "key", "value")}
    dense |= {"attention.output.dense": (64, 64), "mlp.weights_in": (2 * 176, 64), "mlp.weights_out": (64, 176)}
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, 64),
        "embeddings.mask_token": (1, 64),
        "embeddings.position_embeddings": (1, 5, 64),
        "embeddings.patch_embeddings.projection.weight": (64, 3, 14, 14),
        "embeddings.patch_embeddings.projection.bias": (64,),
        "layernorm.weight": (64,),
        "layernorm.bias": (64,),
    }
    for block in ("encoder.layer.0.", "encoder.layer.1."):
        shapes |= {block + name: (64,) for name in layers}
        for name, shape in dense.items():
            shapes |= {f"{block}{name}.weight": shape, f"{block}{name}.bias": shape[:1]}
    return network, {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def layer_norm(x: np.ndarray, arrays: Arrays, name: str) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-6)
    return scaled * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]


def test_gated_perceptrons() -> None:
    """Against the formulas in float64; one image of the trained size has its positions as they are."""
    network, arrays = swiglu_arrays()
    load_torch(network, arrays)
    exact = {name: array.astype(np.float64) for name, array in arrays.items()}

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ exact[f"{name}.weight"].T + exact[f"{name}.bias"]

    image = np.random.default_rng(1).normal(size=(28, 28, 3)).astype(np.float32)
    patches = image.reshape(2, 14, 2, 14, 3).transpose(0, 2, 4, 1, 3).reshape(4, -1).astype(np.float64)
    kernel = exact["embeddings.patch_embeddings.projection.weight"].reshape(64, -1)
    x = patches @ kernel.T + exact["embeddings.patch_embeddings.projection.bias"]
    x = np.concatenate([exact["embeddings.cls_token"][0], x]) + exact["embeddings.position_embeddings"][0]
    for block in ("encoder.layer.0", "encoder.layer.1"):
        y = layer_norm(x, exact, f"{block}.norm1")
        q, k, v = (dense(y, f"{block}.attention.attention.{name}") for name in ("query", "key", "value"))
        share = np.exp(q @ k.T / 8)
        y = dense(share / share.sum(axis=1, keepdims=True) @ v, f"{block}.attention.output.dense")
        x = x + exact[f"{block}.layer_scale1.lambda1"] * y
        gate, value = np.split(dense(layer_norm(x, exact, f"{block}.norm2"), f"{block}.mlp.weights_in"), 2, axis=1)
        x = x + exact[f"{block}.layer_scale2.lambda1"] * dense(
            gate / (1 + np.exp(-gate)) * value, f"{block}.mlp.weights_out"
        )
    expected = layer_norm(x, exact, "layernorm")
    states, pooled = network(jnp.asarray(image[None]))
    np.testing.assert_allclose(states[0], expected, atol=1e-5)
    np.testing.assert_allclose(pooled[0], expected[0], atol=1e-5)


def test_sizes_are_read_from_the_arrays(reference: Reference) -> None:
    assert dinov2.is_dinov2(reference.weights().keys()) and not dinov2.is_dinov2(["fc.weight"])
    expected = {"image_size": 56, "patch_size": 14, "hidden_size": 48, "num_layers": 2, "num_heads": 4}
    assert dinov2.sizes_of(reference.weights(), 4) == expected | {"mlp_ratio": 4.0, "swiglu": False}
    arrays = swiglu_arrays()[1]
    sizes = dinov2.sizes_of(arrays)
    assert (sizes["num_heads"], sizes["swiglu"]) == (1, True) and dinov2.from_arrays(arrays).side == 2
    published = {"S": (384, 4, False, 1536), "L": (1024, 4, False, 4096), "g": (1536, 4, True, 4096)}
    for hidden, ratio, swiglu, width in published.values():
        assert dinov2.inner_width(hidden, ratio, swiglu) == width
        given = {
            "embeddings.position_embeddings": np.broadcast_to(np.float32(0), (1, 37 * 37 + 1, hidden)),
            "embeddings.patch_embeddings.projection.weight": np.broadcast_to(np.float32(0), (hidden, 3, 14, 14)),
            f"encoder.layer.0.mlp.{'weights_in' if swiglu else 'fc1'}.weight": np.zeros((1, 1)),
            f"encoder.layer.0.mlp.{'weights_out' if swiglu else 'fc2'}.weight": np.broadcast_to(
                np.float32(0), (hidden, width)
            ),
        }
        found = dinov2.sizes_of(given)
        assert (found["image_size"], found["num_heads"]) == (518, hidden // 64)
        assert dinov2.inner_width(hidden, found["mlp_ratio"], swiglu) == width


def test_rejects(reference: Reference) -> None:
    arrays = reference.weights()
    with pytest.raises(ValueError, match=r"hidden_size = 48: is no multiple of 64; give num_heads"):
        dinov2.from_arrays(arrays)
    with pytest.raises(ValueError, match=r"left over: embeddings\.register_tokens"):
        dinov2.from_arrays(arrays | {"embeddings.register_tokens": np.zeros((1, 4, 48))}, 4)
    with pytest.raises(ValueError, match=r"arrays missing: encoder\.layer\.1\.norm2\.bias; left over: none"):
        dinov2.from_arrays({name: one for name, one in arrays.items() if name != "encoder.layer.1.norm2.bias"}, 4)
    with pytest.raises(
        ValueError, match=r"arrays missing: embeddings\.position_embeddings: give the file as published"
    ):
        dinov2.from_arrays({"embeddings.cls_token": np.zeros((1, 1, 48))}, 4)
    with pytest.raises(ValueError, match=r"embeddings\.cls_token: gives shape \(2, 1, 48\), the network has \(48,\)"):
        dinov2.from_arrays(arrays | {"embeddings.cls_token": np.zeros((2, 1, 48))}, 4)
    with pytest.raises(ValueError, match=r"position embeddings \(1, 16, 48\) .* are not of square images"):
        dinov2.from_arrays(arrays | {"embeddings.position_embeddings": np.zeros((1, 16, 48))}, 4)
    with pytest.raises(ValueError, match=r"hidden_size = 48: must be divisible by num_heads = 5"):
        dinov2.from_arrays(arrays, 5)


@pytest.mark.parametrize("scale", [None, 37 / 16.1])
def test_positions_are_interpolated_as_by_torch(scale: float | None) -> None:
    """Output i lies at (i + 0.5) scale - 0.5, between four inputs, of which those beyond the edge repeat it."""
    values = np.random.default_rng(0).normal(size=37)
    expected = np.zeros(16)
    for i in range(16):
        position = (i + 0.5) * (scale or 37 / 16) - 0.5
        low = int(np.floor(position))
        for tap in (low - 1, low, low + 1, low + 2):
            x = abs(position - tap)
            near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3
            expected[i] += (near if x <= 1 else far) * values[min(max(tap, 0), 36)]
    np.testing.assert_allclose(resizing.torch_bicubic(37, 16, scale) @ values, expected, atol=1e-6)


def test_positions_may_be_those_of_metas_hub(reference: Reference) -> None:
    """They are a little elsewhere there, which only images of another size see."""
    ours, hub = (dinov2.from_arrays(reference.weights(), 4, offset) for offset in (0.0, dinov2.HUB_OFFSET))
    assert not np.allclose(hub(reference["x_nchw"])[1], ours(reference["x_nchw"])[1], atol=1e-4)
    whole = jnp.zeros((1, 56, 56, 3))
    np.testing.assert_array_equal(hub(whole)[1], ours(whole)[1])


@pytest.mark.parametrize("shape", [(32, 32, 3), (300, 300, 3), (112, 224, 1), (7, 480, 3)])
def test_images_are_prepared_as_by_dgm_eval(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(shape[0]).integers(0, 256, shape).astype(np.uint8)
    colours = np.broadcast_to(pixels, (*shape[:2], 3))
    resized = np.asarray(PIL.Image.fromarray(colours).resize((224, 224), PIL.Image.Resampling.BICUBIC))
    expected = (resized / 255 - np.asarray([0.485, 0.456, 0.406])) / np.asarray([0.229, 0.224, 0.225])
    found = np.asarray(dinov2.prepare(jnp.asarray(pixels[None] / np.float32(127.5) - 1)))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)  # a level is 0.017
