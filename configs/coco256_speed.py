r"""Text to image on MS-COCO 256x256 with the network and settings of SpeeD's comparison: PixArt-XL/2 and CLIP ViT-B/32.

    python -m diffcurr.main --config=configs/coco256_speed.py --job=encode --config.dataset=coco_captions \
        --config.dataset.data_dir=TRAIN2017 --config.dataset.annotations=captions_train2017.json \
        --config.codec.weights=VAE --out=LATENTS
    python -m diffcurr.main --config=configs/coco256_speed.py --config.dataset.data_dir=LATENTS \
        --config.codec.weights=VAE --config.conditioning.encoder.folder=CLIP

Data: TRAIN2017 is the folder or zip of COCO's training pictures of 2017, VAE the safetensors file of Stable Diffusion's
autoencoder, CLIP the folder of clip-vit-base-patch32. It has not been run: no result is known. Variants: `speed`, with
SpeeD's draws and weights and no curriculum; `pixart`, the network with the states of T5 v1.1 XXL that PixArt-alpha was
published with, of which --config.conditioning.encoder.folder is the folder.

Where the settings come from: Wang et al. 2025 (SpeeD) and its public config for MS-COCO: a constant rate of 1e-4,
guidance 1.5, 250 sampling steps; PixArt-alpha's network (Chen et al. 2023). Of `pixart`: 120 tokens, a rate of 2e-5 and
a decay of 0.03 are Chen et al.'s. Ours: bfloat16, recomputation, and the curriculum (Kim et al. 2025).
"""

from ml_collections import ConfigDict

from diffcurr.config import load, variant_of

CLIP = {"name": "clip", "width": 512}
VARIANTS = {
    "easy": {"conditioning": {"encoder": CLIP}},
    "speed": {
        "conditioning": {"encoder": CLIP},
        "process": {"density": {"name": "speed"}, "weighting": {"name": "speed"}},
        "curriculum": {"order": "none"},
    },
    "pixart": {
        "conditioning": {"encoder": {"name": "t5", "width": 4096, "length": 120}},
        "optimizer": {"learning_rate": 2e-5, "weight_decay": 0.03},
    },
}


def get_config(variant: str = "easy") -> ConfigDict:
    """
    Args:
      variant: `easy`, `speed` or `pixart`.
    """
    config = load("imagenet256:dit_xl_2")
    config.dataset.update(classes=0, captions="stored", flip=False)
    config.conditioning.update(name="text", encoder={}, dropout=0.1)
    config.network.shared_modulation = True
    config.update(variant_of(variant, VARIANTS))
    return config
