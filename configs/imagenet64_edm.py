"""ImageNet at 64x64, class-conditional, EDM, easy-to-hard: for a pod.

    python -m diffcurr.main --config=configs/imagenet64_edm.py --config.dataset.data_dir=IMAGENET

Data: IMAGENET is a folder with one folder a class (`train/n01440764/...`), or a zip in the layout of EDM's tool;
pictures are cropped and resized as they are read. It has not been run in full.

Where the settings come from: process, 2,500 M images in batches of 4096, learning rate 1e-4 after 10 M images of
warm-up, average with a half-life of 50 M images, dropout 0.10, no augmentation, no flips, and 256 steps of stochastic
Heun are Karras et al. 2022's for ImageNet-64 (appendix F, table 5). Their network there is ADM's U-Net, which diffcurr
does not have: this one is their DDPM++ as for FFHQ-64, a fifth of the size, so its figures do not stand beside
theirs. Clusters N = 20 and patience 200 are Kim et al. 2025's.
"""

from ml_collections import ConfigDict

from diffcurr.config import images_to_steps, outline, set_process


def get_config() -> ConfigDict:
    config = outline()
    set_process(config, "edm")
    config.process.sigma_data = 0.5
    config.dataset.update(name="imagenet64", augment=0.0, flip=False)
    config.class_conditional = True
    config.class_dropout = 0.0
    with config.unlocked():
        config.network.update(
            name="song_unet",
            model_channels=128,
            channel_mult=(1, 2, 2, 2),
            num_blocks=4,
            attn_resolutions=(16,),
            dropout=0.1,
        )
    config.batch_size = 4096
    config.steps = images_to_steps(2500e6, config.batch_size)
    config.optimizer.update(learning_rate=1e-4, warmup_steps=images_to_steps(10e6, config.batch_size))
    config.ema.update(decay=0.5 ** (config.batch_size / 50e6), rampup=0.05)
    config.sampling.update(
        samples=100,
        steps=256,
        clip=0.0,
        churn=(40.0, 0.05, 50.0, 1.003),
    )
    config.curriculum.update(clusters=20, patience=200)
    config.update(log_every=100, checkpoint_every=5000, sample_every=5000)
    return config
