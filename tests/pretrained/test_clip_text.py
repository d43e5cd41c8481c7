"""If these fail, networks are told texts by other numbers than the public CLIP's.

`tests/reference/clip_text.npz` holds weights, tokens and states of a tiny CLIPTextModel of Hugging Face (REFERENCE,
section 9): quick-GELU, end token 98.
"""

import json
import pathlib
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference_files import Reference
from safetensors.numpy import load_file, save_file
from scipy.special import erf

from diffcurr import weights
from diffcurr.errors import UserError
from diffcurr.networks.convert import load_torch
from diffcurr.pretrained import clip_text
from diffcurr.pretrained.clip_text import CLIPText

Arrays = dict[str, np.ndarray]
run = nnx.jit(lambda network, *arguments: network(*arguments))


def make(hidden_act: str = "quick_gelu", end: int = 98, projection_dim: int = 0, heads: int = 4) -> CLIPText:
    return nnx.eval_shape(lambda: CLIPText(99, 32, 64, 2, heads, 16, hidden_act, end, projection_dim, rngs=nnx.Rngs(0)))


def as_published(arrays: Arrays) -> Arrays:
    """In the file of the whole CLIP."""
    others = {"logit_scale": np.ones(()), "vision_model.post_layernorm.bias": np.ones(3)}
    others |= {"text_projection.weight": np.ones((24, 32)), "visual_projection.weight": np.ones((24, 48))}
    others |= {"text_model.embeddings.position_ids": np.arange(16)[None]}
    return {f"text_model.{name}": array for name, array in arrays.items()} | others


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference("clip_text")


@pytest.mark.parametrize("end", [98, clip_text.OLD_END])
@pytest.mark.parametrize("named", [dict, as_published])
def test_states_are_the_public_networks(reference: Reference, named: Callable[[Arrays], Arrays], end: int) -> None:
    """The end token 2 of old configs stands for the token of the largest number, here 98."""
    network = make(end=end)
    load_torch(network, named(reference.weights()))
    states, pooled = run(network, reference["input_ids"])
    np.testing.assert_allclose(states, reference["last_hidden_state"], atol=1e-5)
    np.testing.assert_allclose(pooled, reference["pooled"], atol=1e-5)


