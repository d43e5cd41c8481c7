"""A small ViT-VQGAN for Fashion-MNIST: 28x28 pixels to 7x7 tokens of 1,024 codes.

    python -m diffcurr.main --config=configs/fashion_mnist_vit_vqgan.py --config.dataset.data_dir=DATA_DIR

Data: TFDS `fashion_mnist`, see configs/fashion_mnist.py. It leaves tokenizer.safetensors in its workdir, which other
runs name as codec.weights. In samples/ each picture stands before its reconstruction.

Expected result, of the 10,000 test pictures: a peak signal-to-noise ratio of 22.5 dB; a Fréchet distance of the
reconstructions of 4.6, where other real pictures have 4.5; all 1,024 codes are used, with a perplexity of 573
(docs/tokens.md has the picture; one seed). The run's own evaluation, of 1,000 training pictures, says 22.5 dB and 25 at
step 3,000, where fresh real images have 23. 45 minutes on one busy CPU core, of which a step takes 0.4 s.

Where the settings come from: losses and their weights, the codebook with vectors of length 1 and the commitment are
Yu et al. 2022's, without logit-Laplace; the sizes, the rate, the smaller codebook and the codes that are brought back
are ours.
"""

from ml_collections import ConfigDict

from diffcurr.config import load

SIZES = {"depth": 3, "width": 96, "heads": 4, "mlp": 256}


def get_config() -> ConfigDict:
    config = load("fashion_mnist:ddpm")
    config.task.update(name="tokenizer", adversarial_start=1500, discriminator_channels=16, restart_after=50)
    config.codec.update(name="vit_vqgan", in_channels=1, patch_size=4, scan_unroll=SIZES["depth"])
    config.codec.update({f"{tower}_{name}": size for tower in ("encoder", "decoder") for name, size in SIZES.items()})
    config.codec.quantizer = {"name": "codebook", "size": 1024, "code_dim": 8}
    config.conditioning.name = "none"
    config.sampling.guidance = 1.0
    config.steps = 3500
    config.optimizer.update(learning_rate=1e-3, warmup_steps=100, schedule="cosine", b2=0.99)
    config.ema.decay = 0.995
    config.update(checkpoint_every=500, sample_every=500, evaluate_every=700)
    config.evaluation.metrics.frechet_distance = {"resamples": 50}
    return config
