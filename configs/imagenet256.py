r"""DiT and SiT on ImageNet 256x256 latents, class-conditional, easy-to-hard.

    python -m diffcurr.main --config=configs/imagenet256.py --job=encode --config.dataset=folder \
        --config.dataset.data_dir=PICTURES --config.dataset.size=256 --config.dataset.flip=True \
        --config.codec.weights=VAE --out=LATENTS
    python -m diffcurr.main --config=configs/imagenet256.py:dit_xl_2 --config.dataset.data_dir=LATENTS \
        --config.codec.weights=VAE

Data: PICTURES is a folder or zip of ImageNet's pictures, with their classes. VAE is the safetensors file of Stable
Diffusion's autoencoder. The first command writes the latents of the pictures and of their mirror images, 84 GB. None of
the presets has been run in full: no result is known.

Where the settings come from: Peebles & Xie 2023, section 4, and Ma et al. 2024, section 3 and their public code: AdamW
with a constant rate of 1e-4 and no decay, batch 256, 400 k steps in the comparisons of sizes (7 M for the best figures
of XL), average 0.9999, class dropout 0.1, neither gradients nor estimates clipped, 250 sampling steps. DiT learns the
variance, takes ancestral steps and guides three of four channels; SiT samples by the SDE with a last step of 0.04.
Latents are those of Stable Diffusion's autoencoder times 0.18215. Ours: bfloat16, recomputation, and the curriculum
(clusters N = 20, patience 200: Kim et al. 2025).
"""

from ml_collections import ConfigDict

from diffcurr.config import outline, variant_of

# Peebles & Xie 2023, table 1, all with patches of 2; and the cost of a step of 256 images, three times that of its
# forward pass.
SIZES = {
    "s_2": {"depth": 12, "hidden_size": 384, "num_heads": 6},  # 9.3 TFLOP a step (6.06 GMAC an image forwards)
    "b_2": {"depth": 12, "hidden_size": 768, "num_heads": 12},  # 35 TFLOP (23.01 GMAC)
    "l_2": {"depth": 24, "hidden_size": 1024, "num_heads": 16},  # 124 TFLOP (80.71 GMAC)
    "xl_2": {"depth": 28, "hidden_size": 1152, "num_heads": 16},  # 182 TFLOP (118.64 GMAC)
}
PROCESSES = {
    "dit": {
        "process": {"name": "ddpm", "learn_variance": True},
        "sampling": {"solver": {"name": "ancestral"}, "guidance_channels": 3},
    },
    "sit": {"process": {"name": "flow"}, "sampling": {"solver": {"name": "sde"}, "last_step": 0.04}},
}
PRESETS = {f"{kind}_{size}": (kind, size) for kind in PROCESSES for size in SIZES}


def get_config(preset: str = "dit_xl_2") -> ConfigDict:
    """
    Args:
      preset: `dit_s_2`, `dit_b_2`, `dit_l_2`, `dit_xl_2`, `sit_s_2`, `sit_b_2`, `sit_l_2` or `sit_xl_2`.
    """
    kind, size = variant_of(preset, PRESETS)
    config = outline()
    config.update(PROCESSES[kind])
    config.dataset.update(name="encoded", size=32, channels=4, classes=1000, flip=True)
    config.codec.name = "kl"
    config.conditioning.name = "class"
    config.dtype = "bfloat16"
    config.network.update(patch_size=2, mlp_ratio=4.0, remat="dots", **SIZES[size])
    config.steps, config.batch_size = 400_000, 256
    config.optimizer.update(name="adamw", clip_norm=0.0)
    config.sampling.update(steps=250, clip=0.0, guidance=1.5)
    config.update(log_every=100, checkpoint_every=10_000, sample_every=10_000)
    return config
