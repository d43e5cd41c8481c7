"""Is it the order or the emphasis? Rules, rivals and controls against vanilla on Fashion-MNIST, five seeds each.

    python -m diffcurr.main --config=configs/fashion_mnist_study.py:edm --config.dataset.data_dir=DATA_DIR --job=compare
    ... configs/fashion_mnist_study.py:flow, :ddpm, :ddpm_v, :ddpm_x0      # the other processes and predictions
    ... configs/fashion_mnist_study.py:edm_pacing                          # patience and number of clusters, two seeds
    ... configs/fashion_mnist_study.py:edm_long                            # three times as long, two seeds

Expected result: docs/evidence/README.md.

Unconditional, 60,000 images for 3,000 steps of 64, which no arm can remember. Every 600 steps 500 samples, at the end
2,000 samples on two sampling grids, are compared with the 10,000 test images; so is the denoising error of 1,000 of
them. A run takes eight minutes on one CPU core.
"""

from ml_collections import ConfigDict

from diffcurr.config import load

VANILLA = {"curriculum": {"order": "none"}}
EASY = {"curriculum": {"order": "easy_to_hard"}}
MIN_SNR = {"process": {"weighting": "min_snr"}}
STAGES = {"name": "patience", "patience": 30}
CONTROLS = {
    "vanilla": VANILLA,
    "easy": EASY,
    "hard_to_easy": {"curriculum": {"order": "hard_to_easy"}},
}
RULES = {
    "information": {"curriculum": "information"},
    "progress": {"curriculum": "progress"},
}
ARMS = {
    "edm": CONTROLS | {"random": {"curriculum": {"order": "random"}}} | RULES | {"easy_min_snr": EASY | MIN_SNR},
    "ddpm": CONTROLS
    | RULES
    | {
        "speed": VANILLA | {"process": {"density": "speed", "weighting": "speed"}},
        "min_snr": VANILLA | MIN_SNR,
        "curriculum_sampling": {"curriculum": "schedule"},
        "easy_information": {"curriculum": {"name": "information", "stages": STAGES}},
        "easy_min_snr": EASY | MIN_SNR,
    },
}
ARMS["flow"] = ARMS["edm"] | {"easy_logit_normal": EASY | {"process": {"density": "logit_normal"}}}
PACING = {
    f"patience_{patience}_of_{clusters}": {"curriculum": {"patience": patience, "clusters": clusters}}
    for clusters, patiences in ((20, (3, 10, 30, 100)), (5, (30, 100)), (50, (3, 10)))
    for patience in patiences
}


def get_config(study: str = "edm") -> ConfigDict:
    """
    Args:
      study: `edm`, `flow` or `ddpm`, with all arms; `ddpm_v` or `ddpm_x0`, another prediction with the controls alone;
        any of these with `_pacing` or `_long` behind it.
    """
    process, *changes = study.split("_")
    config = load(f"fashion_mnist:{process}")
    config.conditioning.name = "none"
    config.network.update(hidden_size=64, depth=3, scan_unroll=3)
    config.steps = 3000
    config.sample_every = 0
    config.checkpoint_every = 600
    config.evaluate_every = 600
    config.log_every = 20
    config.curriculum.patience = 30
    config.sampling.guidance = 1.0
    config.evaluation.samples = 2000
    config.evaluation.training_samples = 500
    metrics = {"frechet_distance": {"resamples": 20}, "held_out_frechet_distance": {"resamples": 20}}
    config.evaluation.metrics = ConfigDict(metrics | {"kernel_distance": {"pairs": 2000}})
    config.compare.measure = "held_out_frechet_distance"
    config.compare.grids = ConfigDict({"even_in_log_snr": {"spacing": "log_snr"}})
    config.compare.seeds = 5
    arms = ARMS[process]
    for change in changes:
        if change in ("v", "x0"):
            config.process.prediction = {"name": change}
            arms = CONTROLS
        elif change == "pacing":
            arms = {"vanilla": VANILLA} | PACING
            config.compare.seeds = 2
        elif change == "long":
            arms = {"vanilla": VANILLA, "easy": EASY}
            config.steps, config.evaluate_every, config.checkpoint_every, config.compare.seeds = 9000, 1800, 1800, 2
        else:
            raise ValueError(f"study {study!r}: {change!r} is none of v, x0, pacing, long")
    config.compare.arms = ConfigDict(arms)
    return config
