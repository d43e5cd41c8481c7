"""FFHQ at 64x64, EDM with the DDPM++ U-Net, easy-to-hard: for several accelerators.

    python -m diffcurr.main --config=configs/ffhq64_edm.py --config.dataset.data_dir=FFHQ

Data: FFHQ is a folder or zip of its 70,000 pictures, of any size from 64x64 (the thumbnails of 128 do): they are
resized as they are read. It has not been run in full.

Where the settings come from: process, network, 200 M images in batches of 256, learning rate 2e-4 after 10 M images of
warm-up, average with a half-life of 0.5 M images, dropout 0.05, augmentation 0.15 and 40 steps of Heun are Karras et
al. 2022's for FFHQ (appendix F, and the public code's defaults); clusters N = 20 and patience 200 are Kim et al.
2025's.
"""

from ml_collections import ConfigDict

from diffcurr.config import load


def get_config() -> ConfigDict:
    config = load("cifar10")  # EDM's settings that all its data sets share
    config.dataset.update(name="ffhq64", augment=0.15)
    config.network.update(channel_mult=(1, 2, 2, 2), dropout=0.05)
    config.batch_size = 256
    config.steps = 200_000_000 // config.batch_size
    config.optimizer.update(learning_rate=2e-4, warmup_steps=10_000_000 // config.batch_size)
    config.ema.decay = 0.5 ** (config.batch_size / 0.5e6)
    config.sampling.steps = 40
    return config
