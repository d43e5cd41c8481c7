"""Does easy-to-hard help on digits? Seven ways to train against vanilla, ten seeds each.

    python -m diffcurr.main --config=configs/digits_compare.py --job=compare
    python -m diffcurr.main --config=configs/digits_compare.py --job=compare --shard=0/2  # and 1/2 elsewhere
    python -m diffcurr.main --config=configs/digits_compare.py:edm --job=compare          # or :flow: two arms
    python -m diffcurr.main --config=configs/digits_compare.py:ablation --job=compare     # patience, stratification
    python -m diffcurr.main --config=configs/digits_compare.py:cosine --job=compare       # DDPM with less pure noise
    python -m diffcurr.main --config=configs/digits_compare.py:v --job=compare            # DDPM that predicts v

The data, network and optimizer of configs/digits.py, for 8,000 steps, without guidance. Every 800 steps 1,000 samples,
at the end as many samples as there are images, are compared with all 1,797.
"""

from ml_collections import ConfigDict

from configs import digits


def get_config(study: str = "ddpm") -> ConfigDict:
    """
    Args:
      study: `ddpm` with all arms; `edm` or `flow`, where the last two rivals, which are DDPM's, have no meaning;
        `ablation`, of DDPM's curriculum, whose arms `vanilla` and `easy_log_snr` are those of `ddpm`; `cosine`
        or `v`, two arms of DDPM with that schedule or prediction.
    """
    process = "ddpm" if study in ("ablation", "cosine", "v") else study
    config = digits.get_config(process)
    config.curriculum.update(clustering="uniform", patience=10, stratified=False)  # what the arms begin with
    if process == "ddpm":
        config.process.weighting = "constant"
    if study == "cosine":
        config.process.schedule = "cosine"
    if study == "v":
        config.process.prediction = "v"
    config.steps = 8000
    config.sample_every = 0
    config.checkpoint_every = 2000
    config.evaluate_every = 800
    config.sampling.guidance = 1.0
    config.evaluation.samples = 1797
    config.evaluation.resamples = 50  # intervals are over seeds here
    vanilla = {"curriculum": {"order": "none"}}
    arms = {"vanilla": vanilla, "easy_uniform": {}}
    min_snr = {"process": {"weighting": "min_snr"}}
    if study == "ablation":
        easy = {"clustering": "log_snr"}
        arms = {
            "vanilla": vanilla,
            "vanilla_stratified": {"curriculum": {"order": "none", "stratified": True}},
            "easy_log_snr": {"curriculum": easy},
            "easy_log_snr_patience_50": {"curriculum": easy | {"patience": 50}},
            "easy_log_snr_stratified": {"curriculum": easy | {"stratified": True}},
            "easy_log_snr_stratified_min_snr": {"curriculum": easy | {"stratified": True}} | min_snr,
        }
    if study == "ddpm":
        arms |= {
            "easy_log_snr": {"curriculum": {"clustering": "log_snr"}},
            "easy_relative_entropy": {"curriculum": {"clustering": "relative_entropy"}},
            "hard_to_easy": {"curriculum": {"order": "hard_to_easy"}},
            "speed": vanilla | {"process": {"distribution": "speed", "weighting": "speed"}},
            "min_snr": vanilla | min_snr,
            "easy_log_snr_min_snr": {"curriculum": {"clustering": "log_snr"}} | min_snr,
        }
    config.compare.candidates = tuple(name for name in arms if name.startswith("easy"))
    config.compare.seeds = {"ddpm": 10, "ablation": 3}.get(study, 5)
    config.compare.arms = ConfigDict(arms)
    return config
