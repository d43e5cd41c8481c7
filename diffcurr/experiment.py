"""From a config to the parts it names, checked whole before anything is built."""

import dataclasses
import functools
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
from diffcurr import parts
from diffcurr.batch import Batch
from diffcurr.codecs import CODECS, Codec, Identity
from diffcurr.conditioning import CONDITIONINGS, Conditioning, Field
from diffcurr.curriculum import CLUSTERINGS, RULES
from diffcurr.curriculum.clusters import Clustering
from diffcurr.curriculum.rules import Rule
from diffcurr.data.datasets import DATASETS, Dataset
from diffcurr.difficulty import convergence, curve
from diffcurr.errors import UserError, concerning
from diffcurr.metrics import features
from diffcurr.metrics.evaluation import METRICS, Metric
from diffcurr.metrics.features import Features
from diffcurr.networks import NETWORKS
from diffcurr.processes import DENSITIES, PREDICTIONS, PROCESSES, WEIGHTINGS, Process
from diffcurr.reporting.progress import Countdown, Line
from diffcurr.sampling.drawing import Sampler, Sampling
from diffcurr.sampling.evaluator import Evaluator
from diffcurr.sampling.solvers import SOLVERS, Solver
from diffcurr.training import augmentation, sharding
from diffcurr.training.optimizer import OPTIMIZERS
from diffcurr.training.randomness import step_key, stream_key
from diffcurr.training.state import TrainState, init_state, split_network
from diffcurr.training.step import CompiledStep, StepConfig, abstract_state, compile_step

