"""Fashion-MNIST as 7x7 tokens of a small ViT-VQGAN, predicted one after another: class-conditional.

    python -m diffcurr.main --config=configs/fashion_mnist_vit_vqgan.py --config.dataset.data_dir=DATA_DIR
    python -m diffcurr.main --config=configs/fashion_mnist_tokens.py --config.dataset.data_dir=DATA_DIR

Data: TFDS `fashion_mnist`, see configs/fashion_mnist.py. The first command leaves
runs/fashion_mnist_vit_vqgan/tokenizer.safetensors, which the second reads.

Expected result: 3.95 bits per token of held-out pictures (3.87 to 4.02; 10 for 1,024 codes that are all as likely), and
a Fréchet distance of 38.6 (28.9 to 48.4) of 1,000 samples without guidance, where the tokenizer's reconstructions have
25 and fresh real images 23; one seed. Samples are of their class to the eye (docs/tokens.md). 16 minutes on two CPU
cores that other work shared.

Where the settings come from: the order of tokens, the class in front of them and the share of dropped activations are
Yu et al. 2022's; the sizes and the rate are ours.
"""

from ml_collections import ConfigDict

from diffcurr.config import load


def get_config() -> ConfigDict:
    config = load("fashion_mnist:ddpm")
    config.task.name = "tokens"
    config.codec = load("fashion_mnist_vit_vqgan").codec
    config.codec.weights = "runs/fashion_mnist_vit_vqgan/tokenizer.safetensors"
    config.network = {"name": "token_transformer", "hidden_size": 128, "mlp_size": 512, "depth": 4, "num_heads": 4}
    config.network.update(dropout=0.1, scan_unroll=4)
    config.steps = 3000
    config.optimizer.update(name="adamw", learning_rate=1e-3, warmup_steps=100, schedule="cosine", weight_decay=0.05)
    config.sampling.update(guidance=1.0, clip=0.0)
    config.ema.decay = 0.995
    config.update(checkpoint_every=500, sample_every=500, evaluate_every=1000)
    config.evaluation.metrics.frechet_distance = {"resamples": 50}
    return config
