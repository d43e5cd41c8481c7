"""Losses would differ from those of the public DiT, SiT and EDM, here from recorded network outputs."""

import jax
import jax.numpy as jnp
import numpy as np
from reference_files import Reference

from diffcurr.processes import DDPM, EDM, Flow


def recorded(name: str, *keys: str) -> list[jax.Array]:
    reference = Reference(name)
    return [reference[key] for key in keys]


def test_dit() -> None:
    """The hybrid loss: squared error and, for the variance, the bound in bits per dimension."""
    x0, noise, t, xt, output = recorded("dit", "x", "eps", "t", "xt", "model_out")
    mse, vb, recorded_loss = recorded("dit", "mse", "vb", "loss")
    seen: dict[str, jax.Array] = {}

    def predict(x: jax.Array, time: jax.Array) -> jax.Array:
        seen.update(x=x, time=time)
        return output

    hybrid, u = DDPM(learn_variance=True), (t + 0.5) / 1000
    loss = hybrid.losses(predict, x0, u, noise).loss
    np.testing.assert_allclose(seen["x"], xt, atol=1e-6)
    np.testing.assert_array_equal(seen["time"], t)
    np.testing.assert_allclose(loss, mse + vb, rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(loss), recorded_loss, rtol=1e-5)
    plain = DDPM().losses(lambda x, time: output[..., :4], x0, u, noise).loss
    np.testing.assert_allclose(plain, mse, rtol=1e-5)


def test_the_bound_teaches_the_variance_alone() -> None:
    x0, noise, t, output = recorded("dit", "x", "eps", "t", "model_out")

    def loss(output: jax.Array, **settings: bool) -> jax.Array:
        return jnp.sum(DDPM(**settings).losses(lambda x, time: output, x0, (t + 0.5) / 1000, noise).loss)

    hybrid = jax.grad(lambda o: loss(o, learn_variance=True))(output)
    np.testing.assert_allclose(hybrid[..., :4], jax.grad(loss)(output[..., :4]), rtol=1e-6)
    assert np.all(np.abs(hybrid[..., 4:]).max(axis=(1, 2, 3)) > 0)


def test_sit() -> None:
    x0, noise, t, xt, output, recorded_loss = recorded("sit", "x", "eps", "t", "xt", "model_out", "loss")
    process, seen = Flow(), {}

    def predict(x: jax.Array, time: jax.Array) -> jax.Array:
        seen.update(x=x, time=time)
        return output

    loss = process.losses(predict, x0, process.quantile(t), noise).loss
    np.testing.assert_allclose(seen["time"], t, atol=1e-6)
    np.testing.assert_allclose(seen["x"], xt, atol=1e-6)
    np.testing.assert_allclose(jnp.mean(loss), recorded_loss, rtol=1e-5)


def test_edm() -> None:
    """The network's raw output is worked out from the recorded denoiser, D = c_skip x + c_out F."""
    x0, noise, sigma, denoised, recorded_loss = recorded("edm", "x", "eps", "sigma", "D", "loss")
    process, at = EDM(), sigma[:, None, None, None]
    x = x0 + at * noise
    raw = (denoised - 0.25 / (at**2 + 0.25) * x) * jnp.sqrt(at**2 + 0.25) / (0.5 * at)
    np.testing.assert_allclose(process.denoise(lambda x, time: raw, x, sigma).x0, denoised, atol=1e-5)
    weight = process.weighting(process, sigma, process.level(sigma))
    losses = weight * jnp.sum(jnp.square(denoised - x0), axis=(1, 2, 3))
    np.testing.assert_allclose(jnp.mean(losses), recorded_loss, rtol=1e-5)
    seen: dict[str, jax.Array] = {}

    def predict(x: jax.Array, time: jax.Array) -> jax.Array:
        seen.update(x=x, time=time)
        return raw

    got = process.losses(predict, x0, process.quantile(sigma), noise).loss
    middle = slice(0, 3)  # sigma = 40 has a quantile that float32 cannot tell from its neighbours'
    np.testing.assert_allclose(got[middle], losses[middle], rtol=2e-3)
    np.testing.assert_allclose(seen["time"][middle], np.log(sigma[middle]) / 4, atol=1e-4)
    np.testing.assert_allclose(seen["x"][middle], (x / jnp.sqrt(at**2 + 0.25))[middle], atol=2e-4)
