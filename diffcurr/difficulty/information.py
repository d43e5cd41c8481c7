"""How much each noise level tells about a config's data: the squared error of the noise that a network makes there.

By the I-MMSE relation half of it is the information per log-SNR and pixel, whatever the process. A network that was
trained for a few steps only has a larger error than the best one, most of all where there is little noise.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain
import numpy as np
from etils import epath
from jaxtyping import Float
from ml_collections import ConfigDict

from diffcurr import config as config_lib
from diffcurr.curriculum import Levels, clusters
from diffcurr.curriculum.clusters import Clustering
from diffcurr.data.sources import Source
from diffcurr.difficulty import analyzed, earlier
from diffcurr.difficulty.earlier import Measured
from diffcurr.difficulty.kept import Curve, NewCountdown, Say, from_first
from diffcurr.errors import concerning
from diffcurr.training import distributed
from diffcurr.training.loop import Loop
from diffcurr.training.window import CurriculumWindow, Window

CLUSTERS = 100  # of the probe; an example in each of them at every other step of batches of 64


class NoiseError(NamedTuple):
    """The curve.

    Attributes:
      value: mean squared error of the noise, per pixel, at each of the process's equally likely levels.
    """

    value: Float[np.ndarray, " level"]


@runtime_checkable
class Experiment(analyzed.Experiment, Protocol):
    """The part of an experiment that the curve depends on."""

    @property
    def clustering(self) -> Clustering: ...

    def require_denoiser(self, what: str) -> None: ...

    def batches(self, source: Source) -> grain.MapDataset: ...
    def read_ahead(self, batches: grain.MapDataset) -> grain.DatasetIterator: ...

    def without_curriculum(self, edges: Float[np.ndarray, " edge"]) -> Any:
        """The experiment that counts on these clusters and draws all of them as its process does."""


class InformationCurve(Curve):
    """The error of the noise, measured by a probe, or by the earlier run that the clustering names."""

    file = "information.npz"
    what = "error of the noise"
    kind = NoiseError

    def length(self, experiment: analyzed.Experiment) -> int:
        return experiment.process.num_levels

    def measured_on(self, config: ConfigDict) -> dict[str, Any]:
        # All that training depends on; of the curriculum, how u is drawn and what the probe is.
        whole = config_lib.without(config_lib.to_json(config), (*config_lib.FREE_KEYS, "analysis"))
        kept = ("curriculum.clustering", "curriculum.stratified")
        return {key: value for key, value in whole.items() if not key.startswith("curriculum.") or key.startswith(kept)}

    def measure(self, experiment: Experiment, say: Say, new_countdown: NewCountdown) -> NoiseError:
        """
        Raises:
          UserError: if no denoising network is trained, or the earlier run cannot be used.
          FloatingPointError: if a loss of the probe is not finite.
        """
        experiment.require_denoiser("clusters by information need")
        settings: Any = experiment.clustering
        if settings.run:
            with concerning(f"curriculum.clustering: run = {settings.run}"):
                measured = earlier.error_of(epath.Path(settings.run).expanduser(), experiment.config)
        else:
            measured = probe(experiment, settings.probe_steps, new_countdown)
        log_snr = experiment.process.log_snr(experiment.process.level_midpoints)
        return from_first(NoiseError(at_levels(log_snr, measured)))


def probe(experiment: Experiment, steps: int, new_countdown: NewCountdown) -> Measured:
    """Trains the config's network from its first parameters, without a curriculum, and forgets it.

    The steps are those of a run without a curriculum, to the bit. The error is the mean over the second half.

    Raises:
      FloatingPointError: if a loss is not finite.
    """
    process, config = experiment.process, experiment.config
    edges = clusters.uniform(min(CLUSTERS, process.num_levels))
    plain = experiment.without_curriculum(edges)
    dataset = experiment.batches(distributed.primary_first(experiment.dataset.opened))
    batches = experiment.read_ahead(dataset)

    def window(first_step: int, before: Sequence[Any]) -> Window:
        return CurriculumWindow(first_step, before, batch_size=config.batch_size, num_stages=1)

    state, compiled = plain.init_state(), plain.compiled
    loop = Loop(compiled.step, state, compiled.initial_carry(state), batches, compiled.batch_sharding, window)
    countdown = new_countdown("probe", "steps")
    try:
        for step in range(1, steps + 1):
            loop.advance()
            if step == steps // 2:
                loop.close_window()
            countdown(step, steps)
        found = loop.close_rest()
    except FloatingPointError as error:
        raise FloatingPointError(f"{error} of the probe from which the clusters follow") from error
    assert found is not None
    log_snr = process.log_snr(process.level_midpoints)
    return Measured(Levels(edges, log_snr, process.noise_weight).centres, found["noise_error_by_cluster"])


def at_levels(log_snr: Float[np.ndarray, " level"], measured: Measured) -> Float[np.ndarray, " level"]:
    """The error at a process's levels, linear in log-SNR between the clusters in which it is known.

    With more noise than the last of them it is proportional to the SNR: there x tells nothing about the data, so the
    error of x0 no longer changes. With less noise than the first it is constant.

    Args:
      log_snr: log-SNR of the levels, falling.
    """
    known = np.isfinite(measured.error)
    centres, error = measured.log_snr[known], measured.error[known]
    within = np.interp(-log_snr, -centres, error)
    return within * np.exp(np.minimum(log_snr - centres[-1], 0.0))


KEPT = InformationCurve()
