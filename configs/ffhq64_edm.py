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

from diffcurr.config import images_to_steps, outline, set_process


def get_config() -> ConfigDict:
    config = outline()
    set_process(config, "edm")
    config.process.sigma_data = 0.5
    config.dataset.update(name="ffhq64", augment=0.15, flip=False)
    with config.unlocked():
        config.network.update(
            name="song_unet",
            model_channels=128,
            channel_mult=(1, 2, 2, 2),
            num_blocks=4,
            attn_resolutions=(16,),
            dropout=0.05,
        )
    config.batch_size = 256
    config.steps = images_to_steps(200e6, config.batch_size)
    config.optimizer.update(learning_rate=2e-4, warmup_steps=images_to_steps(10e6, config.batch_size))
    config.ema.update(decay=0.5 ** (config.batch_size / 0.5e6), rampup=0.05)
    config.sampling.update(samples=100, steps=40, clip=0.0)
    config.curriculum.update(clusters=20, patience=200)
    config.update(log_every=100, checkpoint_every=5000, sample_every=5000)
    return config
