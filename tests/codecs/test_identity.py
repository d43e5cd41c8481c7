"""Pixels, or latents that are stored as such, would not reach the process and the eye as they are."""

import jax
import numpy as np

from diffcurr.codecs import CODECS, Codec, Identity


def test_leaves_everything_as_it_is() -> None:
    codec = CODECS["identity"]()
    assert isinstance(codec, Identity) and isinstance(codec, Codec)
    images = jax.random.uniform(jax.random.key(0), (2, 8, 6, 3), minval=-1.0)
    mean, std = codec.encode(images)
    assert codec.latent_shape((8, 6, 3)) == mean.shape[1:] == (8, 6, 3)
    assert std is None  # it is deterministic
    np.testing.assert_array_equal(mean, images)
    np.testing.assert_array_equal(codec.decode(mean), images)
