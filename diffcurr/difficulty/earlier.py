"""What a run in a workdir has measured: the error of the noise in each of its clusters."""

from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float
from ml_collections import ConfigDict

from diffcurr import config as config_lib
from diffcurr import parts
from diffcurr.curriculum import Levels
from diffcurr.training.checkpoint import Checkpoints
from diffcurr.training.rows import METRICS, by_cluster, read_rows
from diffcurr.training.workdir import CONFIG_FILE, read_config

LAST = 0.1  # share of the run's steps over which its error is averaged
SAME = ("dataset", "codec", "conditioning")  # what the information about the data depends on


class Measured(NamedTuple):
    """The error of the noise in each cluster.

    Attributes:
      log_snr: mean of log-SNR over the cluster; falls.
      error: mean squared error of the noise, per pixel; NaN where it is not known.
    """

    log_snr: Float[np.ndarray, " cluster"]
    error: Float[np.ndarray, " cluster"]


def levels_of(workdir: epath.Path, config: ConfigDict) -> Levels | None:
    """The clusters of the run in a workdir, beside its noise levels; None if they are not known. All processes call it.

    They are those of its newest checkpoint, or else those that its config says, unless they follow from a curve.
    """
    process = parts.build("process", config.process)
    log_snr = process.log_snr(process.level_midpoints)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        edges = checkpoints.progress().get("edges")
    if edges is None:
        clustering = parts.build("curriculum.clustering", config.curriculum.clustering)
        if clustering.needs_curve:
            return None
        edges = clustering.edges(config.curriculum.clusters, log_snr)
    return Levels(np.asarray(edges, np.float64), log_snr, process.noise_weight)


def error_of(workdir: epath.Path, config: ConfigDict) -> Measured:
    """The error of a run in a workdir, over the last tenth of its steps, for a run with another config.

    Raises:
      ValueError: if the workdir has none, or it is of other data.
      UserError: if its config cannot be read.
    """
    if not (workdir / CONFIG_FILE).exists():
        raise ValueError(f"there is no run ({CONFIG_FILE}): name the workdir of one")
    before = read_config(workdir)
    changed = config_lib.differences(config_lib.to_json(before), config)
    other = [f"{key}: {old!r} there, {new!r} here" for key, (old, new) in changed.items() if key.split(".")[0] in SAME]
    if other:
        raise ValueError(f"its run was of other data ({', '.join(other)}): name one of the same, or give none")
    levels = levels_of(workdir, before)
    if levels is None:
        raise ValueError("the edges of its clusters are not known without a checkpoint: name a run that has one")
    rows = read_rows(workdir)
    number = len(levels.widths)
    last = [row for row in rows if row["step"] > (1 - LAST) * rows[-1]["step"]]
    error = by_cluster(last, "noise_error_by_cluster", number)
    if not np.any(np.isfinite(error)):
        raise ValueError(f"the last rows of {METRICS} have no noise_error_by_cluster of its {number} clusters")
    unseen = np.flatnonzero(~np.any(np.isfinite(error), axis=0)) + 1
    if len(unseen):
        raise ValueError(
            f"clusters {', '.join(map(str, unseen))} were not trained in the last rows of {METRICS}: name a run whose "
            f"last stage trains all of them"
        )
    return Measured(levels.centres, np.nanmean(error, axis=0))
