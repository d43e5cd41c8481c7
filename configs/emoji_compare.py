"""Emoji from their names, 32x32: easy-to-hard and its rivals against vanilla, on names that were not trained on.

    python -m diffcurr.main --config=configs/emoji_compare.py --config.dataset.data_dir=DATA_DIR --job=compare

Expected result: without guidance the information rule ends at 0.736 (0.685 to 0.797) of vanilla's distance above
copies, easy-to-hard at 0.912 (0.849 to 0.987), Min-SNR at 1.18 (1.12 to 1.26); the classifier puts 0.428, 0.322, 0.240
and, of vanilla, 0.305 of the samples into the category of their caption. With a guidance of 3 the distances are in
another order, and the categories in the same (docs/evidence/README.md, "From text"). Five minutes a run on one core.

The network and the length are cut down so that a run takes minutes on one CPU core; the rest is
configs/emoji32_text.py's. Samples are drawn for the captions of the 418 test pictures, whose names are not trained on,
and compared with these pictures: without guidance and with a scale of 3, on EDM's grid and evenly in log-SNR. Arms:
vanilla, easy-to-hard, the information rule with the aim that was best for samples of digits and Fashion-MNIST, and
Min-SNR.
"""

from ml_collections import ConfigDict

from diffcurr.config import load

ARMS = {
    "vanilla": {"curriculum": {"order": "none"}},
    "easy": {"curriculum": {"order": "easy_to_hard"}},
    "information_100": {"curriculum": {"name": "information", "aim": 1.0}},
    "min_snr": {"curriculum": {"order": "none"}, "process": {"weighting": "min_snr"}},
}


def get_config() -> ConfigDict:
    config = load("emoji32_text")
    config.network.update(hidden_size=96, depth=4, scan_unroll=4)
    config.steps, config.evaluate_every, config.checkpoint_every, config.sample_every = 4000, 1000, 1000, 0
    config.ema.decay = 0.995
    config.sampling.guidance = 1.0
    config.evaluation.training_samples, config.evaluation.samples = 500, 1000
    metrics = {"frechet_distance": {"resamples": 20}, "held_out_frechet_distance": {"resamples": 20}}
    config.evaluation.metrics = ConfigDict(metrics | {"kernel_distance": {}, "class_agreement": {}})
    config.compare.measure = "held_out_frechet_distance"
    config.compare.grids = ConfigDict(
        {
            "even_in_log_snr": {"spacing": "log_snr"},
            "guidance_3": {"guidance": 3.0},
            "guidance_3_even_in_log_snr": {"guidance": 3.0, "spacing": "log_snr"},
        }
    )
    config.compare.arms, config.compare.seeds = ConfigDict(ARMS), 5
    return config
