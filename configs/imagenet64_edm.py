"""ImageNet at 64x64, class-conditional, EDM, easy-to-hard: for a pod.

    python -m diffcurr.main --config=configs/imagenet64_edm.py --config.dataset.data_dir=IMAGENET

Data: IMAGENET is a folder with one folder a class (`train/n01440764/...`), or a zip in the layout of EDM's tool;
pictures are cropped and resized as they are read. It has not been run in full.

Where the settings come from: process, 2,500 M images in batches of 4096, learning rate 1e-4 after 10 M images of
warm-up, average with a half-life of 50 M images, dropout 0.10, no augmentation, no flips, and 256 steps of stochastic
Heun are Karras et al. 2022's for ImageNet-64 (appendix F, table 5). Their network there is ADM's U-Net, which diffcurr
does not have: this one is their DDPM++ as for FFHQ-64, a fifth of the size, so its figures do not stand beside
theirs. Clusters N = 20 and patience 200 are Kim et al. 2025's.
"""

from ml_collections import ConfigDict

from diffcurr.config import load


def get_config() -> ConfigDict:
    config = load("cifar10")  # EDM's settings that all its data sets share
    config.dataset.update(name="imagenet64", augment=0.0)
    config.conditioning.update(name="class", dropout=0.0)
    config.network.update(channel_mult=(1, 2, 2, 2), dropout=0.10)
    config.batch_size = 4096
    config.steps = round(2_500_000_000 / config.batch_size)
    config.optimizer.update(learning_rate=1e-4, warmup_steps=round(10_000_000 / config.batch_size))
    config.ema.decay = 0.5 ** (config.batch_size / 50e6)
    config.sampling.update(solver={"name": "heun", "churn": (40.0, 0.05, 50.0, 1.003)}, steps=256)
    return config
