"""8x8 digits, class-conditional, easy-to-hard: the default, to try things on a laptop.

    python -m diffcurr.main --config=configs/digits.py
    python -m diffcurr.main --config=configs/digits.py:ddpm --workdir=runs/vanilla --config.curriculum.order=none
    python -m diffcurr.main --config=configs/digits.py:edm      # or :ddpm, :flow; into runs/digits_edm

Data: scikit-learn's 1,797 scans, bundled; no network. Readable digits after a minute and a half on two CPU cores,
in less than 2 GB (measured: docs/commands.md).

Expected result, without guidance: 1,000 samples after 4,000 steps have a Fréchet distance of 2.6 by `ddpm_speed` (mean
of 10 seeds), 4.1 by `ddpm` (10 seeds), 1.7 by `edm` and 1.6 by `flow` (5 seeds each), in 128 features of the shipped
classifier, where fresh real images have 2.8 (docs/evidence). Below that a model memorises its training images.

The figures of `ddpm_speed` are of SpeeD as it was here before it followed its public code (docs/rivals.md); it has not
been measured again.

Where the settings come from: those of the processes are their authors' (DDPM: Ho et al. 2020; EDM: Karras et al. 2022,
with 18 steps of Heun as for CIFAR-10; flow: SiT, Ma et al. 2024). Beside them none is published for this data. The
network, the learning rate, the batch and the average are a small pilot's; the curriculum is the paper's (N = 20
clusters, patience) with a patience of 10 instead of 200 steps, since the run is a hundredth of the paper's length.
The default is DDPM with SpeeD's draws and weights (Wang et al. 2025) and clusters of equal relative entropy because, of
six easy-to-hard arms under DDPM, that one came closest to the data, on the way and at the end; it owes that to SpeeD
(docs/evidence/README.md, on this data). `ddpm`, `edm` and `flow` are plain, with uniform clusters.
"""

from ml_collections import ConfigDict

from diffcurr.config import outline, variant_of

# Each process with the solver that its authors use; what is not named here is the default of the part.
PROCESSES = {
    "ddpm": {"process": {"name": "ddpm"}, "sampling": {"solver": {"name": "ddim"}, "steps": 50}},
    "ddpm_speed": {
        "process": {"name": "ddpm", "density": {"name": "speed"}, "weighting": {"name": "speed"}},
        "sampling": {"solver": {"name": "ddim"}, "steps": 50},
        "curriculum": {"clustering": {"name": "relative_entropy"}},
    },
    "edm": {
        # The standard deviation of the pixels is 0.752.
        "process": {"name": "edm", "prediction": {"name": "preconditioned", "sigma_data": 0.75}},
        "sampling": {"solver": {"name": "heun"}, "steps": 18},
        "optimizer": {"clip_norm": 0.0},  # its loss is a sum over pixels
    },
    "flow": {"process": {"name": "flow"}, "sampling": {"solver": {"name": "heun"}, "steps": 25}},
}


def get_config(process: str = "ddpm_speed") -> ConfigDict:
    """
    Args:
      process: `ddpm_speed`, `ddpm`, `edm` or `flow`, given after the file's name and a colon.
    """
    config = outline()
    config.update(variant_of(process, PROCESSES))
    config.dataset.name = "digits"
    config.conditioning.name = "class"
    config.network.update(patch_size=2, hidden_size=64, depth=3, num_heads=4, mlp_ratio=4.0, remat="none")
    config.network.scan_unroll = 3  # all blocks written out: on two CPU cores a gradient took 42 instead of 73 ms
    config.steps = 4000
    config.batch_size = 64
    config.optimizer.learning_rate = 1e-3
    config.ema.decay = 0.995
    config.curriculum.patience = 10
    config.sampling.update(samples=100, guidance=2.0)
    config.analysis.convergence.batch_size = 16  # ten networks with five seeds take four minutes on two CPU cores
    return config
