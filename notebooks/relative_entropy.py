# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How different are neighbouring noise levels?
#
# A diffusion model learns to undo noise, one level after another. **Are all levels equally hard?** Before training
# anything, one can ask how much the data's distribution changes from one noise level to the next: the relative
# entropy of consecutive marginals,
#
# $$D_{KL}(p_{t-1}\,\|\,p_t) = \mathbb{E}_{x\sim p_{t-1}}\left[\log p_{t-1}(x) - \log p_t(x)\right],\qquad
# p_t = \frac1M\sum_{j=1}^M \mathcal N(\alpha_t x_j,\ \sigma_t^2 I).$$
#
# For a data set $x_1,\dots,x_M$ the marginal $p_t$ is a mixture of $M$ Gaussians, one around each (shrunk) image, so
# both densities are exact; only the expectation is sampled. Here it is for scikit-learn's 1,797 digits under DDPM's
# linear schedule.

# %%
import os

# %matplotlib inline
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from diffcurr.curriculum import clusters
from diffcurr.difficulty.relative_entropy import gaussian_relative_entropy, relative_entropy
from diffcurr.processes import DDPM
from diffcurr.reporting import figures

SMALL = "DIFFCURR_SMALL" in os.environ  # how the tests run it
images = jnp.asarray(load_digits().images / 8 - 1, jnp.float32)  # in [-1, 1]
num_samples = 64 if SMALL else 1000

process = DDPM(num_timesteps=100 if SMALL else 1000)
alphas, sigmas = process.exact_alpha_sigma(process.level_midpoints)
curve = relative_entropy(images, alphas, sigmas, jax.random.key(0), num_samples)
print(f"from {curve.value[0]:.3g} nats at the first pair of levels to {curve.value[-1]:.2g} at the last")

# %% [markdown]
# ## Is that the data's distribution, or just these points?
#
# The mixture is a strange distribution: at $t\to0$ it is 1,797 spikes, and the divergence between spikes of
# neighbouring widths grows without limit, whatever the images show. Two more curves say how much of the rise is that.
#
# * **Gaussian**: a smooth distribution with the same mean and covariance. Its curve has a closed form.
# * **Leave-one-out**: the sample's own centre is taken out of both mixtures. What remains is no divergence but a gain,
#   $\mathbb{E}[\log q_{t-1}(x)-\log q_t(x)]$: how much better the *less* noisy mixture of the other images predicts an
#   image it has not seen. Where it is negative, the less noisy mixture is worse at that: its spikes miss the image.

# %%
left_out = relative_entropy(images, alphas, sigmas, jax.random.key(0), num_samples, leave_one_out=True)
flat = np.asarray(images, np.float64).reshape(len(images), -1)
eigenvalues, vectors = np.linalg.eigh(np.cov(flat.T, ddof=0))
gaussian = gaussian_relative_entropy(np.maximum(eigenvalues, 0), alphas, sigmas, flat.mean(axis=0) @ vectors)

edges = {
    "relative entropy": clusters.by_relative_entropy(curve.value, 20),
    "its square root": clusters.by_relative_entropy(curve.value, 20, power=0.5),
    "log SNR": clusters.by_log_snr(process.log_snr(process.level_midpoints), 20),
}
figures.draw_relative_entropy(process.level_midpoints[1:], curve, left_out, gaussian, edges)

# %% [markdown]
# **What it shows.** All curves fall from clean (left) to noise (right) over many orders of magnitude: neighbouring
# levels differ most where there is least noise, which is the paper's reason to call those levels hard. At much noise
# the three curves meet, so there the value is a property of the distribution. The dotted line is an upper bound that
# needs no sampling: the divergence of single components.
#
# **What it does not show.** With 1,797 images in 64 dimensions the blue curve is that of *points* below about
# $u = 0.4$, where the leave-one-out curve is negative; a network that generalises does not learn these spikes. Nor does
# a large divergence prove that a task takes long to learn: `convergence.ipynb` measures that directly.
#
# ## From the curve to clusters
#
# The rows of ticks are three ways to cut $[0, 1)$ into 20 clusters. Equal shares of the *sum* of the divergence crowd
# into the least noise; only the floor on a cluster's width holds them apart. A divergence between close neighbours
# grows with the square of their distance, so its sum depends on how finely the levels are cut. Its square root grows
# with the distance itself: $\sqrt{2 D_{KL}}$ is the length of a small step in the Fisher-Rao metric. Equal shares of
# *that* are equal pieces of the path from data to noise. With finer steps the edges by the sum wander towards 0; those
# by the square root move far less (that they move at all is because a finer schedule also starts with less noise, and
# because the first steps are not small).

# %%
table = {}
for steps in (100, 200) if SMALL else (250, 500, 1000):
    finer = DDPM(num_timesteps=steps)
    value = relative_entropy(
        images, *finer.exact_alpha_sigma(finer.level_midpoints), jax.random.key(0), num_samples
    ).value
    table[steps] = [clusters.by_relative_entropy(value, 4, min_width=1e-3, power=power)[1:-1] for power in (1.0, 0.5)]
for steps, (whole, root) in table.items():
    print(f"T = {steps:4}: inner edges by the sum {np.round(whole, 3)}, by its square root {np.round(root, 3)}")

# %% [markdown]
# ## Another schedule, another curve
#
# The curve belongs to data *and* process. Against the log signal-to-noise ratio instead of $u$, and as length per unit
# of log SNR, schedules can be compared: what differs between them is only how finely each part of the same path is cut.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
for schedule in ("linear", "cosine"):
    other = DDPM(schedule=schedule, num_timesteps=process.num_timesteps)
    u = other.level_midpoints
    value = np.asarray(
        relative_entropy(images, *other.exact_alpha_sigma(u), jax.random.key(0), num_samples).value, np.float64
    )
    log_snr = other.log_snr(u)
    left.plot(u[1:], value, label=schedule)
    right.plot(log_snr[1:], np.sqrt(2 * np.maximum(value, 0)) / -np.diff(log_snr), label=schedule)
left.set(yscale="log", xlabel="noise level u", ylabel=r"$D_{KL}(p_{t-1}\,\|\,p_t)$ in nats")
right.set(xlabel="log SNR (noise left, clean right)", ylabel="length per unit of log SNR")
for axes in (left, right):
    axes.grid(alpha=0.3)
    axes.legend()
plt.show()
