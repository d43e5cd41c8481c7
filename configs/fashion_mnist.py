"""placeholder"""

from ml_collections import ConfigDict

from diffcurr.config import outline


def get_config() -> ConfigDict:
    config = outline()
    config.dataset.name = "fashion_mnist"
    config.class_conditional = True
    with config.unlocked():
        config.process.update(schedule="linear", prediction="epsilon", num_timesteps=1000)
        config.network.update(patch_size=4, hidden_size=128, depth=6, num_heads=4, mlp_ratio=4.0, learn_sigma=False)
        config.network.update(remat="none", scan_unroll=6)
    config.steps = 4000
    config.batch_size = 64
    config.optimizer.learning_rate = 1e-3
    config.ema.decay = 0.995
    config.curriculum.patience = 10
    config.sampling.update(samples=100, guidance=2.0)
    return config
