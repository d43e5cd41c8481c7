"""Does easy-to-hard help on digits? Seven ways to train against vanilla, ten seeds each.

    python -m diffcurr.main --config=configs/digits_compare.py --job=compare
    python -m diffcurr.main --config=configs/digits_compare.py --job=compare --shard=0/2  # and 1/2 elsewhere
    python -m diffcurr.main --config=configs/digits_compare.py:edm --job=compare          # or :flow: two arms

The data, network and optimizer of configs/digits.py, for 8,000 steps, without guidance. Every 800 steps 1,000 samples,
at the end as many samples as there are images, are compared with all 1,797.
"""

from ml_collections import ConfigDict

from configs import digits


def get_config(process: str = "ddpm") -> ConfigDict:
    """
    Args:
      process: `ddpm` with all arms; `edm` or `flow`, where the last two rivals, which are DDPM's, have no meaning.
    """
    config = digits.get_config(process)
    config.steps = 8000
    config.sample_every = 0
    config.checkpoint_every = 2000
    config.evaluate_every = 800
    config.sampling.guidance = 1.0
    config.evaluation.samples = 1797
    config.evaluation.resamples = 50  # intervals are over seeds here
    vanilla = {"curriculum": {"order": "none"}}
    arms = {"vanilla": vanilla, "easy_uniform": {"curriculum": {"clustering": "uniform"}}}
    if process == "ddpm":
        min_snr = {"process": {"weighting": "min_snr"}}
        arms |= {
            "easy_log_snr": {"curriculum": {"clustering": "log_snr"}},
            "easy_relative_entropy": {"curriculum": {"clustering": "relative_entropy"}},
            "hard_to_easy": {"curriculum": {"order": "hard_to_easy"}},
            "speed": vanilla | {"process": {"distribution": "speed", "weighting": "speed"}},
            "min_snr": vanilla | min_snr,
            "easy_log_snr_min_snr": {"curriculum": {"clustering": "log_snr"}} | min_snr,
        }
        config.compare.candidates = tuple(name for name in arms if name.startswith("easy"))
    config.compare.seeds = 10 if process == "ddpm" else 5
    config.compare.arms = ConfigDict(arms)
    return config
