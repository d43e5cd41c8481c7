"""A small KL autoencoder for Fashion-MNIST: 28x28 pixels to 7x7x4 latents.

    python -m diffcurr.main --config=configs/fashion_mnist_autoencoder.py --config.dataset.data_dir=DATA_DIR

Data: TFDS `fashion_mnist`, see configs/fashion_mnist.py. It leaves autoencoder.safetensors in its workdir, which
configs/fashion_mnist_latents.py encodes with. In samples/ each picture stands before its reconstruction.

Expected result: a peak signal-to-noise ratio of 23.8 dB, and a Fréchet distance of 31 of 1,000 reconstructions, where
fresh real images have 23. 36 minutes on two busy CPU cores.

Where the settings come from: the layout, the L1 loss and the small weight of the divergence are Rombach et al. 2022's,
without their perceptual and adversarial terms; the sizes and the rate are ours.
"""

from ml_collections import ConfigDict

from diffcurr.config import load


def get_config() -> ConfigDict:
    config = load("fashion_mnist:ddpm")
    config.task.name = "autoencoder"
    config.codec.update(name="kl", in_channels=1, block_out_channels=(16, 32, 32), layers_per_block=1)
    config.codec.update(latent_channels=4, norm_num_groups=8, scale=1.0)
    config.conditioning.name = "none"
    config.sampling.guidance = 1.0
    config.steps = 3000
    config.optimizer.update(learning_rate=1e-3, schedule="cosine")
    config.ema.decay = 0.995
    config.update(checkpoint_every=500, sample_every=500, evaluate_every=1000)
    config.evaluation.metrics.frechet_distance = {"resamples": 50}
    return config
