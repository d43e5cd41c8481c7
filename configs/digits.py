"""8x8 digits, easy-to-hard: the default, to try things on a laptop."""

from ml_collections import ConfigDict

from diffcurr.config import outline


def get_config() -> ConfigDict:
    config = outline()
    config.dataset.name = "digits"
    config.class_conditional = True
    with config.unlocked():
        config.process.update(schedule="linear", prediction="epsilon", num_timesteps=1000)
        config.network.update(patch_size=2, hidden_size=64, depth=3, num_heads=4, mlp_ratio=4.0, learn_sigma=False)
        config.network.update(remat="none", scan_unroll=3)
    config.steps = 4000
    config.batch_size = 64
    config.optimizer.learning_rate = 1e-3
    config.ema.decay = 0.995
    config.curriculum.patience = 10
    config.sampling.update(samples=100, guidance=2.0)
    return config
