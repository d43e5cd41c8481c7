"""If these fail, an autoencoder is trained on another loss than it says."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference_files import Reference

from diffcurr.codecs.kl import KLAutoencoder
from diffcurr.networks.convert import load_torch
from diffcurr.training.autoencoder import losses


def test_the_loss_is_the_public_networks() -> None:
    """Squared error of the decoded mean, and a thousandth of the divergence, as the reference file has them."""
    reference = Reference("kl_autoencoder")
    network = KLAutoencoder(3, (16, 32), 1, 4, 8, True, rngs=nnx.Rngs(0))
    load_torch(network, reference.weights())
    error, divergence = losses(network, jnp.asarray(reference["x_nchw"]), None, "l2")
    np.testing.assert_allclose(divergence, reference["kl"], rtol=1e-5)
    assert float(jnp.mean(error) + 1e-3 * jnp.mean(divergence)) == pytest.approx(float(reference["loss"]), abs=1e-5)
    absolute, _ = losses(network, jnp.asarray(reference["x_nchw"]), None, "l1")
    assert np.all(absolute > 0) and np.all(absolute**2 <= error * (1 + 1e-6)), "the mean is below the root mean square"
