"""If these fail, pictures become other tokens than they should, or learn by a wrong gradient."""

import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffcurr import experiment, parts
from diffcurr.codecs import ViTVQGANCodec
from diffcurr.codecs.quantizers import Codebook, FiniteScalar
from diffcurr.codecs.vit_vqgan import params_of, to_bytes
from diffcurr.errors import UserError

assert experiment  # it fills in the tables
TINY: dict[str, Any] = {"in_channels": 1, "patch_size": 4, "quantizer": Codebook(size=16, code_dim=4)} | {
    f"{tower}_{name}": size
    for tower in ("encoder", "decoder")
    for name, size in {"depth": 2, "width": 8, "heads": 2, "mlp": 16}.items()
}
IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 8, 12, 1)).astype(np.float32)


def test_the_nearest_code_is_that_of_a_brute_force_search() -> None:
    rng = np.random.default_rng(1)
    vectors, book = rng.normal(size=(2, 5, 3, 4)).astype(np.float32), rng.normal(size=(32, 4)).astype(np.float32)
    quantizer = Codebook(size=32, code_dim=4)
    confined = quantizer.confined(jnp.asarray(vectors))
    found = quantizer.quantised(confined, jnp.asarray(book))
    unit, codes = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (vectors, book))
    distances = np.linalg.norm(unit[..., None, :] - codes, axis=-1)
    np.testing.assert_array_equal(found.tokens, distances.argmin(axis=-1))
    np.testing.assert_allclose(found.codes, codes[found.tokens], atol=1e-6)
    np.testing.assert_allclose(found.codes, quantizer.codes(found.tokens, jnp.asarray(book)), atol=1e-6)
    error = np.mean(np.min(distances, axis=-1) ** 2) / 4
    np.testing.assert_allclose([found.to_code, found.to_vector], [error, error], rtol=1e-5)


@pytest.mark.parametrize("quantizer", [Codebook(size=8, code_dim=3), FiniteScalar(levels=(3, 4, 5))])
def test_gradients_pass_straight_through(quantizer: Any) -> None:
    """The gradient by a vector is that by its code; a code learns from its own loss alone, and a vector from its."""
    rng = np.random.default_rng(2)
    vectors = quantizer.confined(jnp.asarray(rng.normal(size=(6, 3)), jnp.float32))
    book, weights = quantizer.init(jax.random.key(0)), jnp.asarray(rng.normal(size=(6, 3)), jnp.float32)
    learned = jnp.zeros((8, 3)) if book is None else book

    def through(vectors: Any, learned: Any) -> Any:
        return jnp.sum(weights * quantizer.quantised(vectors, None if book is None else learned).codes)

    of_vectors, of_codes = jax.grad(through, (0, 1))(vectors, learned)
    np.testing.assert_array_equal(of_vectors, weights)
    np.testing.assert_array_equal(of_codes, 0)
    for name, moved in (("to_code", 0), ("to_vector", 1)):
        loss = lambda *x, name=name: getattr(quantizer.quantised(x[0], None if book is None else x[1]), name)  # noqa: E731
        gradients = jax.grad(loss, (0, 1))(vectors, learned)
        np.testing.assert_array_equal(gradients[1 - moved], 0)
        assert np.any(gradients[moved]) == (book is not None)


