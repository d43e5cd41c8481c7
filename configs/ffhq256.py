r"""DiT-B/2 on FFHQ 256x256 latents, unconditional, easy-to-hard.

    python -m diffcurr.main --config=configs/ffhq256.py --job=encode --config.dataset=folder \
        --config.dataset.data_dir=PICTURES --config.dataset.size=256 --config.dataset.classes=0 \
        --config.dataset.flip=True --config.codec.weights=VAE --out=LATENTS
    python -m diffcurr.main --config=configs/ffhq256.py --config.dataset.data_dir=LATENTS --config.codec.weights=VAE

Data: PICTURES is a folder or zip of FFHQ's 70,000 pictures, VAE the safetensors file of Stable Diffusion's autoencoder.
The first command writes the latents of the pictures and of their mirror images, 4.6 GB. A step is some 35 TFLOP (23.01
GMAC an image forwards). It has not been run in full: no result is known.

Where the settings come from: those of configs/imagenet256.py:dit_b_2, without classes. The 100 k steps are ours: 366
passes over FFHQ's 70,000 pictures.
"""

from ml_collections import ConfigDict

from diffcurr.config import load


def get_config() -> ConfigDict:
    config = load("imagenet256:dit_b_2")
    config.dataset.classes = 0
    config.conditioning.name = "none"
    config.sampling.update(guidance=1.0, guidance_channels=0)
    config.steps = 100_000
    return config