def forward(arrays: Arrays, ids: np.ndarray, hidden_act: str, heads: int = 4) -> np.ndarray:
    """States of one text, by the formulas, in float64."""
    exact = {name: array.astype(np.float64) for name, array in arrays.items()}

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ exact[f"{name}.weight"].T + exact[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return scaled * exact[f"{name}.weight"] + exact[f"{name}.bias"]

    x = exact["embeddings.token_embedding.weight"][ids] + exact["embeddings.position_embedding.weight"][: len(ids)]
    for block in ("encoder.layers.0.", "encoder.layers.1."):
        y, found = norm(x, f"{block}layer_norm1"), []
        q, k, v = (np.split(dense(y, f"{block}self_attn.{one}_proj"), heads, axis=1) for one in "qkv")
        for head in range(heads):
            scores = q[head] @ k[head].T / np.sqrt(q[head].shape[1])
            share = np.exp(np.where(np.arange(len(ids)) > np.arange(len(ids))[:, None], -np.inf, scores))
            found.append(share / share.sum(axis=1, keepdims=True) @ v[head])
        x = x + dense(np.concatenate(found, axis=1), f"{block}self_attn.out_proj")
        y = dense(norm(x, f"{block}layer_norm2"), f"{block}mlp.fc1")
        y = y * (1 / (1 + np.exp(-1.702 * y)) if hidden_act == "quick_gelu" else (1 + erf(y / np.sqrt(2))) / 2)
        x = x + dense(y, f"{block}mlp.fc2")
    return norm(x, "final_layer_norm")


@pytest.mark.parametrize("hidden_act", ["quick_gelu", "gelu"])
def test_activations_and_the_projection(reference: Reference, hidden_act: str) -> None:
    arrays, rng = reference.weights(), np.random.default_rng(0)
    projection = rng.normal(0, 0.2, (24, 32)).astype(np.float32)
    network = make(hidden_act, projection_dim=24)
    load_torch(network, as_published(arrays) | {"text_projection.weight": projection})
    ids = np.asarray([[97, 5, 6, 98, 98], [97, 7, 8, 9, 98]])
    states, pooled = run(network, jnp.asarray(ids))
    for row, end in ((0, 3), (1, 4)):
        expected = forward(arrays, ids[row], hidden_act)
        np.testing.assert_allclose(states[row], expected, atol=1e-5)
        np.testing.assert_allclose(pooled[row], expected[end] @ projection.T, atol=1e-5)


def test_what_comes_after_the_end_token_changes_nothing(reference: Reference) -> None:
    """Bit for bit, since a token looks at none that comes later."""
    network = make()
    load_torch(network, reference.weights())
    ids = np.asarray([[97, 5, 6, 98, 98, 98], [97, 7, 98, 98, 98, 98]])
    changed = np.where(np.arange(6) > [[3], [2]], [[0, 1, 2, 3, 4, 98]], ids)
    (states, pooled), (others, other_pooled) = (run(network, jnp.asarray(one)) for one in (ids, changed))
    np.testing.assert_array_equal(pooled, other_pooled)
    np.testing.assert_array_equal(states[0, :4], others[0, :4])
    np.testing.assert_array_equal(states[1, :3], others[1, :3])
    assert not np.array_equal(states[0, 4:], others[0, 4:])


@pytest.mark.parametrize(
    ("sizes", "number"),
    [((49408, 768, 3072, 12, 12, 77), 123_060_480), ((49408, 512, 2048, 12, 8, 77), 63_165_952)],
    ids=["ViT-L/14", "ViT-B/32"],
)
def test_number_of_parameters(sizes: tuple[int, int, int, int, int, int], number: int) -> None:
    network = nnx.eval_shape(lambda: CLIPText(*sizes, "quick_gelu", 49407, rngs=nnx.Rngs(0)))
    assert sum(int(np.prod(shape)) for shape in weights.parameters_of(network).values()) == number


def test_rejects_weights(reference: Reference) -> None:
    network, arrays = make(), reference.weights()
    name = "encoder.layers.1.mlp.fc1.weight"
    with pytest.raises(ValueError, match=r"arrays missing: encoder\.layers\.1\.mlp\.fc1\.weight; left over: none"):
        load_torch(network, {key: array for key, array in arrays.items() if key != name})
    with pytest.raises(ValueError, match=r"arrays missing: none; left over: encoder\.layers\.2\.mlp\.fc1\.weight"):
        load_torch(network, arrays | {"encoder.layers.2.mlp.fc1.weight": arrays[name]})
    with pytest.raises(ValueError, match=r"mlp\.fc1\.weight: gives shape \(64, 32\), the network has \(32, 64\)"):
        load_torch(network, arrays | {name: arrays[name].T})
    with pytest.raises(ValueError, match=r"mlp\.fc1\.weight: holds NaN or infinity"):
        load_torch(network, arrays | {name: np.full_like(arrays[name], np.nan)})
    with pytest.raises(ValueError, match=r"arrays missing: text_projection\.weight"):
        load_torch(make(projection_dim=24), arrays)


def test_rejects_sizes(reference: Reference) -> None:
    with pytest.raises(ValueError, match=r"hidden_size = 32: must be divisible by num_heads = 5"):
        make(heads=5)
    with pytest.raises(ValueError, match=r"hidden_act = 'relu': choose one of quick_gelu, gelu"):
        make("relu")
    network = make()
    load_torch(network, reference.weights())
    with pytest.raises(ValueError, match=r"17 tokens: the network has 16 positions"):
        network(jnp.zeros((1, 17), int))


def test_a_folder(clip_folder: pathlib.Path, reference: Reference) -> None:
    """Texts are filled up with the padding token, the mask is true up to the end token."""
    encoder = clip_text.load(clip_folder, batch_size=2)
    tokens, mask = encoder(["A red apple", "", "a pear"], 8)
    ids = [[97, 0, 1, 2, 98, 98, 98, 98], [97, 98, 98, 98, 98, 98, 98, 98], [97, 0, 4, 98, 98, 98, 98, 98]]
    assert mask.sum(axis=1).tolist() == [5, 2, 4] and (np.diff(mask.astype(int)) <= 0).all()
    network = make()
    load_torch(network, reference.weights())
    states, pooled = run(network, jnp.asarray(ids))
    np.testing.assert_allclose(tokens, states, atol=1e-6)
    projection = load_file(clip_folder / "model.safetensors")["text_projection.weight"]
    np.testing.assert_allclose(encoder.features(["A red apple", "", "a pear"], 8), pooled @ projection.T, atol=1e-5)


def test_folders_of_the_encoder_alone(clip_folder: pathlib.Path) -> None:
    """Without a projection, with the padding token that its tokenizer names, or the end token if it names none."""
    config = json.loads((clip_folder / "config.json").read_text())["text_config"]
    (clip_folder / "config.json").write_text(json.dumps(config | {"model_type": "clip_text_model"}))
    arrays = load_file(clip_folder / "model.safetensors")
    alone = {name.removeprefix("text_model."): one for name, one in arrays.items() if name.startswith("text_model.")}
    save_file(alone, clip_folder / "model.safetensors")
    (clip_folder / "tokenizer_config.json").write_text('{"pad_token": "red"}')
    encoder = clip_text.load(clip_folder, batch_size=2)
    assert encoder.ids(["apple"], 5)[0].tolist() == [[97, 2, 98, 1, 1]]
    assert encoder.features(["apple"], 8).shape == (1, 32)
    (clip_folder / "tokenizer_config.json").unlink()
    assert clip_text.load(clip_folder).ids(["apple"], 5)[0].tolist() == [[97, 2, 98, 98, 98]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, r"config\.json: model_type = 'bert': must be 'clip' or 'clip_text_model'; give"),
        ({"text_config": 3}, r"config\.json: text_config = 3: must be a section"),
        ({"text_config": {"hidden_act": "relu"}}, r"config\.json: hidden_act = 'relu': choose one of quick_gelu"),
        ({"text_config": {"hidden_size": -1}}, r"config\.json: hidden_size = -1: must be an integer from 1 to"),
        ({"text_config": {"layer_norm_eps": 1.0}}, r"config\.json: layer_norm_eps = 1\.0: must be 1e-05; give"),
        ({"text_config": {"num_attention_heads": 3}}, r"clip: hidden_size = 512: must be divisible by num_heads = 3"),
        ({"text_config": {}}, r"clip: arrays missing: text_model\.encoder\.layers\.10\.layer_norm1\.bias"),
    ],
)
def test_rejects_configs(clip_folder: pathlib.Path, change: dict[str, object], message: str) -> None:
    config = json.loads((clip_folder / "config.json").read_text())
    (clip_folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=message) as caught:
        clip_text.load(clip_folder)
    assert "\n" not in str(caught.value)
