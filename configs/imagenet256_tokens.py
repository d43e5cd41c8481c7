r"""VIM on ImageNet 256x256: 32x32 tokens of ViT-VQGAN, predicted one after another, class-conditional.

    python -m diffcurr.main --config=configs/imagenet256_vit_vqgan.py:b --config.dataset.data_dir=PICTURES \
        --config.task.perceptual.weights=VGG16
    python -m diffcurr.main --config=configs/imagenet256_tokens.py:l --config.dataset.data_dir=PICTURES \
        --config.codec.weights=runs/imagenet256_vit_vqgan_b/tokenizer.safetensors

Variants: `:b` and `:l`, with 708 M and 1,851 M parameters. Data: PICTURES is a folder or zip of ImageNet's pictures,
with their classes. Each step encodes its pictures by the codec of the first command.

Expected result: not run; no result is known. Hours: `--job=plan --topology=v5e:16x16` says of `:l` that a step takes at
least 0.30 s, so the run at least 38 hours, in 3.1 GB of a chip's memory.

Where the settings come from: the sizes, the class in front of the tokens and the dropout of 0.1 are Yu et al. 2022's.
From memory and not verified: batch 1,024, 450 k steps, Adafactor with first moments' decay 0.9, rate 4.5e-4 after 5,000
steps of warm-up, decay 0.045. Ours: the second moments' decay is Adafactor's own, where the paper has 0.96; the rate
falls by a cosine, where theirs falls exponentially from 80 k steps; class dropout for guidance; bfloat16 and
recomputation; the parameters over all chips.
"""

from ml_collections import ConfigDict

from diffcurr.config import load, outline, variant_of

SIZES = {
    "b": {"depth": 24, "hidden_size": 1536, "mlp_size": 6144, "num_heads": 16},
    "l": {"depth": 36, "hidden_size": 2048, "mlp_size": 8192, "num_heads": 32},
}


def get_config(size: str = "b") -> ConfigDict:
    """
    Args:
      size: `b` or `l`.
    """
    settings = variant_of(size, SIZES)
    config = outline()
    config.task.name = "tokens"
    config.dataset.update(name="folder", size=256, classes=1000, flip=True)
    config.codec = load("imagenet256_vit_vqgan:b").codec
    config.conditioning.name = "class"
    config.dtype = "bfloat16"
    config.network = {"name": "token_transformer", "dropout": 0.1, "remat": "full", **settings}
    config.steps, config.batch_size = 450_000, 1024
    config.optimizer.update(name="adafactor", learning_rate=4.5e-4, warmup_steps=5000, schedule="cosine")
    config.optimizer.weight_decay = 0.045
    config.mesh.update(data=1, fsdp=-1)
    config.sampling.clip = 0.0
    config.update(log_every=100, checkpoint_every=10_000, sample_every=10_000)
    return config
