r"""DiT and SiT on ImageNet 512x512 latents, class-conditional, easy-to-hard.

    python -m diffcurr.main --config=configs/imagenet512.py --job=encode --config.dataset=folder \
        --config.dataset.data_dir=PICTURES --config.dataset.size=512 --config.dataset.flip=True \
        --config.codec.weights=VAE --out=LATENTS
    python -m diffcurr.main --config=configs/imagenet512.py:dit_xl_2 --config.dataset.data_dir=LATENTS \
        --config.codec.weights=VAE

Data: as for configs/imagenet256.py. The first command writes 336 GB. None of the presets has been run in full: no
result is known.

Where the settings come from: those of configs/imagenet256.py. Peebles & Xie 2023, section 5.1, train DiT-XL/2 at this
size with the same settings for 3 M steps, on latents of 64x64x4, which are 1,024 tokens: 524.6 GMAC an image forwards,
so a step of 256 images is some 806 TFLOP. The 400 k steps are ours.
"""

from ml_collections import ConfigDict

from diffcurr.config import load


def get_config(preset: str = "dit_xl_2") -> ConfigDict:
    """
    Args:
      preset: one of configs/imagenet256.py.
    """
    config = load(f"imagenet256:{preset}")
    config.dataset.size = 64
    return config