def test_finite_scalars_are_numbered_both_ways() -> None:
    quantizer = FiniteScalar(levels=(4, 3, 2))
    tokens = jnp.arange(quantizer.num_codes)
    codes = np.asarray(quantizer.codes(tokens))
    grid = [(np.arange(level) - level // 2) / (level // 2) for level in (2, 3, 4)]
    expected = [code[::-1] for code in itertools.product(*grid)]  # the first number changes fastest
    np.testing.assert_allclose(codes, expected)
    np.testing.assert_array_equal(quantizer.quantised(jnp.asarray(codes)).tokens, tokens)
    far = quantizer.quantised(quantizer.confined(jnp.full((2, 3), 100.0) * jnp.array([[1], [-1]])))
    np.testing.assert_array_equal(far.tokens, [quantizer.num_codes - 1, 0])
    np.testing.assert_allclose(quantizer.confined(jnp.zeros(3)), 0, atol=1e-7)


def parameters(codec: ViTVQGANCodec) -> int:
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(codec.abstract_params()))


@pytest.mark.parametrize(
    ("encoder", "decoder", "millions"),
    [
        ((8, 512, 8, 2048), (8, 512, 8, 2048), 50.9),
        ((12, 768, 12, 3072), (12, 768, 12, 3072), 170.7),
        ((8, 512, 8, 2048), (32, 1280, 16, 5120), 655.6),
    ],
)
def test_parameters_are_as_many_as_counted_by_hand(
    encoder: tuple[int, ...], decoder: tuple[int, ...], millions: float
) -> None:
    """Of the paper's sizes, with patches of 8 and 8,192 codes of 32."""

    def tower(inside: int, outside: int, depth: int, width: int, heads: int, mlp: int) -> int:
        attention = width * 3 * width + 3 * width + width * width + width
        perceptron = width * mlp + mlp + mlp * width + width
        norms = 2 * 2 * width
        ends = inside * width + width + width * outside + outside + 2 * width
        return depth * (attention + perceptron + norms) + ends

    sizes = dict(zip(("depth", "width", "heads", "mlp"), encoder, strict=True))
    of_decoder = dict(zip(("depth", "width", "heads", "mlp"), decoder, strict=True))
    settings = {f"encoder_{k}": v for k, v in sizes.items()} | {f"decoder_{k}": v for k, v in of_decoder.items()}
    expected = tower(8 * 8 * 3, 32, **sizes) + tower(32, 8 * 8 * 3, **of_decoder) + 8192 * 32
    assert parameters(ViTVQGANCodec(**settings)) == expected
    assert expected / 1e6 == pytest.approx(millions, abs=0.05)


def test_tokens_and_latents_are_decoded_to_the_same_picture(tmp_path: pathlib.Path) -> None:
    """Of weights that were written and read; the latent before the bottleneck, after it, and the tokens."""
    network = ViTVQGANCodec(**TINY, logit_laplace=True).make(nnx.Rngs(0))
    path = tmp_path / "weights.safetensors"
    path.write_bytes(to_bytes(params_of(network)))
    before, after = (
        ViTVQGANCodec(**TINY, logit_laplace=True, weights=str(path), latents=name) for name in ("before", "after")
    )
    params = before.load()
    jax.tree.map(np.testing.assert_array_equal, params, params_of(network))

    @jax.jit
    def pictures(params: Any, images: Any) -> list[Any]:
        found = [codec.decode_with(params, codec.encode_with(params, images)[0]) for codec in (before, after)]
        tokens = before.tokens_with(params, images)
        latents = before.encode_with(params, images)[0]
        return [*found, before.decode_tokens_with(params, tokens), tokens, latents]

    one, two, three, tokens, latents = pictures(params, IMAGES)
    assert one.shape == IMAGES.shape and tokens.shape == (3, 2, 3) and tokens.dtype == jnp.int32
    assert before.token_shape((8, 12, 1)) == (2, 3) and latents.shape[1:] == before.latent_shape((8, 12, 1))
    assert jnp.mean(latents**2) == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(one, two, atol=1e-5)
    np.testing.assert_allclose(one, three, atol=1e-5)
    assert np.min(one) > -1.25 and np.max(one) < 1.25, "logit-Laplace's pixels of (0, 1), from (0.1, 0.9) to (-1, 1)"
    assert before.identity() != after.identity()
    with pytest.raises(UserError, match="arrays missing"):
        ViTVQGANCodec(**TINY | {"quantizer": FiniteScalar()}, weights=str(path)).load()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder_width": 12, "encoder_heads": 5}, "encoder_width = 12: must be divisible by encoder_heads = 5"),
        ({"quantizer": {"name": "fsq", "levels": (256, 256, 256)}}, "2\\^20 are the most"),
        ({"quantizer": {"name": "codebook", "size": 1}}, "codec.quantizer: size = 1: must be"),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parts.build("codec", {"name": "vit_vqgan", **settings})
    with pytest.raises(ValueError, match="patch_size = 8: must divide"):
        ViTVQGANCodec().latent_shape((12, 12, 3))
