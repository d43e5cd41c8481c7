"""If these fail, networks are told texts by other numbers than the public T5's.

`tests/reference/t5_encoder.npz` holds weights, tokens, mask and states of a tiny T5EncoderModel of Hugging Face with
gated GELU (REFERENCE, section 9).
"""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference_files import Reference

from diffcurr import weights
from diffcurr.errors import UserError
from diffcurr.networks.convert import load_torch
from diffcurr.pretrained import t5
from diffcurr.pretrained.t5 import T5Encoder

SHARED, EMBEDDED = t5.TABLES
run = nnx.jit(lambda network, *arguments: network(*arguments))


def make(d_kv: int = 8, num_buckets: int = 8, max_distance: int = 20) -> T5Encoder:
    return nnx.eval_shape(lambda: T5Encoder(120, 32, d_kv, 48, 2, 4, num_buckets, max_distance, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference("t5_encoder")


@pytest.mark.parametrize("absent", ["", SHARED, EMBEDDED])
def test_states_are_the_public_networks(reference: Reference, absent: str) -> None:
    """The table of tokens has two names, of which one may be absent."""
    network, arrays = make(), reference.weights()
    load_torch(network, {name: array for name, array in arrays.items() if name != absent})
    states = run(network, reference["input_ids"], reference["attention_mask"])
    np.testing.assert_allclose(states, reference["last_hidden_state"], atol=1e-5)


def test_padded_tokens_change_nothing(reference: Reference) -> None:
    """Bit for bit; and a text of padding alone is finite."""
    network = make()
    load_torch(network, reference.weights())
    ids, mask = reference["input_ids"], reference["attention_mask"]
    states, others = run(network, ids, mask), run(network, jnp.where(mask == 1, ids, 77), mask)
    own = np.asarray(mask, bool)
    np.testing.assert_array_equal(np.asarray(states)[own], np.asarray(others)[own])
    assert not np.array_equal(states, others)
    assert np.isfinite(run(network, ids, jnp.zeros_like(mask))).all()


@pytest.mark.parametrize(("number", "largest"), [(32, 128), (8, 20)])
def test_distances(number: int, largest: int) -> None:
    """In whole numbers: above `exact`, kind exact + k begins where (d / exact)^(half - exact) >= (max / exact)^k."""
    half, exact = number // 2, number // 4
    found = t5.buckets(300, number, largest)
    for distance in range(300):
        grown = [
            k for k in range(half - exact) if distance ** (half - exact) >= largest**k * exact ** (half - exact - k)
        ]
        kind = distance if distance < exact else exact + grown[-1]
        assert (found[distance, 0], found[0, distance]) == (kind, kind + half * (distance > 0)), distance


def test_number_of_parameters() -> None:
    network = nnx.eval_shape(lambda: T5Encoder(32128, 768, 64, 2048, 12, 12, 32, 128, rngs=nnx.Rngs(0)))
    assert sum(int(np.prod(shape)) for shape in weights.parameters_of(network).values()) == 109_628_544


def test_rejects_weights(reference: Reference) -> None:
    network, arrays = make(), reference.weights()
    name = "encoder.block.1.layer.1.DenseReluDense.wi_0.weight"
    with pytest.raises(ValueError, match=r"arrays missing: encoder\.block\.1\.layer\.1\.DenseReluDense\.wi_0\.weight"):
        load_torch(network, {key: array for key, array in arrays.items() if key != name})
    with pytest.raises(ValueError, match=r"left over: encoder\.block\.1\.layer\.0\.SelfAttention\.relative"):
        load_torch(  # UMT5's
            network, arrays | {"encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": np.zeros((8, 4))}
        )
    with pytest.raises(ValueError, match=r"wi_0\.weight: gives shape \(48, 32\), the network has \(32, 48\)"):
        load_torch(network, arrays | {name: arrays[name].T})
    with pytest.raises(ValueError, match=r"wi_0\.weight: holds NaN or infinity"):
        load_torch(network, arrays | {name: np.full_like(arrays[name], np.inf)})
    with pytest.raises(ValueError, match=r"encoder\.embed_tokens\.weight: is another table than this network's"):
        load_torch(network, arrays | {EMBEDDED: arrays[EMBEDDED] + 1})
    decoder = {"lm_head.weight": np.zeros(3), "decoder.final_layer_norm.weight": np.zeros(3)}
    load_torch(network, arrays | decoder)  # the file of the whole T5


def test_rejects_sizes() -> None:
    with pytest.raises(ValueError, match=r"num_buckets = 6: must be a multiple of 4"):
        make(num_buckets=6)
    with pytest.raises(ValueError, match=r"max_distance = 2: must be more than num_buckets / 4 = 2"):
        make(max_distance=2)
    assert make(d_kv=5).blocks.attention.query.kernel.shape == (2, 32, 20)  # heads need not add up to the width


def test_a_folder(t5_folder: pathlib.Path, reference: Reference) -> None:
    """In several files; an empty text is its end token alone."""
    encoder = t5.load(t5_folder, batch_size=2)
    tokens, mask = encoder(["a RED apple", "", "pear unheard"], 6)
    ids = [[2, 3, 4, 1, 0, 0], [1, 0, 0, 0, 0, 0], [6, 8, 1, 0, 0, 0]]
    assert mask.sum(axis=1).tolist() == [4, 1, 3] and tokens.dtype == np.float32
    network = make()
    load_torch(network, reference.weights())
    np.testing.assert_allclose(tokens, run(network, jnp.asarray(ids), jnp.asarray(mask)), atol=1e-6)


def test_rejects_the_first_t5(t5_folder: pathlib.Path) -> None:
    config = json.loads((t5_folder / "config.json").read_text())
    del config["feed_forward_proj"]  # so in the files of the first T5
    (t5_folder / "config.json").write_text(json.dumps(config))
    message = r"config\.json: feed_forward_proj = 'relu': must be 'gated-gelu'; give the folder of a T5 of version 1\.1"
    with pytest.raises(UserError, match=message):
        t5.load(t5_folder)
