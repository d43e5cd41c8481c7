"""DDPM would train or sample at other noise levels than its papers, or towards another target."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcurr.processes import DDPM, prediction
from diffcurr.processes.prediction import V, Velocity


def test_linear_schedule() -> None:
    process = DDPM(schedule="linear")
    np.testing.assert_allclose(process.alphas_cumprod[[499, 999]], [0.0785872, 4.03583e-5], rtol=2e-6)
    log_snr = process.log_snr(process.level_midpoints)
    np.testing.assert_allclose(log_snr[[0, 499, 999]], [9.21024, -2.46170, -10.11767], atol=1e-5)


def test_cosine_schedule() -> None:
    np.testing.assert_allclose(DDPM(schedule="cosine").alphas_cumprod[[499, 999]], [0.493844, 2.42877e-9], rtol=2e-6)


def test_sqrt_linear_schedule() -> None:
    """Stable Diffusion's: the last alpha-bar, 0.00466, is far from 0."""
    process = DDPM(schedule="sqrt_linear")
    np.testing.assert_allclose(process.betas[[0, 999]], [0.00085, 0.012], rtol=1e-12)
    np.testing.assert_allclose(np.diff(np.sqrt(process.betas)), (0.012**0.5 - 0.00085**0.5) / 999, rtol=1e-9)
    np.testing.assert_allclose(process.alphas_cumprod[999], 0.00466, rtol=1e-3)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sqrt_linear"])
@pytest.mark.parametrize("num_timesteps", [50, 1000, 4000])
def test_u_is_the_share_of_timesteps_with_less_noise(schedule: str, num_timesteps: int) -> None:
    process = DDPM(schedule=schedule, num_timesteps=num_timesteps)
    u = jnp.asarray(process.level_midpoints, jnp.float32)
    np.testing.assert_array_equal(process.time(u), np.arange(num_timesteps))
    assert int(process.time(jnp.float32(1 - 2**-24))) == num_timesteps - 1
    assert np.all(np.diff(process.log_snr(process.level_midpoints)) < 0)
    alpha, sigma = process.alpha_sigma(process.time(u))
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, rtol=1e-6)
    # Less accurate where sigma or alpha is rounded close to 1.
    np.testing.assert_allclose(2 * np.log(alpha / sigma), process.log_snr(process.level_midpoints), atol=2e-4)


@pytest.mark.parametrize("name", ["epsilon", "x0", "v", "score"])
def test_the_target_gives_back_x0(name: str) -> None:
    process = DDPM(prediction=prediction.PREDICTIONS[name]())
    rng = np.random.default_rng(0)
    x0, noise = (jnp.asarray(rng.normal(size=(6, 4, 4, 2)), jnp.float32) for _ in range(2))
    u = jnp.asarray([0.0, 0.2, 0.4, 0.6, 0.8, 0.9])
    time = process.time(u)
    level = process.level(time)
    x = prediction.expand(level.alpha, x0) * x0 + prediction.expand(level.sigma, x0) * noise
    target = process.prediction.target(x0, noise, level)
    np.testing.assert_allclose(process.denoise(lambda x, t: target, x, time).x0, x0, atol=2e-5)
    losses = process.losses(lambda x, t: target, x0, u, noise)
    assert np.all(np.asarray(losses.loss) == 0) and np.all(np.asarray(losses.noise_error) == 0)


def test_loss_is_the_mean_square_error_at_the_right_time() -> None:
    process, seen = DDPM(), {}
    x0, noise = jnp.zeros((3, 2, 2, 1)), jnp.ones((3, 2, 2, 1))

    def predict(x: jax.Array, t: jax.Array) -> jax.Array:
        seen.update(x=x, t=t)
        return jnp.full_like(x, 3.0)

    losses = process.losses(predict, x0, jnp.asarray([0.0, 0.5, 0.9995]), noise)
    np.testing.assert_allclose(losses.loss, 4.0)
    np.testing.assert_allclose(losses.noise_error, 4.0)  # what is predicted is the noise
    np.testing.assert_array_equal(seen["t"], [0, 500, 999])
    np.testing.assert_allclose(seen["x"][:, 0, 0, 0], np.sqrt(1 - process.alphas_cumprod[[0, 500, 999]]), rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 10, 250, 1000])
def test_sampling_times(steps: int) -> None:
    process = DDPM()
    timesteps = process.sampling_times(steps)
    assert timesteps[0] == 999 and len(timesteps) == steps
    assert steps == 1 or (timesteps[-1] == 0 and np.all(np.diff(timesteps) < 0))


@pytest.mark.parametrize(
    "settings", [{"schedule": "square"}, {"prediction": Velocity()}, {"num_timesteps": 1}, {"num_timesteps": 20}]
)
def test_rejects(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        DDPM(**settings)


def test_settings_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        DDPM("linear", V())  # type: ignore[misc]


def test_rejects_more_sampling_steps_than_timesteps() -> None:
    with pytest.raises(ValueError, match="steps = 1001"):
        DDPM().sampling_times(1001)
