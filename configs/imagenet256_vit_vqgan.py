r"""ViT-VQGAN on ImageNet 256x256: pictures to 32x32 tokens of 8,192 codes.

    python -m diffcurr.main --config=configs/imagenet256_vit_vqgan.py:b --config.dataset.data_dir=PICTURES \
        --config.task.perceptual.weights=VGG16

Variants: `:s`, `:b` and `:l`, with 51 M, 171 M and 656 M parameters, and 24 M of the discriminator. Data: PICTURES is a
folder or zip of ImageNet's pictures; VGG16 is a safetensors file of that network's convolutions (docs/tokens.md). Other
runs name the tokenizer.safetensors of the workdir as codec.weights.

Expected result: not run; no result is known. Planned (--job=plan): `:b` on v5e:8x8 with --config.mesh.fsdp=64 takes
5.4 of a chip's 16 GB, and 340 chip-hours at the chips' peak, so more in truth. 16 pictures a chip are too many: `:s` on
v5e:4x4 would take 16.7 GB. `:l` on v5e:16x16 takes 15.6 of 16 GB with one picture and the whole state on each chip
(compiled with the least effort).

Where the settings come from: Yu et al. 2022, as a public re-implementation has them: sizes, patches of 8, 8,192 codes
of 32, commitment 0.25, weights 1.0 (squared error), 0.1 (logit-Laplace), 0.1 (perceptual) and 0.1 (adversarial). From
memory and not verified: batch 256, 500 k steps, Adam's betas (0.9, 0.99), rate 1e-4, decay 1e-4. Ours: the rate stays
as it is after the warm-up, where the paper lowers it to 5e-5; the discriminator's channels and its start; averaged
weights; bfloat16 and recomputation.
"""

from ml_collections import ConfigDict

from diffcurr.config import outline, variant_of

S = {"depth": 8, "width": 512, "heads": 8, "mlp": 2048}
B = {"depth": 12, "width": 768, "heads": 12, "mlp": 3072}
L = {"depth": 32, "width": 1280, "heads": 16, "mlp": 5120}
SIZES = {"s": (S, S), "b": (B, B), "l": (S, L)}  # encoder, decoder


def get_config(size: str = "b") -> ConfigDict:
    """
    Args:
      size: `s`, `b` or `l`.
    """
    encoder, decoder = variant_of(size, SIZES)
    config = outline()
    config.task.update(name="tokenizer", logit_laplace=0.1, adversarial_start=10_000)
    config.task.perceptual = {"name": "vgg16"}
    config.dataset.update(name="folder", size=256, classes=0, flip=True)
    config.codec.update(name="vit_vqgan", logit_laplace=True, remat="dots", dtype="bfloat16")
    config.codec.update({f"encoder_{name}": number for name, number in encoder.items()})
    config.codec.update({f"decoder_{name}": number for name, number in decoder.items()})
    config.conditioning.name = "none"
    config.steps, config.batch_size = 500_000, 256
    config.optimizer.update(name="adamw", learning_rate=1e-4, warmup_steps=10_000, b2=0.99, weight_decay=1e-4)
    config.update(log_every=100, checkpoint_every=10_000, sample_every=10_000)
    return config
