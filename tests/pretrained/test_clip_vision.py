"""If these fail, CLIP scores are other numbers than the public CLIP's.

There is no file of reference: the tower is held against its formulas, and against transformers 5.24 where this was
written (docs/text_encoders.md).
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from scipy.special import erf

from diffcurr import weights
from diffcurr.errors import UserError
from diffcurr.metrics import evaluation, features
from diffcurr.networks.convert import load_torch
from diffcurr.pretrained import clip_text, clip_vision
from diffcurr.pretrained.clip_vision import CLIPVision

Arrays = dict[str, np.ndarray]
run = nnx.jit(lambda network, *arguments: network(*arguments))


def make(hidden_act: str = "quick_gelu", projection_dim: int = 12) -> CLIPVision:
    return nnx.eval_shape(lambda: CLIPVision(32, 14, 24, 40, 2, 3, hidden_act, projection_dim, rngs=nnx.Rngs(0)))


def make_arrays() -> Arrays:
    """Random weights under the public names of the whole CLIP."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (24,),
        "embeddings.patch_embedding.weight": (24, 3, 14, 14),
        "embeddings.position_embedding.weight": (5, 24),
    }
    norms = ["pre_layrnorm", "post_layernorm"]
    for block in ("encoder.layers.0.", "encoder.layers.1."):
        norms += [f"{block}layer_norm1", f"{block}layer_norm2"]
        layers = {f"self_attn.{one}_proj": (24, 24) for one in ("q", "k", "v", "out")}
        for name, shape in (layers | {"mlp.fc1": (40, 24), "mlp.fc2": (24, 40)}).items():
            shapes |= {f"{block}{name}.weight": shape, f"{block}{name}.bias": shape[:1]}
    shapes |= {f"{norm}.{kind}": (24,) for norm in norms for kind in ("weight", "bias")}
    rng = np.random.default_rng(0)
    arrays = {f"vision_model.{name}": rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    others = {"text_model.final_layer_norm.bias": np.ones(3), "text_projection.weight": np.ones((12, 3))}
    others |= {"logit_scale": np.ones(()), "vision_model.embeddings.position_ids": np.arange(5)[None]}
    return arrays | others | {"visual_projection.weight": rng.normal(0, 0.1, (12, 24)).astype(np.float32)}


def forward(arrays: Arrays, image: np.ndarray, hidden_act: str) -> tuple[np.ndarray, np.ndarray]:
    """(states, projected) of one image of side 32, by the formulas, in float64; 4 pixels of 32 fill no patch."""
    exact = {name.removeprefix("vision_model."): array.astype(np.float64) for name, array in arrays.items()}

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ exact[f"{name}.weight"].T + exact[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return scaled * exact[f"{name}.weight"] + exact[f"{name}.bias"]

    patches = image[:28, :28].reshape(2, 14, 2, 14, 3).transpose(0, 2, 4, 1, 3).reshape(4, -1).astype(np.float64)
    x = patches @ exact["embeddings.patch_embedding.weight"].reshape(24, -1).T
    x = np.concatenate([exact["embeddings.class_embedding"][None], x]) + exact["embeddings.position_embedding.weight"]
    x = norm(x, "pre_layrnorm")
    for block in ("encoder.layers.0.", "encoder.layers.1."):
        y, found = norm(x, f"{block}layer_norm1"), []
        q, k, v = (np.split(dense(y, f"{block}self_attn.{one}_proj"), 3, axis=1) for one in "qkv")
        for head in range(3):
            share = np.exp(q[head] @ k[head].T / np.sqrt(8))
            found.append(share / share.sum(axis=1, keepdims=True) @ v[head])
        x = x + dense(np.concatenate(found, axis=1), f"{block}self_attn.out_proj")
        y = dense(norm(x, f"{block}layer_norm2"), f"{block}mlp.fc1")
        y = y * (1 / (1 + np.exp(-1.702 * y)) if hidden_act == "quick_gelu" else (1 + erf(y / np.sqrt(2))) / 2)
        x = x + dense(y, f"{block}mlp.fc2")
    return x, norm(x[0], "post_layernorm") @ exact["visual_projection.weight"].T


@pytest.mark.parametrize("hidden_act", ["quick_gelu", "gelu"])
def test_the_formulas(hidden_act: str) -> None:
    arrays, images = make_arrays(), np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    network = make(hidden_act)
    load_torch(network, arrays)
    states, pooled = run(network, jnp.asarray(images))
    for image, found, projected in zip(images, states, pooled, strict=True):
        expected, expected_projected = forward(arrays, image, hidden_act)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_allclose(projected, expected_projected, atol=1e-5)


def test_the_tower_alone() -> None:
    """Without `vision_model.`, and without the projection."""
    arrays, images = make_arrays(), jnp.ones((1, 32, 32, 3))
    alone = {name.removeprefix("vision_model."): one for name, one in arrays.items() if name.startswith("vision_")}
    whole, tower = make(), make(projection_dim=0)
    load_torch(whole, arrays)
    load_torch(tower, alone)
    pooled = run(tower, images)[1]
    assert pooled.shape == (1, 24)
    np.testing.assert_allclose(pooled @ arrays["visual_projection.weight"].T, run(whole, images)[1], atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "number"),
    [((224, 32, 768, 3072, 12, 12), 87_849_216), ((224, 14, 1024, 4096, 24, 16), 303_966_208)],
    ids=["ViT-B/32", "ViT-L/14"],
)
def test_number_of_parameters(sizes: tuple[int, int, int, int, int, int], number: int) -> None:
    """With the projection: for ViT-B/32 with the text encoder's and `logit_scale`, 151,277,313 as published."""
    projection = 512 if sizes[1] == 32 else 768
    network = nnx.eval_shape(lambda: CLIPVision(*sizes, "quick_gelu", projection, rngs=nnx.Rngs(0)))
    found = sum(int(np.prod(shape)) for shape in weights.parameters_of(network).values())
    assert found == number
    if sizes[1] == 32:
        assert found + 63_165_952 + 512 * 512 + 1 == 151_277_313


def test_rejects() -> None:
    network, arrays = make(), make_arrays()
    name = "vision_model.pre_layrnorm.weight"
    with pytest.raises(ValueError, match=r"arrays missing: vision_model\.pre_layrnorm\.weight; left over: none"):
        load_torch(network, {key: array for key, array in arrays.items() if key != name})
    with pytest.raises(ValueError, match=r"pre_layrnorm\.weight: holds NaN"):
        load_torch(network, arrays | {name: np.full(24, np.nan)})
    load_torch(network, arrays)
    with pytest.raises(ValueError, match=r"images of shape \(1, 28, 28, 3\): their sides must be 32"):
        network(jnp.zeros((1, 28, 28, 3)))
    with pytest.raises(ValueError, match=r"image_size = 8: must hold a patch of patch_size = 14"):
        CLIPVision(8, 14, 24, 40, 2, 3, "gelu", rngs=nnx.Rngs(0))


def test_a_folder(tmp_path: pathlib.Path) -> None:
    arrays = make_arrays()
    save_file(arrays, tmp_path / "model.safetensors")
    config = {"image_size": 32, "patch_size": 14, "hidden_size": 24, "intermediate_size": 40}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 3}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": config}))
    network, images = clip_vision.load(tmp_path), jnp.ones((1, 32, 32, 3))
    expected = forward(arrays, np.ones((32, 32, 3)), "quick_gelu")[1]
    np.testing.assert_allclose(run(network, images)[1][0], expected, atol=1e-5)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    with pytest.raises(UserError, match=r"model_type = 'dinov2': must be 'clip' or 'clip_vision_model'"):
        clip_vision.load(tmp_path)


