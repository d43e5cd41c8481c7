"""If these fail, a classifier has other weights than its file, or a file decides what memory is taken."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffcurr.pretrained import arrays, classifier

Arrays = dict[str, np.ndarray]
FACTS = {"shape": "[8, 1, 3]", "dataset": "digits"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    path = tmp_path_factory.mktemp("classifier") / "a.safetensors"
    path.write_bytes(classifier.to_bytes(classifier.Classifier(8, 1, 3, rngs=nnx.Rngs(1)), FACTS))
    found, facts = arrays.read(path)
    assert facts == FACTS
    return found


def test_the_weights_of_the_file(weights: Arrays) -> None:
    """In half precision too."""
    images = jnp.linspace(-1, 1, 128).reshape(2, 8, 8, 1)
    expected = classifier.Classifier(8, 1, 3, rngs=nnx.Rngs(1))(images)
    for found, want in zip(classifier.from_arrays(weights, FACTS)(images), expected, strict=True):
        np.testing.assert_array_equal(found, want)
    half = classifier.from_arrays({name: x.astype(jnp.bfloat16) for name, x in weights.items()}, FACTS)
    assert half.dense.kernel.dtype == jnp.float32
    np.testing.assert_allclose(half(images)[0], expected[0], atol=0.02)


SPOIL: dict[str, Callable[[Arrays], Arrays]] = {
    r"arrays missing: .*convs\.0\.bias.* and 4 more; left over: none": lambda weights: {},
    r"arrays missing: head\.bias; left over: none": lambda w: {name: x for name, x in w.items() if name != "head.bias"},
    r"left over: __class__, convs\.9\.bias, head\.__dict__": lambda w: (
        w | {name: w["head.bias"] for name in ("__class__", "convs.9.bias", "head.__dict__")}
    ),
    r"left over: '\\n'": lambda w: w | {"\n": w["head.bias"]},
    r"head\.bias: has shape \(4,\), in the network \(3,\)": lambda w: w | {"head.bias": np.zeros(4, np.float32)},
    r"head\.bias: is of dtype int32": lambda w: w | {"head.bias": np.zeros(3, np.int32)},
    r"head\.bias: is of dtype <U1": lambda w: w | {"head.bias": np.asarray(["a", "b", "c"])},
    r"head\.bias: holds NaN or infinity": lambda w: w | {"head.bias": np.asarray([1, np.nan, 0], np.float32)},
    r"dense\.bias: holds NaN or infinity": lambda w: w | {"dense.bias": np.full(128, 1e39)},
}


@pytest.mark.parametrize("message", SPOIL)
def test_rejects_other_arrays(weights: Arrays, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier.from_arrays(SPOIL[message](weights), FACTS)


@pytest.mark.parametrize(
    "shape",
    ["", "8", "[8, 1]", "[8, 1, 3.0]", "[-8, 1, 3]", "[0, 1, 3]", "[8, true, 3]", "[100000, 100000, 10]", "[" * 10**5],
)
def test_rejects_other_shapes(weights: Arrays, shape: str) -> None:
    with pytest.raises(ValueError, match=r"its fact shape = '.*: must be \[side, channels, classes\], side 1 to 1024"):
        classifier.from_arrays(weights, {"shape": shape})


def test_the_largest_shape_takes_no_memory(weights: Arrays) -> None:
    """It is held against the file's arrays before there is a network."""
    with pytest.raises(ValueError, match="arrays missing: convs.2.bias"):
        classifier.from_arrays(weights, {"shape": "[1024, 16, 100000]"})
