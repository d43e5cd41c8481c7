r"""Fashion-MNIST in the latents of a small autoencoder, class-conditional: latent diffusion on a laptop.

    python -m diffcurr.main --config=configs/fashion_mnist_autoencoder.py --config.dataset.data_dir=DATA_DIR
    python -m diffcurr.main --config=configs/fashion_mnist_latents.py --job=encode \
        --config.dataset=fashion_mnist --config.dataset.data_dir=DATA_DIR --out=LATENTS
    python -m diffcurr.main --config=configs/fashion_mnist_latents.py --config.dataset.data_dir=LATENTS

The first command leaves runs/fashion_mnist_autoencoder/autoencoder.safetensors, which the others read. The second says
the mean and standard deviation of each channel of the latents. With these as --config.codec.mean and --config.codec.std
of both commands, latents are encoded once more, with a standard deviation of 1, which is what this config expects.

Expected result: 2,000 samples after 2,000 steps, without guidance, have a Fréchet distance of 101, where the same
network on pixels has 238 (docs/evidence/README.md, "In latents"; one seed). A minute to encode, and 20 minutes to
train beside the run on pixels, on two CPU cores.

Where the settings come from: those of configs/fashion_mnist.py:edm, with patches of 1 on 7x7 latents, as many tokens as
there.
"""

from ml_collections import ConfigDict

from diffcurr.config import load


def get_config() -> ConfigDict:
    config = load("fashion_mnist:edm")
    config.codec = load("fashion_mnist_autoencoder").codec
    config.codec.weights = "runs/fashion_mnist_autoencoder/autoencoder.safetensors"
    config.dataset.update(name="encoded", size=7, channels=4, classes=10)
    config.process.prediction.sigma_data = 1.0
    config.network.patch_size = 1
    config.sampling.clip = 0.0
    return config
