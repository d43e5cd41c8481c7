"""SiT-B/2 on ImageNet 256x256 latents, class-conditional, easy-to-hard.

    python -m diffcurr.main --config=configs/imagenet256_sit_b_2.py --config.dataset.data_dir=LATENTS

Data: LATENTS is a folder or zip of .npy files: latents of Stable Diffusion's autoencoder, 4x32x32, or 8x32x32 with
standard deviations; classes by `dataset.json` or by folder. Add --config.dataset.latent_scale=1 if they are scaled
already. A step is some 35 TFLOP (23.01 GMAC an image forwards). It has not been run in full.

Where the settings come from: see `diffcurr.config.latent_transformer`.
"""

from ml_collections import ConfigDict

from diffcurr.config import latent_transformer


def get_config() -> ConfigDict:
    return latent_transformer("flow", "b", "imagenet256_latents")
