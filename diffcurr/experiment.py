"""From a config to the parts it names, checked whole before anything is built."""

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Float
from ml_collections import ConfigDict

from diffcurr import config as config_lib
from diffcurr.curriculum import clusters
from diffcurr.curriculum.pacing import PacingConfig
from diffcurr.data.sources import DATASETS, DatasetInfo, Source, open_source
from diffcurr.difficulty import convergence, curve
from diffcurr.errors import UserError, concerning
from diffcurr.networks import NETWORKS
from diffcurr.processes import PROCESSES, Process
from diffcurr.reporting.progress import Countdown, Line
from diffcurr.sampling.solvers import SOLVERS
from diffcurr.training import augmentation, optimizer, sharding
from diffcurr.training.randomness import stream_key
from diffcurr.training.state import TrainState, init_state, split_network
from diffcurr.training.step import CompiledStep, StepConfig, compile_step

CLUSTERINGS = ("uniform", "log_snr", "relative_entropy", "edges")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts that a config names. Made by `from_config`; holds no array of parameters.

    `edges` are None where they follow from a curve that has yet to be measured (`with_clusters`).
    """

    config: ConfigDict
    dataset: DatasetInfo
    process: Process
    make_network: Callable[[nnx.Rngs], nnx.Module]
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    pacing: PacingConfig
    edges: Float[np.ndarray, " edge"] | None
    mesh: Mesh

    @property
    def num_classes(self) -> int:
        """Number of classes that the network is told of; 0 if it is unconditional."""
        return self.dataset.num_classes if self.config.class_conditional else 0

    @functools.cached_property
    def _network_outline(self) -> nnx.Module:
        """The network with shapes for arrays."""
        return nnx.eval_shape(lambda: self.make_network(nnx.Rngs(0)))

    @functools.cached_property
    def abstract_network(self) -> tuple[Any, Any]:
        """(graph definition, shapes of the parameters)."""
        return split_network(self._network_outline)

    @functools.cached_property
    def step_config(self) -> StepConfig:
        """What the train step is compiled for."""
        if self.edges is None:
            raise ValueError("the clusters follow from a curve that has not been measured: see with_clusters")
        return StepConfig(
            graph=self.abstract_network[0],
            process=self.process,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            pacing=self.pacing,
            edges=self.edges,
            seed=self.config.seed,
            stratified=self.config.curriculum.stratified,
            ema_decay=self.config.ema.decay,
            ema_rampup=self.config.ema.rampup,
            microbatches=self.config.microbatches,
            num_classes=self.num_classes,
            class_dropout=self.config.class_dropout if self.num_classes else 0.0,
            dropout=getattr(self._network_outline, "dropout", 0.0) > 0,
            augment=self.config.dataset.augment,
        )

    @functools.cached_property
    def compiled(self) -> CompiledStep:
        """The train step for this config's mesh; compiled at its first call."""
        return compile_step(self.step_config, self.abstract_network[1], self.mesh)

    def open_source(self) -> Source:
        """The examples of the config's split, prepared first if need be.

        Raises:
          UserError: if they cannot be had.
        """
        settings = self.config.dataset
        return open_source(self.dataset, settings.split, settings.data_dir, latent_scale=settings.latent_scale)

    def with_clusters(self, workdir: epath.Path, line: Line) -> "Experiment":
        """The experiment with its clusters known; the curve they may follow from is measured unless the workdir has it.

        Process 0 measures, and the others take its edges, so that all train on the same ones.
        """
        if self.edges is not None:
            return self
        settings = self.config.curriculum
        edges = np.zeros(settings.clusters + 1)
        if jax.process_index() == 0:
            arrays = curve.load(workdir, self)
            if arrays is None:
                line.say("measuring the relative entropy from which the clusters follow (once; kept in the workdir)")
                data, countdown = curve.load_data(self, line.say), functools.partial(Countdown, line)
                arrays = curve.measure(self, data, countdown)._asdict()
                curve.save(workdir, self, arrays)
            edges = curve.entropy_clusters(arrays["value"], settings.clusters, settings.entropy_power)
        if jax.process_count() > 1:
            edges = multihost_utils.broadcast_one_to_all(edges)
        return dataclasses.replace(self, edges=edges)

    def init_state(self) -> TrainState:
        """The state before the first step, made where it will live; a function of the seed alone."""

        def init() -> TrainState:
            network = self.make_network(nnx.Rngs(stream_key(self.config.seed, "parameters")))
            return init_state(split_network(network)[1], self.optimizer, self.pacing)

        shardings = jax.tree.map(lambda x: x.sharding, self.compiled.abstract_state)
        return jax.jit(init, out_shardings=shardings)()


