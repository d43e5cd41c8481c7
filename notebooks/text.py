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
# # What does a text change?
#
# **Question.** A network that is told a text estimates $\hat x_0(x_t, t, c)$. What does it draw for a prompt, how much
# does guidance lead it there, which words count, and at which noise levels does the text say what the picture does
# not?
#
# The run is `configs/emoji32_text.py`: emoji of 32x32 pixels and their names, of which a tenth was not trained on.
# Train it first, or change `workdir` below.

# %%
import dataclasses
import os
import pathlib
import tempfile

# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import diffcurr

SMALL = "DIFFCURR_SMALL" in os.environ  # how the tests run it: squares in three colours, and a few steps
workdir = pathlib.Path("../runs/emoji32_text")
if SMALL:
    folder = pathlib.Path(tempfile.mkdtemp()) / "pictures"
    folder.mkdir()
    for number in range(24):
        name, colour = list({"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}.items())[number % 3]
        Image.new("RGB", (8, 8), colour).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a {name} square")
    changes = {
        "dataset": {
            "name": "folder",
            "data_dir": str(folder),
            "size": 8,
            "captions": "txt",
            "classes": 0,
            "held_out": 0.2,
        },
        "network": {"hidden_size": 16, "depth": 1, "num_heads": 2, "scan_unroll": 1},
        "steps": 10,
        "optimizer": {"warmup_steps": 0},
        "batch_size": 8,
        "log_every": 0,
        "sample_every": 0,
        "sampling": {"steps": 3},
        "evaluation": {"denoising": {"images": 4, "levels": 4}},
    }
    workdir = folder.parent / "run"
    config = diffcurr.experiment.from_config(diffcurr.config.load("emoji32_text")).config  # with every setting
    diffcurr.jobs.find("train").run(diffcurr.config.changed(config, changes), workdir)

run = diffcurr.load_run(workdir)
prompts = ["a red apple", "a yellow flower", "a sad face", "a blue car"]


def show(rows, names, columns):
    """Pictures in rows under the names of their columns."""
    _, axes = plt.subplots(len(rows), len(columns), figsize=(1.4 * len(columns), 1.5 * len(rows)), squeeze=False)
    for row, name, line in zip(rows, names, axes, strict=True):
        for picture, panel in zip(row, line, strict=True):
            panel.imshow(np.clip((picture + 1) / 2, 0, 1))
            panel.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
    for column, panel in zip(columns, axes[0], strict=True):
        panel.set_title(column, fontsize="small")
    plt.tight_layout()


# %% [markdown]
# ## Prompts
#
# Each row is one prompt, each column one seed. None of the prompts is the name of an emoji, word for word.

# %%
seeds = range(2 if SMALL else 6)
drawn = np.stack([run.sample(prompts=prompts, seed=seed) for seed in seeds], axis=1)
show(drawn, prompts, [f"seed {seed}" for seed in seeds])

# %% [markdown]
# ## Guidance
#
# $\hat x_0 = \hat x_0(\varnothing) + s\,(\hat x_0(c) - \hat x_0(\varnothing))$ with the scale $s$ (Ho & Salimans 2022):
# the same noise under growing scales. With 0 the text is not heard at all.

# %%
scales = [1.0, 3.0] if SMALL else [0.0, 1.0, 2.0, 3.0, 5.0, 8.0]
swept = np.stack([run.sample(prompts=prompts, seed=0, guidance=scale) for scale in scales], axis=1)
show(swept, prompts, [f"scale {scale:g}" for scale in scales])

# %% [markdown]
# ## Words left out
#
# The same noise for a prompt, and for what is left when a word is taken away; last, the empty text. A negative prompt
# is the other way round: guidance leads away from it.

# %%
whole = "a red apple"
shorter = [whole, "a apple", "a red", "apple", "red", ""]
left = run.sample(prompts=shorter[: 3 if SMALL else None], seed=1)
away = run.sample(prompts=[whole], seed=1, negative_prompt="red")
show([[*left, *away]], [""], [*(text or "(nothing)" for text in shorter[: len(left)]), f"{whole}\nwithout: red"])

# %% [markdown]
# ## Where the text matters
#
# The error of $\hat x_0$ on pictures that were not trained on, told their captions and told nothing, with the same
# noise. Where there is little noise, the picture itself says more than any text; where there is nothing but noise, the
# text is all there is.

# %%
told = run.experiment.held_out_error()
number = len(told.images.x)
untold = dataclasses.replace(told, images=told.images._replace(condition=run.experiment.conditioning.nothing(number)))
with_text, without = (one(run.params)["denoising_bound"] for one in (told, untold))
log_snr = np.array(with_text["log_snr"])
_, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
for values, label in ((with_text, "told the caption"), (without, "told nothing")):
    left.plot(log_snr, values["x0_error"], marker=".", label=label)
left.set(yscale="log", xlabel="log-SNR (noise to clean)", ylabel="squared error of $x_0$")
left.legend()
ratio = np.array(with_text["x0_error"]) / np.array(without["x0_error"])
right.plot(log_snr, ratio, marker=".", color="0.3")
right.axhline(1, color="0.6", linestyle="--", linewidth=1)
right.set(xlabel="log-SNR (noise to clean)", ylabel="error told the caption / told nothing")
plt.tight_layout()
print(f"{number} pictures that were not trained on; the text says most at log-SNR {log_snr[ratio.argmin()]:.1f}")
