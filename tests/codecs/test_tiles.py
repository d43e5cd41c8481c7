"""Large pictures, encoded and decoded in tiles, would have seams, holes, or other values than the whole."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from reference_files import Reference

from diffcurr.codecs import KL, tiles
from diffcurr.codecs.kl import KLAutoencoder, params_of
from diffcurr.networks.convert import load_torch

SIZES: dict[str, Any] = dict(block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8)


@pytest.fixture(scope="module")
def params() -> Any:
    network = nnx.eval_shape(lambda: KLAutoencoder(**SIZES, rngs=nnx.Rngs(0)))
    load_torch(network, Reference("kl_autoencoder").weights())
    return params_of(network)


@given(st.integers(4, 40), st.integers(0, 100), st.integers(1, 4))
def test_shares_sum_to_one(tile: int, more: int, enlarged: int) -> None:
    starts, shares = tiles.places(tile + more, tile, enlarged)
    assert starts[0] == 0 and starts[-1] == more and len(starts) == len(shares)
    assert np.all(np.diff(starts) <= tile - tile // tiles.OVERLAP) and np.all(np.diff(starts) > 0)
    total = np.zeros((tile + more) * enlarged)
    for start, share in zip(starts, shares, strict=True):
        assert np.all(share > 0)
        total[start * enlarged : (start + tile) * enlarged] += share
    np.testing.assert_allclose(total, 1.0)


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_what_looks_at_one_place_is_the_same_in_tiles(up: int, down: int) -> None:
    """Whatever the sides, one of which may be shorter than a tile."""
    x = jax.random.normal(jax.random.key(0), (2, 26 * down, 6 * down, 3))

    def function(x: jax.Array) -> jax.Array:
        return 2 * x.repeat(up, axis=1).repeat(up, axis=2)[:, ::down, ::down]

    found = jax.jit(lambda x: tiles.blended(function, x, 8, up=up, down=down))(x)
    np.testing.assert_allclose(found, function(x), atol=1e-6)


def test_a_picture_no_larger_than_the_tile_is_not_cut() -> None:
    """The programs are the same; of a larger one they are not."""

    def programs(side: int, tile: int) -> list[str]:
        codec = KL(**SIZES, tile=tile)
        images, latents = jnp.zeros((1, side, side, 3)), jnp.zeros((1, side // 2, side // 2, 4))
        both = ((codec.encode_with, images), (codec.decode_with, latents))
        return [str(jax.make_jaxpr(function)(codec.abstract_params(), x)) for function, x in both]

    assert programs(32, 0) == programs(32, 32)
    assert all("scan" in larger for larger in programs(34, 32))


def test_a_larger_picture_is_close_to_the_whole_one(params: Any) -> None:
    """Normalisation and attention look at a whole tile, so it is not the same."""
    row, column = np.meshgrid(np.arange(112), np.arange(64), indexing="ij")
    waves = [np.sin(2 * np.pi * (row + phase) / 16) * np.cos(2 * np.pi * column / 16) for phase in (0, 4, 8)]
    x = jnp.asarray(np.stack(waves, axis=-1)[None], jnp.float32)
    whole, tiled = KL(**SIZES), KL(**SIZES, tile=64)
    (mean, std), (tiled_mean, tiled_std) = (jax.jit(codec.encode_with)(params, x) for codec in (whole, tiled))
    pictures, in_tiles = (jax.jit(codec.decode_with)(params, mean) for codec in (whole, tiled))
    for found, expected in ((tiled_mean, mean), (tiled_std, std), (in_tiles, pictures)):
        assert found.shape == expected.shape
        error = float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))
        assert 0 < error < 0.1


def test_the_program_does_not_grow_with_the_picture(params: Any) -> None:
    def length(side: int) -> int:
        latents = jnp.zeros((1, side, side, 4))
        return len(str(jax.make_jaxpr(KL(**SIZES, tile=16).decode_with)(params, latents)).splitlines())

    assert length(64) == length(32)
