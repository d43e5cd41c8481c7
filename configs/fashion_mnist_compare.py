"""Does easy-to-hard help on Fashion-MNIST, class-conditional? Two of the digits' best arms against vanilla, two seeds.

    python -m diffcurr.main --config=configs/fashion_mnist_compare.py --config.dataset.data_dir=DATA_DIR --job=compare

Expected result: docs/evidence/fashion_mnist/report.md.

The data, network and optimizer of configs/fashion_mnist.py, for 2,400 steps, without guidance: after two and a half
passes over 60,000 images nothing can be memorised yet, as it is on digits. Every 400 steps 1,000 samples, at the end
5,000, are compared with all 60,000 images. A run took half an hour on one CPU core of a busy machine.
"""

from ml_collections import ConfigDict

from diffcurr.config import load


def get_config() -> ConfigDict:
    config = load("fashion_mnist:ddpm")
    config.steps = 2400
    config.sample_every = 0
    config.checkpoint_every = 400
    config.evaluate_every = 400
    config.sampling.update(steps=25, guidance=1.0)
    config.evaluation.samples = 5000
    config.evaluation.metrics.frechet_distance = {"resamples": 50}  # intervals are over seeds here
    config.compare.seeds = 2
    config.compare.arms = ConfigDict(
        {
            "vanilla": {"curriculum": {"order": "none"}},
            "easy_log_snr_min_snr": {"curriculum": {"clustering": "log_snr"}, "process": {"weighting": "min_snr"}},
            "easy_relative_entropy_speed": {
                "curriculum": {"clustering": "relative_entropy"},
                # As it was when the results were made.
                "process": {
                    "density": {"name": "speed", "about": "tau"},
                    "weighting": {"name": "speed", "over": "below"},
                },
            },
        }
    )
    return config