@pytest.mark.parametrize("shape", [(32, 32, 3), (260, 260, 1)])
def test_images_are_prepared_as_by_the_public_code(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(shape[0]).integers(0, 256, shape).astype(np.uint8)
    colours = np.broadcast_to(pixels, (*shape[:2], 3))
    resized = np.asarray(PIL.Image.fromarray(colours).resize((224, 224), PIL.Image.Resampling.BICUBIC))
    expected = (resized / 255 - np.asarray([0.48145466, 0.4578275, 0.40821073])) / np.asarray(
        [0.26862954, 0.26130258, 0.27577711]
    )
    found = np.asarray(jax.jit(clip_vision.prepare)(jnp.asarray(pixels[None] / np.float32(127.5) - 1)))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)  # a level is 0.015


def test_the_score() -> None:
    """2.5 max(cos, 0) of Hessel et al., or the cosine in percent; lengths of features do not matter."""
    image, words = np.float32([[3, 0], [1, 1], [1, 0], [0, 0]]), np.float32([[2, 0], [0, 5], [-1, 0], [1, 0]])
    cosines = np.asarray([1, np.sqrt(0.5), 0, 0])
    np.testing.assert_allclose(clip_vision.clip_score(image, words), 2.5 * cosines, rtol=1e-6)
    np.testing.assert_allclose(clip_vision.clip_score(image, words, 100.0), 100 * cosines, rtol=1e-6)