def from_config(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Experiment:
    """Checks every value of a config and gathers the parts that it names. Costs no compute.

    Args:
      devices: those to run on; all there are if None.

    Raises:
      UserError: one line that names the value and the remedy.
    """
    _check_outline(config)
    for key in ("steps", "batch_size", "microbatches"):
        if config[key] < 1:
            raise UserError(f"{key} = {config[key]}: must be at least 1")
    for key in ("log_every", "checkpoint_every", "sample_every", "evaluate_every"):
        if config[key] < 0:
            raise UserError(f"{key} = {config[key]}: a number of steps, or 0 for never")
    if not 0.0 <= config.ema.decay < 1.0:
        raise UserError(f"ema.decay = {config.ema.decay}: must lie in [0, 1)")
    if config.ema.rampup < 0.0:
        raise UserError(f"ema.rampup = {config.ema.rampup}: a share of the steps, or 0 for none")
    if not 0.0 <= config.class_dropout < 1.0:
        raise UserError(f"class_dropout = {config.class_dropout}: a share of the labels must lie in [0, 1)")
    if config.dtype not in ("float32", "bfloat16"):
        raise UserError(f"dtype = {config.dtype!r}: choose float32 or bfloat16")

    dataset = _choose("dataset", DATASETS, config.dataset.name)
    _check_dataset(config, dataset)
    process = _build("process", PROCESSES, config.process)
    with concerning("optimizer"):
        optimizer_config = optimizer.OptimizerConfig(**config.optimizer)
        rate = optimizer.learning_rate(optimizer_config, config.steps)
    with concerning("curriculum"):
        pacing, edges = _curriculum(config, process)
    with concerning("mesh"):
        mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    parts = sharding.batch_shards(mesh) * config.microbatches
    if config.batch_size % parts:
        raise UserError(
            f"batch_size = {config.batch_size}: must be divisible by {parts}, the {sharding.batch_shards(mesh)} "
            f"devices that share the batch times microbatches = {config.microbatches}; the next such size is "
            f"{-(-config.batch_size // parts) * parts}"
        )
    _check_sampling(config, process, dataset)
    _check_analysis(config)

    with concerning(f"network {config.network.name}"):
        follows = _choose("network", NETWORKS, config.network.name).data_arguments(
            size=dataset.image_size,
            channels=dataset.channels,
            num_classes=dataset.num_classes if config.class_conditional else 0,
            class_dropout=config.class_dropout if config.class_conditional else 0.0,
            learn_variance=process.learns_variance,
            augment_dim=augmentation.NUM_LABELS if config.dataset.augment else 0,
        )
    make_network = _build("network", NETWORKS, config.network, partial=True, dtype=config.dtype, **follows)
    experiment = Experiment(
        config=config,
        dataset=dataset,
        process=process,
        make_network=lambda rngs: make_network(rngs=rngs),
        optimizer=optimizer.make_optimizer(optimizer_config, config.steps),
        learning_rate=rate,
        pacing=pacing,
        edges=edges,
        mesh=mesh,
    )
    with concerning("network"):
        _ = experiment.abstract_network  # the network checks its own sizes; nothing is allocated
    return experiment


def _curriculum(config: ConfigDict, process: Process) -> tuple[PacingConfig, Float[np.ndarray, " edge"] | None]:
    settings = config.curriculum
    names = {field.name for field in dataclasses.fields(PacingConfig)} - {"seed"}
    lengths = settings.steps_per_stage
    pacing = PacingConfig(
        **{name: settings[name] for name in names - {"steps_per_stage"}},
        steps_per_stage=lengths[0] if len(lengths) == 1 else lengths,
        seed=config.seed,
    )
    if settings.clusters > process.num_levels:
        raise ValueError(f"clusters = {settings.clusters}: the process has only {process.num_levels} noise levels")
    if not settings.entropy_power > 0:
        raise ValueError(f"entropy_power = {settings.entropy_power}: must be above 0")
    edges: Float[np.ndarray, " edge"] | None = None
    if settings.clustering == "uniform":
        edges = clusters.uniform(settings.clusters)
    elif settings.clustering == "log_snr":
        edges = clusters.by_log_snr(process.log_snr(process.level_midpoints), settings.clusters)
    elif settings.clustering == "edges":
        edges = clusters.from_edges(settings.edges)
        if len(edges) != settings.clusters + 1:
            raise ValueError(
                f"edges = {settings.edges}: clusters = {settings.clusters} needs {settings.clusters + 1} edges"
            )
    elif settings.clustering != "relative_entropy":
        raise ValueError(f"clustering = {settings.clustering!r}: choose one of {', '.join(CLUSTERINGS)}")
    if settings.edges and settings.clustering != "edges":
        raise ValueError(f"edges = {settings.edges}: used only with clustering = 'edges', not {settings.clustering!r}")
    return pacing, edges


def _check_dataset(config: ConfigDict, dataset: DatasetInfo) -> None:
    settings = config.dataset
    if config.class_conditional and not dataset.num_classes:
        raise UserError(f"class_conditional = True: {dataset.name} has no classes")
    if not 0.0 <= settings.augment <= 1.0:
        raise UserError(f"dataset.augment = {settings.augment}: a probability must lie in [0, 1]")
    if settings.latent_scale <= 0:
        raise UserError(f"dataset.latent_scale = {settings.latent_scale}: must be above 0")
    if settings.augment and settings.flip and dataset.flip:
        raise UserError(f"dataset.augment = {settings.augment}: mirrors images itself; set dataset.flip = False")


def _check_sampling(config: ConfigDict, process: Process, dataset: DatasetInfo) -> None:
    settings = config.sampling
    with concerning("sampling"):
        if settings.solver not in SOLVERS:
            raise ValueError(f"solver = {settings.solver!r}: choose one of {', '.join(SOLVERS)}")
        if settings.samples < 1:
            raise ValueError(f"samples = {settings.samples}: must be at least 1")
        if settings.clip < 0:
            raise ValueError(f"clip = {settings.clip}: a limit above 0, or 0 for none")
        if settings.clip and dataset.max_value is None:
            raise ValueError(f"clip = {settings.clip}: latents have no limits; give 0")
        if settings.guidance != 1.0 and not config.class_conditional:
            raise ValueError(f"guidance = {settings.guidance}: needs class_conditional = True")
        if settings.guidance != 1.0 and config.class_dropout == 0.0:
            raise ValueError(f"guidance = {settings.guidance}: needs class_dropout above 0, to learn what no class is")
        process.sampling_times(settings.steps, settings.last_step)
        continuous = process.level(jnp.ones(1)).d_alpha is not None
        if settings.solver in ("sde", "adaptive") and not continuous:
            raise ValueError(f"solver = {settings.solver!r}: needs continuous time, which {config.process.name} lacks")
        if len(settings.churn) != 4 or settings.churn[0] < 0:
            raise ValueError(f"churn = {settings.churn}: give (S_churn >= 0, S_tmin, S_tmax, S_noise)")
        if settings.churn[0] and (settings.solver != "heun" or config.process.name != "edm"):
            raise ValueError(f"churn = {settings.churn}: needs solver = 'heun' and the process edm")
        low, high = settings.guidance_interval
        if not 0.0 <= low < high <= 1.0:
            raise ValueError(f"guidance_interval = {settings.guidance_interval}: two rising quantiles in [0, 1]")
        if not 0 <= settings.guidance_channels <= dataset.channels:
            raise ValueError(f"guidance_channels = {settings.guidance_channels}: there are {dataset.channels} channels")


def _check_analysis(config: ConfigDict) -> None:
    with concerning("analysis"):
        for name in ("images", "samples"):
            if config.analysis[name] < 8:
                raise ValueError(f"{name} = {config.analysis[name]}: must be at least 8")
    with concerning("analysis.convergence"):
        numbers = config.analysis.convergence.to_dict()
        convergence.check_share(numbers.pop("share"))
        convergence.check_numbers(**numbers)


def _check_outline(config: ConfigDict) -> None:
    """Every shared key there, and none that is unknown."""
    known = set(config_lib.flatten(config_lib.outline().to_dict()))
    free = ("process.", "network.", "compare.arms.")  # checked against the class that they name, and as configs
    given = set(config_lib.flatten(config.to_dict()))
    for key in sorted(given - known):
        if not key.startswith(free):
            raise UserError(f"config key {key!r} is unknown{_closest(key, known)}")
    for key in sorted(known - given):
        raise UserError(f"config key {key!r} is missing: start the config from diffcurr.config.outline()")


def _choose(part: str, table: Mapping[str, Any], name: str) -> Any:
    if name not in table:
        raise UserError(f"{part}.name = {name!r}: choose one of {', '.join(table)}")
    return table[name]


def _build(part: str, table: Mapping[str, Any], settings: ConfigDict, *, partial: bool = False, **derived: Any) -> Any:
    """Calls the class that `settings.name` names with the settings beside the name.

    Args:
      partial: give back the call, to be made later, instead of its result.
      derived: arguments that follow from other parts of the config, and so may not be set.
    """
    make = _choose(part, table, settings.name)
    arguments = {key: value for key, value in settings.items() if key != "name"}
    allowed = set(inspect.signature(make.__init__).parameters) - set(derived) - {"self", "rngs"}
    for key in arguments:
        if key in derived:
            raise UserError(f"config key '{part}.{key}' follows from other settings: remove it")
        if key not in allowed:
            raise UserError(f"config key '{part}.{key}' is unknown to {settings.name}{_closest(key, allowed)}")
    call = functools.partial(make, **arguments, **derived)
    if partial:
        return call
    with concerning(part):
        return call()


def _closest(key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f": did you mean {close[0]!r}?" if close else f": there are {', '.join(sorted(known))}"
