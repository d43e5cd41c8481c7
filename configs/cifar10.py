"""CIFAR-10, class-conditional, DDPM with DiT-S/2 on pixels, easy-to-hard: for one accelerator or a few.

    python -m diffcurr.main --config=configs/cifar10.py --config.dataset.data_dir=DATA_DIR

Data: TFDS `cifar10` (170 MB), fetched and prepared at the first run; without a network, put cifar-10-binary.tar.gz
into DATA_DIR/downloads/manual. A step is some 6.4 TFLOP (6 x 32.5 M parameters x 256 tokens x 128 images), so the
whole run is some 5.1 EFLOP: 14 hours at a sustained 100 TFLOP/s, and not for a CPU. It has not been run in full.

Where the settings come from: batch 128, 800 k steps, learning rate 2e-4 with 5 k steps of warm-up, gradient clipping
at 1, EMA 0.9999, flips and the linear schedule with epsilon-prediction are Ho et al. 2020's for CIFAR-10; the network
is Peebles & Xie 2023's DiT-S/2 (12 blocks of width 384, 6 heads), their class dropout 0.1; clusters N = 20 and
patience 200 are Kim et al. 2025's.
"""

from ml_collections import ConfigDict

from diffcurr.config import outline


def get_config() -> ConfigDict:
    config = outline()
    config.dataset.name = "cifar10"
    config.class_conditional = True
    config.dtype = "bfloat16"
    with config.unlocked():
        config.process.update(schedule="linear", prediction="epsilon", num_timesteps=1000)
        config.network.update(patch_size=2, hidden_size=384, depth=12, num_heads=6, mlp_ratio=4.0, remat="none")
        config.network.scan_unroll = 1
    config.steps = 800_000
    config.batch_size = 128
    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup_steps = 5000
    config.ema.decay = 0.9999
    config.curriculum.update(clusters=20, patience=200)
    config.sampling.update(samples=100, steps=250, solver="ancestral", guidance=1.5)
    config.log_every = 100
    config.checkpoint_every = 10_000
    config.sample_every = 10_000
    return config
