"""Does easy-to-hard help on digits? Nine ways to train against vanilla, ten seeds each.

    python -m diffcurr.main --config=configs/digits_compare.py --job=compare
    python -m diffcurr.main --config=configs/digits_compare.py --job=compare --shard=0/2  # and 1/2 elsewhere
    python -m diffcurr.main --config=configs/digits_compare.py:edm --job=compare          # or :flow: two arms
    python -m diffcurr.main --config=configs/digits_compare.py:v --job=compare            # or another of VARIANTS

Expected result: docs/evidence/digits/report.md.

The data, network and optimizer of configs/digits.py, for 8,000 steps, without guidance. Every 800 steps 1,000 samples,
at the end as many samples as there are images, are compared with all 1,797.
"""

from ml_collections import ConfigDict

from diffcurr.config import load

# What decides whether easy-to-hard is faster under DDPM? Each is vanilla against easy_uniform, with this for both.
VARIANTS = {
    "cosine": {"process": {"schedule": "cosine"}},
    "v": {"process": {"prediction": {"name": "v"}}},
    "patience": {"steps": 4000, "curriculum": {"patience": 50}},
    "stratified": {"steps": 4000, "curriculum": {"stratified": True}},
    "learning_rate": {"steps": 4000, "optimizer": {"learning_rate": 3e-4}},
    "ema": {"steps": 4000, "ema": {"decay": 0.98}},
}


def get_config(study: str = "ddpm") -> ConfigDict:
    """
    Args:
      study: `ddpm` with all arms; `edm`, `flow` or `ddpm_speed` with vanilla and easy_uniform alone, since the rivals'
        weights and draws are plain DDPM's; or one of `VARIANTS`.
    """
    config = load("digits:ddpm" if study in VARIANTS else f"digits:{study}")
    config.steps = 8000
    config.sample_every = 0
    config.checkpoint_every = 2000
    config.evaluate_every = 800
    config.sampling.guidance = 1.0
    config.evaluation.samples = 1797
    config.evaluation.metrics.frechet_distance = {"resamples": 50}  # intervals are over seeds here
    config.update(VARIANTS.get(study, {}))
    vanilla = {"curriculum": {"order": "none"}}
    arms = {"vanilla": vanilla, "easy_uniform": {"curriculum": {"clustering": "uniform"}}}
    if study == "ddpm":
        min_snr = {"process": {"weighting": "min_snr"}}
        # As it was when the results were made; SpeeD as published is compared in configs/study.py.
        density, weighting = {"name": "speed", "about": "tau"}, {"name": "speed", "over": "below"}
        speed = {"process": {"density": density, "weighting": weighting}}
        log_snr = {"curriculum": {"clustering": "log_snr"}}
        relative_entropy = {"curriculum": {"clustering": "relative_entropy"}}
        arms |= {
            "easy_log_snr": log_snr,
            "easy_relative_entropy": relative_entropy,
            "hard_to_easy": {"curriculum": {"order": "hard_to_easy"}},
            "speed": vanilla | speed,
            "min_snr": vanilla | min_snr,
            "easy_log_snr_min_snr": log_snr | min_snr,
            "easy_relative_entropy_min_snr": relative_entropy | min_snr,
            "easy_relative_entropy_speed": relative_entropy | speed,
        }
    config.compare.candidates = tuple(name for name in arms if name.startswith("easy"))
    config.compare.seeds = 10 if study == "ddpm" else 5
    config.compare.arms = ConfigDict(arms)
    return config
