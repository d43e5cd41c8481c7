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
# # What does a curriculum look like?
#
# **Question.** Which noise levels does each rule and each order train, and when? The curriculum is a weight $w_k\ge0$
# for each cluster $[e_{k-1}, e_k)$ of noise levels; at every step $u$ is drawn with a density that is proportional to
# the weight of the cluster it lies in,
#
# $$p(u) = \frac{w_k}{\sum_j w_j\,(e_j-e_{j-1})}\quad\text{for } u\in[e_{k-1}, e_k),\qquad 0=e_0<\dots<e_N=1,$$
#
# and a rule decides the next weights. Under the paper's rules they are 1 for the active clusters and 0 for the others;
# the next stage begins by *patience* (the loss has not improved for more than $\tau$ steps) or after *fixed* lengths.
# Every picture below comes from the real train step on digits, with a small network.

# %%
import os

# %matplotlib inline
import jax
import matplotlib.pyplot as plt
import numpy as np

import diffcurr
from diffcurr.curriculum import clusters, quantiles
from diffcurr.data import pipeline

SMALL = "DIFFCURR_SMALL" in os.environ  # how the tests run it
steps = 30 if SMALL else 400

settings = {
    "easy to hard (the paper)": {},
    "hard to easy": {"order": "hard_to_easy"},
    "random": {"order": "random"},
    "none (vanilla)": {"order": "none"},
    "one cluster at a time": {"accumulate": False},
    "fixed stages of 20 steps": {"name": "fixed", "steps_per_stage": (20,)},
    "the best loss never reset": {"reset_best": False},
    "u stratified over the batch": {"stratified": True},
}
if SMALL:
    settings = {name: settings[name] for name in ("hard to easy", "fixed stages of 20 steps")}
small = {
    "network": {"hidden_size": 16, "depth": 1, "num_heads": 2, "patch_size": 4, "scan_unroll": 1},
    "curriculum": {"clusters": 10, "patience": 1 if SMALL else 5},
}
digits = diffcurr.experiment.from_config(diffcurr.config.load("digits:ddpm")).config  # with every setting
shared = diffcurr.config.changed(digits, small)
weights, losses = {}, {}
for name, setting in settings.items():
    config = diffcurr.config.changed(shared, {"curriculum": setting})
    experiment = diffcurr.experiment.from_config(config, jax.devices()[:1])
    source, condition_of = experiment.dataset.open(), experiment.conditioning.of
    dataset = pipeline.make_dataset(source, experiment.dataset, condition_of, batch_size=64, seed=0)
    compiled, state = experiment.compiled, experiment.init_state()
    now, history = compiled.initial_carry(state), []
    for step in range(steps):
        batch = jax.device_put(dataset[step], compiled.batch_sharding)
        state, following, metrics = compiled.step(state, batch, now)
        history.append((now, metrics.loss))
        now = following
    weights[name], losses[name] = (np.asarray(jax.device_get(part)) for part in zip(*history, strict=True))

# %%
figure, axes = plt.subplots(4, 4, figsize=(15, 11), layout="constrained", height_ratios=(2, 1, 2, 1), sharex=True)
for i, name in enumerate(settings):
    upper, lower = axes[i // 4 * 2, i % 4], axes[i // 4 * 2 + 1, i % 4]
    shown = dict(origin="lower", extent=(0, steps, 0, 1), aspect="auto", interpolation="nearest")
    upper.imshow(weights[name].T, cmap="Blues", vmin=0, vmax=1.3, **shown)
    upper.set(title=name, ylabel="u (0 clean, 1 noise)" if i % 4 == 0 else None)
    lower.plot(losses[name], linewidth=0.8)
    lower.set(xlabel="step", ylim=(0, 1.1), ylabel="loss of the step" if i % 4 == 0 else None)
plt.show()

# %% [markdown]
# **What it shows.** Blue is what is trained. The loss *rises* when a harder cluster enters: that is why the best loss
# is forgotten at the start of a stage. Where it is not ("never reset"), every later stage ends after $\tau$ steps,
# whether it has learned anything or not. With patience the stages have lengths that the loss decides, and a noisy
# loss decides soon: with $u$ stratified over the batch it is less noisy, and the stages differ.
#
# **What it does not show.** Whether any of this makes better samples: that takes many seeds, equal steps, a distance.
#
# ## The draw
#
# There is no rejection and no changing shape: a uniform $v$ is scaled to the total weighted width, and the cumulative
# weighted widths are inverted there. Where all weights are 0 or 1 that moves the scaled $v$ up by the inactive width
# below it. With all clusters active the draw *is* $v$, bit for bit, so vanilla training is a setting.

# %%
edges, key = clusters.uniform(5), jax.random.key(0)
figure, axes = plt.subplots(1, 4, figsize=(15, 3), layout="constrained", sharey=True)
for axis, some in zip(axes, ([0, 0, 0, 0, 1], [0, 1, 0, 1, 1], [1, 1, 1, 1, 1], [0.25, 0.5, 1, 2, 1]), strict=True):
    u = quantiles.draw(key, np.array(some, np.float32), edges, 20_000)
    axis.hist(u, bins=50, range=(0, 1))
    axis.set(title=f"weights: {some}", xlabel="u")
plt.show()
everything = quantiles.draw(key, np.ones(5, np.float32), edges, 20_000)
print("all active equals the plain draw bit for bit:", bool(np.all(everything == jax.random.uniform(key, (20_000,)))))
