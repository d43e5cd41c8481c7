"""CIFAR-10, unconditional, EDM with the DDPM++ U-Net, easy-to-hard: for one accelerator or a few.

    python -m diffcurr.main --config=configs/cifar10.py --config.dataset.data_dir=DATA_DIR

Data: TFDS `cifar10` (170 MB), fetched and prepared at the first run; without a network, put cifar-10-binary.tar.gz
into DATA_DIR/downloads/manual. Its classes are used with --config.conditioning=class. A step is some 62 TFLOP (40
GFLOP an image forwards, three times that with the gradient, 512 images), the whole run 24 EFLOP: 67 hours at a
sustained 100 TFLOP/s, and not for a CPU. It has not been run in full.

Where the settings come from: process, network, 200 M images in batches of 512, learning rate 1e-3 after 10 M images of
warm-up, average with a half-life of 0.5 M images, dropout 0.13, augmentation 0.12 and 18 steps of Heun are Karras et
al. 2022's for CIFAR-10 (appendix F, and the public code's defaults: the average's ramp-up, float32, no clipping, no
class dropout); clusters N = 20 and patience 200 are Kim et al. 2025's.
"""

from ml_collections import ConfigDict

from diffcurr.config import outline


def get_config() -> ConfigDict:
    config = outline()
    config.dataset.update(name="cifar10", augment=0.12, flip=False)  # the augmentations mirror
    config.process.name = "edm"
    config.network.update(
        name="song_unet",
        model_channels=128,
        channel_mult=(2, 2, 2),
        num_blocks=4,
        attn_resolutions=(16,),
        dropout=0.13,
    )
    config.batch_size = 512
    config.steps = 200_000_000 // config.batch_size
    # The loss is a sum over pixels, so gradients are not clipped.
    config.optimizer.update(learning_rate=1e-3, warmup_steps=10_000_000 // config.batch_size, clip_norm=0.0)
    config.ema.update(decay=0.5 ** (config.batch_size / 0.5e6), rampup=0.05)
    config.sampling.update(samples=100, solver={"name": "heun"}, steps=18, clip=0.0)
    config.curriculum.update(clusters=20, patience=200)
    config.update(log_every=100, checkpoint_every=5000, sample_every=5000)
    return config
