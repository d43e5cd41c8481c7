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
# # Which noise levels are learned sooner?
#
# **Question.** A network trained on one interval of noise levels alone: does it converge faster where there is more
# noise? This is the observation behind easy-to-hard training. Here ten networks are trained on ten intervals of $u$
# (0 clean, 1 noise), all at once: the ordinary train step, vmapped over the weights of the clusters, 1 for one cluster
# and 0 for the others.
#
# Losses at different noise levels do not compare: the error of guessing the noise is small where the picture is almost
# all noise. So each curve is normalised by its own start and end,
#
# $$\tilde L_k(n) = \frac{L_k(n)-L_k(\infty)}{L_k(0)-L_k(\infty)},$$
#
# with the mean of the last tenth of the evaluations for $L_k(\infty)$, and the number compared is the step at which
# 90 % of the improvement is made.

# %%
import os

# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from IPython.display import Markdown
from sklearn.datasets import load_digits

import diffcurr
from diffcurr.batch import Batch
from diffcurr.curriculum import clusters
from diffcurr.difficulty.convergence import train_intervals
from diffcurr.reporting import figures
from diffcurr.reporting.difficulty import describe_convergence
from diffcurr.training.state import split_network

SMALL = "DIFFCURR_SMALL" in os.environ  # how the tests run it
config = diffcurr.config.load("digits:ddpm")
if SMALL:
    config.network.update(hidden_size=8, depth=1, num_heads=1, patch_size=4, scan_unroll=1)
experiment = diffcurr.experiment.from_config(config, jax.devices()[:1])
digits = load_digits()
data = Batch(
    x=jnp.asarray(digits.images[..., None] / 8 - 1, jnp.float32),  # in [-1, 1]
    condition={"label": jnp.asarray(digits.target, jnp.int32)},
)
intervals = clusters.uniform(3 if SMALL else 10)

convergence = train_intervals(
    experiment.step_config,
    lambda key: split_network(experiment.make_network(nnx.Rngs(key)))[1],
    data,
    intervals,
    seeds=range(2 if SMALL else 5),
    steps=20 if SMALL else 500,
    batch_size=16,
    evaluate_every=10,
)
print("losses:", convergence.loss.shape, "= seeds x intervals x evaluations")

# %%
figures.draw_convergence(convergence, intervals, share=0.9)

# %%
Markdown(describe_convergence(convergence, intervals, share=0.9))

# %% [markdown]
# **What it shows.** For this data, network and optimizer, the order of convergence is that of the noise; the intervals
# with the most noise are indistinguishable, and the difference lies in the least noise. That the curriculum's easy end
# is the noisy one is thus not an assumption here but a measurement.
#
# **What it does not show.** "The end" is the last step of a short run. The networks with the least noise are still
# improving there, so their figure is too *low*. A batch of 16 and an Adam rate of 1e-3 suit the network, not each
# interval: a larger rate might change the figures. And convergence in loss is not quality of samples.
#
# The raw losses, before normalising, show how far apart the tasks are in scale:

# %%
first, last = convergence.loss[:, :, 0].mean(0), convergence.loss[:, :, -1].mean(0)
for low, high, start, end in zip(intervals[:-1], intervals[1:], first, last, strict=True):
    print(f"u in [{low:.2f}, {high:.2f}): {start:.3f} -> {end:.4f}, {np.log10(start / end):.1f} decades")
