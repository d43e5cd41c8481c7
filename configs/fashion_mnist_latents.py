r"""Fashion-MNIST in the latents of a small autoencoder, class-conditional: latent diffusion on a laptop.

    python -m diffcurr.main --config=configs/fashion_mnist_autoencoder.py --config.dataset.data_dir=DATA_DIR
    python -m diffcurr.main --config=configs/fashion_mnist_latents.py --job=encode \
        --config.dataset=fashion_mnist --config.dataset.data_dir=DATA_DIR --out=LATENTS
    python -m diffcurr.main --config=configs/fashion_mnist_latents.py --config.dataset.data_dir=LATENTS

With `:vit_vqgan` after the config's name, and configs/fashion_mnist_vit_vqgan.py in the first command, the latents are
the vectors of a ViT-VQGAN before its bottleneck, 7x7x8.

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

from diffcurr.config import load, variant_of

CODECS = {  # the config of stage 1, the file that it leaves in its workdir, channels of the latents
    "kl": ("fashion_mnist_autoencoder", "autoencoder.safetensors", 4),
    "vit_vqgan": ("fashion_mnist_vit_vqgan", "tokenizer.safetensors", 8),
}


def get_config(codec: str = "kl") -> ConfigDict:
    """
    Args:
      codec: `kl` or `vit_vqgan`.
    """
    trained_by, file, channels = variant_of(codec, CODECS)
    config = load("fashion_mnist:edm")
    config.codec = load(trained_by).codec
    config.codec.weights = f"runs/{trained_by}/{file}"
    config.dataset.update(name="encoded", size=7, channels=channels, classes=10)
    config.process.prediction.sigma_data = 1.0
    config.network.patch_size = 1
    config.sampling.clip = 0.0
    return config