def test_the_metric_of_samples(clip_folder: pathlib.Path) -> None:
    """The mean of the scores of samples and their own captions, in the features of the folder's tower."""
    whole = load_file(clip_folder / "model.safetensors")
    tower = {name: array for name, array in make_arrays().items() if name.startswith("vision_model.")}
    projection = np.random.default_rng(3).normal(0, 0.1, (24, 24)).astype(np.float32)
    text = {name: array for name, array in whole.items() if not name.startswith("vision_model.")}
    save_file(text | tower | {"visual_projection.weight": projection}, clip_folder / "model.safetensors")
    config = json.loads((clip_folder / "config.json").read_text())
    vision = {"image_size": 32, "patch_size": 14, "hidden_size": 24, "intermediate_size": 40}
    config["vision_config"] = vision | {"num_hidden_layers": 2, "num_attention_heads": 3, "hidden_act": "quick_gelu"}
    (clip_folder / "config.json").write_text(json.dumps(config))

    found = features.load(clip_folder, {"clip", "pool"})
    images = np.random.default_rng(2).uniform(-1, 1, (6, 16, 16, 3)).astype(np.float32)
    captions = ["red apple", "a green pear", "red apple", "a pear", "apple", "green"]
    looked = found.extract(images)
    metric = {"clip_score": evaluation.ClipScore(folder=str(clip_folder))}
    wanted = evaluation.Wanted(texts=captions)
    measured = evaluation.measure(metric, None, 6, kinds=found.kinds, wanted=wanted)(looked)["clip_score"]
    words = clip_text.load(clip_folder).features(captions, 16)
    cosine = np.sum(looked * words, axis=1) / np.linalg.norm(looked, axis=1) / np.linalg.norm(words, axis=1)
    np.testing.assert_allclose(measured["value"], 2.5 * np.maximum(cosine, 0).mean(), rtol=1e-5)
    assert measured["low"] < measured["value"] < measured["high"] and measured["examples"] == 6
    with pytest.raises(UserError, match="evaluation.metrics.clip_score: samples are not asked to be of any texts"):
        evaluation.measure(metric, None, 6, kinds=found.kinds)
    with pytest.raises(ValueError, match="folder = .*: the same CLIP must see the pictures: give it as eval"):
        metric["clip_score"].check_features("another")
    metric["clip_score"].check_features(str(clip_folder))
    with pytest.raises(UserError, match="clip_score: folder is missing"):
        evaluation.measure({"clip_score": evaluation.ClipScore()}, None, 6, kinds=found.kinds, wanted=wanted)
