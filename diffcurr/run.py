"""A run that was trained, opened to sample and to study: `run = diffcurr.load_run("runs/digits")`."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from diffcurr import config as config_lib
from diffcurr import experiment as experiment_lib
from diffcurr.errors import UserError
from diffcurr.experiment import Experiment
from diffcurr.metrics.evaluation import Measured
from diffcurr.reporting.progress import Line
from diffcurr.sampling.drawing import Sampler, Sampling
from diffcurr.training import averages, distributed
from diffcurr.training.checkpoint import Checkpoints, Restored
from diffcurr.training.state import TrainState
from diffcurr.training.workdir import check_config, check_told, read_config


@dataclasses.dataclass(frozen=True)
class Run:
    """A network and everything it was trained with.

    Attributes:
      experiment: the parts of its config.
      state: state of its latest checkpoint.
      ema: whether `params` are the averaged weights.
    """

    experiment: Experiment
    state: TrainState
    ema: bool = True

    @property
    def config(self) -> ConfigDict:
        """The completed config."""
        return self.experiment.config

    @property
    def step(self) -> int:
        """Optimizer steps that were taken."""
        return int(self.state.step)

    @property
    def params(self) -> Any:
        """The parameters, a nested dict."""
        return self.state.ema if self.ema else self.state.params

    def sample(
        self,
        number: int | None = None,
        *,
        classes: int | Sequence[int] | None = None,
        prompts: str | Sequence[str] | None = None,
        negative_prompt: str = "",
        seed: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Float[np.ndarray, "number height width channel"]:
        """Samples in [-1, 1], decoded.

        Args:
          number: one for each class or prompt that is given if None.
          classes: taken in turn; all of them if None.
          prompts: texts, taken in turn, for a network that is told one; captions of the data set if None.
          negative_prompt: what guidance leads away from, where not from the empty text.
          seed: the config's if None.
          steps, guidance, temperature, top_k, top_p: settings of `sampling`; the config's if None.

        Raises:
          ValueError: for classes, prompts or settings that this run does not have.
        """
        wanted = classes if prompts is None else prompts
        if classes is not None and prompts is not None:
            raise ValueError(f"classes = {classes} and prompts = {prompts!r:.100}: give one of them")
        if number is None:
            if wanted is None:
                raise ValueError("number is missing: give it, or prompts, or classes")
            number = 1 if isinstance(wanted, int | str) else len(wanted)
        given = {"steps": steps, "guidance": guidance, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        settings = dataclasses.replace(self.experiment.sampling, **changes)
        task = self.experiment.require_sampled()
        if steps is not None and not task.denoises:
            raise ValueError(f"steps = {steps}: tokens are drawn one after another; leave it out")
        task.check_sampling(self.experiment, settings)
        condition = self.experiment.conditioning.chosen(number, wanted)
        sampler = self._sampler(settings, negative_prompt)
        return sampler.draw(self.params, self.experiment.sample_key(seed), condition, number)

    def _sampler(self, settings: Sampling, negative_prompt: str) -> Sampler:
        """One that is compiled once for all calls with the same settings."""
        if (settings, negative_prompt) not in self._samplers:
            self._samplers[settings, negative_prompt] = self.experiment.sampler_of(settings, negative_prompt)
        return self._samplers[settings, negative_prompt]

    @functools.cached_property
    def _samplers(self) -> dict[tuple[Sampling, str], Sampler]:
        return {}

    def denoise(
        self,
        x: Float[Array | np.ndarray, "batch *shape"],
        u: Float[Array | np.ndarray, "*batch"] | float,
        condition: Mapping[str, Any] | None = None,
    ) -> Float[Array, "batch *shape"]:
        """The estimate of x0 from noisy x at quantiles u.

        Args:
          u: one for all, or one for each.
          condition: {"label": int [B]}, what `experiment.conditioning.chosen` gives for prompts, or another that the
            network was trained with; none is said if None.

        Raises:
          UserError: if something else than a denoising network was trained.
        """
        self.experiment.require_denoiser("estimates are those of")
        conditioning, batch = self.experiment.conditioning, jnp.asarray(x)
        if condition is None:
            if not conditioning.may_be_nothing:
                raise UserError(
                    "condition is missing: conditioning.dropout = 0.0, so the network was told something of every x; "
                    "give what experiment.conditioning.chosen gives"
                )
            condition = conditioning.nothing(len(batch))
        told = {name: jnp.asarray(values) for name, values in condition.items()}
        return self._denoise(self.params, batch, jnp.broadcast_to(jnp.asarray(u, jnp.float32), len(batch)), told)

    @functools.cached_property
    def _denoise(self) -> Any:
        graph, process = self.experiment.abstract_network[0], self.experiment.process

        def denoise(params: Any, x: Array, u: Array, condition: dict[str, Any]) -> Array:
            network = nnx.merge(graph, params)
            return process.denoise(lambda x, t: network(x, t, condition), x, jnp.asarray(process.time(u))).x0

        return jax.jit(denoise)

    def evaluate(self, number: int | None = None, *, features: epath.PathLike | None = None) -> Measured:
        """What is measured of `number` samples (`evaluation.samples` if None) beside the data.

        Args:
          features: the file of a classifier's or the Inception network's weights; `evaluation.features` if None.

        Raises:
          UserError: if they are too few, or there are no features for these images.
        """
        experiment = self.experiment
        if features is not None:
            settings = {"evaluation": {"features": os.fspath(features)}}
            experiment = dataclasses.replace(experiment, config=config_lib.changed(self.config, settings))
        return experiment.evaluator(self.config.evaluation.samples if number is None else number)(self.params)[1]


def load_run(workdir: epath.PathLike, *, ema: bool = True, ema_width: float | None = None) -> Run:
    """The run in a workdir, at its latest checkpoint, on one device.

    Args:
      ema: take the averaged weights.
      ema_width: relative width of the average, made from those that a run with `ema.widths` has stored (Karras et al.
        2024); the average of `ema.decay` if None.

    Raises:
      UserError: if there is none, or what it has stored does not make that width.
    """
    config = read_config(workdir)
    alone = config_lib.changed(config, {"mesh": {"data": 1, "fsdp": 1, "tensor": 1}})  # whatever it was trained on
    run = open_run(alone, workdir, ema=ema, devices=jax.devices()[:1])
    run = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, config=config))
    if ema_width is None:
        return run
    if not ema:
        raise UserError(f"ema_width = {ema_width}: is of an average; leave out ema=False")
    average = averages.of_width(epath.Path(workdir), run.state, config.ema.widths, ema_width)
    placed = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), average, run.state.ema)
    return dataclasses.replace(run, state=run.state._replace(ema=placed))


def open_run(
    config: ConfigDict, workdir: epath.PathLike, *, ema: bool = True, devices: Sequence[jax.Device] | None = None
) -> Run:
    """The run that was made with a config, at its latest checkpoint.

    Args:
      devices: devices to run on; all there are if None.

    Raises:
      UserError: if there is none, or it was made with another config.
    """
    experiment, workdir = experiment_lib.from_config(config, devices), epath.Path(workdir)
    experiment.require_sampled()
    found, line = restored(experiment, workdir, told=True), Line(silent=not distributed.is_primary())
    return Run(experiment.with_clusters(workdir, line, saved=found.progress.get("edges")), found.state, ema)


def restored(experiment: Experiment, workdir: epath.PathLike, *, told: bool = False) -> Restored:
    """The latest checkpoint of the run of an experiment.

    Args:
      told: whether the network will be told something, so that what its conditioning needs must be as in training.

    Raises:
      UserError: if there is none, or it was made with another config.
    """
    workdir, found = epath.Path(workdir), None
    if (workdir / "checkpoints").exists():
        check_config(workdir, experiment.config)
        if told:
            check_told(workdir, experiment.told_by)
        with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
            found = checkpoints.restore(experiment.abstract_state)
    if found is None:
        raise UserError(f"workdir {workdir} holds no checkpoint: train first, or name another with --workdir")
    return found