parts.TABLES.update(
    {
        "dataset": DATASETS,
        "codec": CODECS,
        "process": PROCESSES,
        "process.prediction": PREDICTIONS,
        "process.weighting": WEIGHTINGS,
        "process.density": DENSITIES,
        "network": NETWORKS,
        "conditioning": CONDITIONINGS,
        "curriculum": RULES,
        "curriculum.clustering": CLUSTERINGS,
        "optimizer": OPTIMIZERS,
        "sampling.solver": SOLVERS,
        "evaluation.metrics": METRICS,
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """The parts that a config names. Made by `from_config`; holds no array of parameters.

    `shape` is that of one x. `edges` are None where they follow from a curve that has yet to be measured
    (`with_clusters`).
    """

    config: ConfigDict
    dataset: Dataset
    codec: Codec
    shape: tuple[int, ...]
    process: Process
    conditioning: Conditioning
    make_network: Callable[[nnx.Rngs], nnx.Module]
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    rule: Rule
    clustering: Clustering
    edges: Float[np.ndarray, " edge"] | None
    solver: Solver
    sampling: Sampling
    metrics: dict[str, Metric]
    mesh: Mesh

    ################################################################# training

    @property
    def encoder(self) -> Codec | None:
        """The codec that encodes what is read; None where that is noised as it is: pixels, or stored latents."""
        return None if self.dataset.is_latent or isinstance(self.codec, Identity) else self.codec

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
            rule=self.rule,
            conditioning=self.conditioning,
            edges=self.edges,
            seed=self.config.seed,
            stratified=self.config.curriculum.stratified,
            ema_decay=self.config.ema.decay,
            ema_rampup=self.config.ema.rampup,
            microbatches=self.config.microbatches,
            codec=self.encoder,
            dropout=getattr(self._network_outline, "dropout", 0.0) > 0,
            augment=self.dataset.augment,
        )

    @functools.cached_property
    def compiled(self) -> CompiledStep:
        """The train step for this config's mesh; compiled at its first call."""
        return compile_step(self.step_config, self.abstract_state, self.mesh)

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        return abstract_state(self.optimizer, self.rule, self.abstract_network[1], self.mesh)

    def init_state(self) -> TrainState:
        """The state before the first step, made where it will live; a function of the seed alone."""

        def init() -> TrainState:
            network = self.make_network(nnx.Rngs(stream_key(self.config.seed, "parameters")))
            return init_state(split_network(network)[1], self.optimizer, self.rule)

        shardings = jax.tree.map(lambda x: x.sharding, self.abstract_state)
        # It runs once, and on a CPU it takes longer to compile well than to run.
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        options = {"xla_backend_optimization_level": 1} if on_cpu else {}
        return jax.jit(init, out_shardings=shardings, compiler_options=options)()

    def with_clusters(self, workdir: epath.Path, line: Line, saved: Sequence[float] | None = None) -> "Experiment":
        """The experiment with its clusters known; the curve they may follow from is measured unless the workdir has it.

        Process 0 measures, and the others take its edges, so that all train on the same ones.

        Args:
          saved: the edges that a checkpoint was trained with, which stay in force whatever the curve says by now.
        """
        if saved is not None:
            return dataclasses.replace(self, edges=np.asarray(saved, np.float64))
        if self.edges is not None:
            return self
        number = self.config.curriculum.clusters
        edges = np.zeros(number + 1)
        if jax.process_index() == 0:
            arrays = curve.load(workdir, self)
            if arrays is None:
                line.say("measuring the relative entropy from which the clusters follow (once; kept in the workdir)")
                data, countdown = curve.load_data(self, line.say), functools.partial(Countdown, line)
                arrays = curve.measure(self, data, countdown)._asdict()
                curve.save(workdir, self, arrays)
            edges = self.clustering.edges(number, self.log_snr, arrays["value"])
        if jax.process_count() > 1:
            edges = multihost_utils.broadcast_one_to_all(edges)
        return dataclasses.replace(self, edges=edges)

    @property
    def log_snr(self) -> Float[np.ndarray, " level"]:
        """log-SNR at the process's equally likely noise levels."""
        return self.process.log_snr(self.process.level_midpoints)

    def as_trained(self, batch: Batch) -> Float[np.ndarray, "n height width channel"]:
        """The examples of a batch as the first step sees them, augmented; latents decoded."""
        x = jnp.asarray(batch.x)
        if self.dataset.augment:
            x, _ = augmentation.augment(step_key(self.config.seed, "augmentation", 0, 0), x, self.dataset.augment)
        return np.asarray(self.codec.decode(x) if self.dataset.is_latent else x)

    ################################################################## samples

    @functools.cached_property
    def sampler(self) -> Sampler:
        """Draws samples of a network of this experiment."""
        return Sampler(
            graph=self.abstract_network[0],
            process=self.process,
            solver=self.solver,
            codec=self.codec,
            conditioning=self.conditioning,
            shape=self.shape,
            settings=self.sampling,
            mesh=self.mesh,
            param_shardings=jax.tree.map(lambda x: x.sharding, self.abstract_state.ema),
        )

    def sample_key(self, seed: int | None = None) -> jax.Array:
        """The key of a seed's samples; of the config's if None."""
        return stream_key(self.config.seed if seed is None else seed, "samples")

    def find_features(self) -> Features:
        """The features that the config names by their file, or the shipped ones of its data set.

        Raises:
          UserError: if there are none, or they are for other images.
        """
        settings = self.config.evaluation
        path = epath.Path(settings.features).expanduser() if settings.features else self.config.dataset.name
        found = features.load(path)
        side, _, channels = self.dataset.shape
        with concerning("evaluation.features"):
            found.check(side, channels)
        return found

    def evaluator(self, number: int) -> Evaluator:
        """Draws `number` samples and compares them with all images of the config's split.

        Raises:
          UserError: if they are too few, or there are no features for these images.
        """
        found, seed = self.find_features(), self.config.seed
        return Evaluator.of(
            self.sampler, self.dataset, found, self.metrics, number=number, seed=seed, key=self.sample_key()
        )


def from_config(config: ConfigDict | Mapping[str, Any], devices: Sequence[jax.Device] | None = None) -> Experiment:
    """Checks every value of a config and gathers the parts that it names. Costs no compute.

    Args:
      devices: those to run on; all there are if None.

    Raises:
      UserError: one line that names the value and the remedy.
    """
    config = config_lib.complete(config)
    config_lib.check_keys(config)
    with concerning("analysis.convergence"):
        convergence.check_steps(config.analysis.convergence.steps, config.analysis.convergence.evaluate_every)
    dataset = parts.build("dataset", config.dataset)
    config = config_lib.changed(config, {"dataset": dataset.found})
    codec = parts.build("codec", config.codec)
    process = parts.build("process", config.process)
    conditioning = parts.build("conditioning", config.conditioning, num_classes=dataset.num_classes)
    optimizer = parts.build("optimizer", config.optimizer)
    with concerning("optimizer"):
        rate, transformation = optimizer.rate(config.steps), optimizer.transformation(config.steps)

    settings = dict(config.curriculum)
    own = {key: settings.pop(key) for key in config_lib.own_keys("curriculum")}
    rule = parts.build("curriculum", settings, clusters=own["clusters"], seed=config.seed)
    clustering = parts.build("curriculum.clustering", own["clustering"])
    with concerning("curriculum"):
        if own["clusters"] > process.num_levels:
            raise ValueError(f"clusters = {own['clusters']}: the process has only {process.num_levels} noise levels")
        edges = None
        if not clustering.needs_curve:
            edges = clustering.edges(own["clusters"], process.log_snr(process.level_midpoints))

    with concerning("mesh"):
        mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    shards = sharding.batch_shards(mesh)
    unit = shards * config.microbatches
    if config.batch_size % unit:
        raise UserError(
            f"batch_size = {config.batch_size}: must be divisible by {unit}, the {shards} devices that share the batch "
            f"times microbatches = {config.microbatches}; the next such size is {-(-config.batch_size // unit) * unit} "
            f"(a run that is continued keeps its own, and needs a number of devices that divides it)"
        )

    solver = parts.build("sampling.solver", config.sampling.solver)
    shape = dataset.shape if dataset.is_latent else codec.latent_shape(dataset.shape)
    with concerning("sampling"):
        sampling = Sampling(
            **{key: config.sampling[key] for key in config.sampling if key not in ("samples", "solver")}
        )
        sampling.check(process, conditioning, shape[-1])
        solver.check(process)
        if sampling.clip and dataset.is_latent:
            raise ValueError(f"clip = {sampling.clip}: latents have no limits; give 0")

    network = parts.choose("network", config.network.name)
    arguments = parts.check("network", network, {key: v for key, v in config.network.items() if key != "name"})
    fields = conditioning.spec()
    if dataset.augment:
        fields["augment"] = Field((augmentation.NUM_LABELS,), jnp.float32)
    experiment = Experiment(
        config=config,
        dataset=dataset,
        codec=codec,
        shape=shape,
        process=process,
        conditioning=conditioning,
        make_network=lambda rngs: network.from_spec(
            shape, fields, learn_variance=process.learns_variance, dtype=config.dtype, rngs=rngs, **arguments
        ),
        optimizer=transformation,
        learning_rate=rate,
        rule=rule,
        clustering=clustering,
        edges=edges,
        solver=solver,
        sampling=sampling,
        metrics=parts.build_several("evaluation.metrics", config.evaluation.metrics),
        mesh=mesh,
    )
    with concerning(f"network {config.network.name}"):
        _ = experiment.abstract_network  # the network checks its own sizes; nothing is allocated
    return experiment
