"""Is it the order or the emphasis? Rules, rivals and controls against vanilla, on images that were not trained on.

    python -m diffcurr.main --config=configs/study.py:fashion_mnist_edm --config.dataset.data_dir=DATA_DIR --job=compare
    python -m diffcurr.main --config=configs/study.py:digits_ddpm --job=compare --shard=0/2     # and 1/2 elsewhere

After `digits_` or `fashion_mnist_` comes the process, `edm`, `flow` or `ddpm`; after that, if anything, one of

    _easy      vanilla and easy-to-hard alone
    _v, _x0    another prediction, with the controls alone (ddpm)
    _aim       the information rule with five aims, in percent, three seeds
    _pacing    patience and number of clusters, two seeds
    _long      three times as long, two seeds

The arm `exposure` is the control that separates order from emphasis: each cluster is drawn from the first step on, in
no order, as densely as the runs of `easy` have drawn it on average. It is there once these have been read:

    python configs/study.py digits_ddpm runs/study_digits_ddpm      # writes configs/study_exposures.json

Expected result: fashion_mnist_edm: easy-to-hard reaches vanilla's last distance in 0.45 (0.37 to 0.52) of the steps and
ends at 0.755 (0.676 to 0.836) of it, above copies; so does its exposure in no order, later and with a worse bound
(docs/evidence/README.md). fashion_mnist_edm_pacing: in both seeds the length of the curriculum mattered more
than the number of clusters. digits_edm_aim has run too; the others have not run to their end.

Fashion-MNIST: unconditional, 60,000 images for 3,000 steps of 64, which no arm can memorise. Every 600 steps 500
samples, at the end 2,000 samples on two sampling grids, are compared with the 10,000 test images; so is the denoising
error of 1,000 of them. A run takes six and a half minutes on one CPU core of two. Digits: with classes, 2,000
steps; a fifth of the images is held out. A run took three and a half minutes.
"""

import json
import pathlib
import sys

import numpy as np
from ml_collections import ConfigDict

from diffcurr.config import load

VANILLA = {"curriculum": {"order": "none"}}
EASY = {"curriculum": {"order": "easy_to_hard"}}
MIN_SNR = {"process": {"weighting": "min_snr"}}
CONTROLS = {
    "vanilla": VANILLA,
    "easy": EASY,
    "hard_to_easy": {"curriculum": {"order": "hard_to_easy"}},
}
AIMS = {f"information_{aim}": {"curriculum": {"name": "information", "aim": aim / 100}} for aim in (25, 50, 75, 100)}
RULES = {
    "information": {"curriculum": "information"},
    "information_100": AIMS["information_100"],  # of five aims the best for samples of digits
    "progress": {"curriculum": "progress"},
}
BY_INFORMATION = {"easy_by_information": {"curriculum": {"order": "easy_to_hard", "clustering": "information"}}}
CONTINUOUS = (
    CONTROLS
    | {"random": {"curriculum": {"order": "random"}}}
    | RULES
    | BY_INFORMATION
    | {"easy_min_snr": EASY | MIN_SNR}
)
EXPOSURES = pathlib.Path(__file__).with_name("study_exposures.json")  # study -> weight of each cluster
PATIENCE = {"digits": 10, "fashion_mnist": 30}
PACING = {
    f"patience_{patience}_of_{clusters}": {"curriculum": {"patience": patience, "clusters": clusters}}
    for clusters, patiences in ((20, (3, 10, 30, 100)), (5, (30, 100)), (50, (3, 10)))
    for patience in patiences
}


def arms(process: str, patience: int) -> dict:
    """Every arm of a process."""
    if process == "edm":
        return dict(CONTINUOUS)
    if process == "flow":
        return CONTINUOUS | {"easy_logit_normal": EASY | {"process": {"density": "logit_normal"}}}
    stages = {"name": "patience", "patience": patience}
    rivals = {
        "speed": VANILLA | {"process": {"density": "speed", "weighting": "speed"}},
        "min_snr": VANILLA | MIN_SNR,
        "curriculum_sampling": {"curriculum": "schedule"},
        "easy_information": {"curriculum": {"name": "information", "stages": stages}},
        "easy_min_snr": EASY | MIN_SNR,
    }
    return CONTROLS | RULES | BY_INFORMATION | rivals


def get_config(study: str = "fashion_mnist_edm") -> ConfigDict:
    """
    Args:
      study: see above.
    """
    data = "digits" if study.startswith("digits_") else "fashion_mnist"
    process, _, change = study.removeprefix(f"{data}_").partition("_")
    config = load(f"{data}:{process}")
    config.sample_every = 0
    config.log_every = 20
    config.curriculum.patience = PATIENCE[data]
    config.sampling.guidance = 1.0
    config.evaluation.training_samples = 500
    metrics = {"frechet_distance": {"resamples": 20}, "held_out_frechet_distance": {"resamples": 20}}
    config.evaluation.metrics = ConfigDict(metrics | {"kernel_distance": {"pairs": 2000}})
    config.compare.measure = "held_out_frechet_distance"
    config.compare.grids = ConfigDict({"even_in_log_snr": {"spacing": "log_snr"}})
    if data == "digits":
        config.dataset.held_out = 0.2
        config.steps, config.evaluate_every, config.checkpoint_every = 2000, 400, 2000
        config.evaluation.samples = 1000
        config.compare.seeds = 10
    else:
        config.conditioning.name = "none"
        config.network.update(hidden_size=64, depth=3, scan_unroll=3)
        config.steps, config.evaluate_every, config.checkpoint_every = 3000, 600, 600
        config.evaluation.samples = 2000
        config.compare.seeds = 5
    chosen = arms(process, PATIENCE[data])
    exposure = json.loads(EXPOSURES.read_text()).get(f"{data}_{process}") if EXPOSURES.exists() else None
    if exposure:
        chosen["exposure"] = {"curriculum": {"name": "hold", "density": {"name": "table", "at": tuple(exposure)}}}
    if change in ("v", "x0") and process == "ddpm":
        config.process.prediction = {"name": change}
        chosen = CONTROLS
    elif change == "aim":
        chosen, config.compare.seeds = {"vanilla": VANILLA, "information": RULES["information"]} | AIMS, 3
    elif change == "easy":
        chosen = {"vanilla": VANILLA, "easy": EASY}
    elif change == "pacing":
        chosen, config.compare.seeds = {"vanilla": VANILLA} | PACING, 2
    elif change == "long":
        chosen, config.compare.seeds = {"vanilla": VANILLA, "easy": EASY}, 2
        config.steps, config.evaluate_every = 3 * config.steps, 3 * config.evaluate_every
    elif change:
        raise ValueError(f"study {study!r}: {change!r} is none of easy, v, x0 (with ddpm), aim, pacing, long")
    config.compare.arms = ConfigDict(chosen)
    return config


def read_exposures(study: str, workdir: str) -> None:
    """Puts the mean exposure of each cluster in the runs of `easy` in a workdir of a study beside those of others."""
    results = [json.loads(path.read_text()) for path in sorted(pathlib.Path(workdir).glob("easy/*/result.json"))]
    known = json.loads(EXPOSURES.read_text()) if EXPOSURES.exists() else {}
    known[study] = np.mean([one["exposure"] for one in results], axis=0).round(4).tolist()
    EXPOSURES.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    read_exposures(*sys.argv[1:])
