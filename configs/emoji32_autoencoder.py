"""A small KL autoencoder for emoji: 32x32x3 pixels to 8x8x4 latents.

    python launch/emoji_from_npm.py DATA_DIR
    python -m diffcurr.main --config=configs/emoji32_autoencoder.py --config.dataset.data_dir=DATA_DIR

It leaves autoencoder.safetensors in its workdir; the file of the run below is shipped as `codec.weights="emoji"`, which
configs/emoji32_text.py encodes with. In samples/ each picture stands before its reconstruction.

Expected result: a peak signal-to-noise ratio of 25.6 dB of 1,000 reconstructions, whose Fréchet distance is 61 (37 to
85), where fresh real images have 114: pictures of other names differ more. 25 minutes on two busy CPU cores.

Where the settings come from: those of configs/fashion_mnist_autoencoder.py, for colours, with twice the
channels at the lowest resolution and twice the steps.
"""

from ml_collections import ConfigDict

from diffcurr.config import outline


def get_config() -> ConfigDict:
    config = outline()
    config.task.name = "autoencoder"
    config.dataset.name = "emoji"
    config.codec.update(name="kl", in_channels=3, block_out_channels=(16, 32, 64), layers_per_block=1)
    config.codec.update(latent_channels=4, norm_num_groups=8, scale=1.0)
    config.steps, config.batch_size = 6000, 32
    config.optimizer.update(learning_rate=1e-3, schedule="cosine", warmup_steps=100, clip_norm=0.0)
    config.ema.decay = 0.995
    config.update(log_every=50, checkpoint_every=500, sample_every=1000, evaluate_every=2000)
    config.evaluation.update(samples=1000, metrics=ConfigDict({"frechet_distance": {"resamples": 50}}))
    return config
