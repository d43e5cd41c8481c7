"""From a config to the parts it names, checked whole before anything is built."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float
from ml_collections import ConfigDict

from diffcurr import config as config_lib
from diffcurr import parts
from diffcurr.batch import Batch
from diffcurr.codecs import CODECS, QUANTIZERS, Codec, Identity
from diffcurr.codecs.on_host import OnHost
from diffcurr.conditioning import CONDITIONINGS, Conditioning, Field
from diffcurr.curriculum import CLUSTERINGS, RULES, STAGES, Levels
from diffcurr.curriculum import DENSITIES as CURRICULUM_DENSITIES
from diffcurr.curriculum.clusters import Clustering
from diffcurr.curriculum.rules import NoStages, Rule, Staged
from diffcurr.data import pipeline
from diffcurr.data.datasets import DATASETS, Dataset
from diffcurr.data.encoded import check_codec
from diffcurr.data.sources import Source
from diffcurr.difficulty import convergence
from diffcurr.difficulty.curves import CURVES
from diffcurr.errors import UserError, concerning
from diffcurr.metrics import features
from diffcurr.metrics.evaluation import METRICS, Measured, Metric
from diffcurr.metrics.features import Features
from diffcurr.networks import NETWORKS
from diffcurr.planning import chips, costs
from diffcurr.pretrained.picture_features import PICTURE_FEATURES, PictureFeatures
from diffcurr.pretrained.text_encoders import TEXT_ENCODERS
from diffcurr.processes import DENSITIES, PREDICTIONS, PROCESSES, WEIGHTINGS, Process
from diffcurr.reporting.progress import Countdown, Line
from diffcurr.sampling.decoding import RealPictures
from diffcurr.sampling.drawing import Sampler, Sampling
from diffcurr.sampling.evaluator import Evaluator
from diffcurr.sampling.held_out import Grid
from diffcurr.sampling.solvers import SOLVERS, Solver
from diffcurr.tasks import TASKS, Sampled, Task
from diffcurr.training import augmentation, distributed, sharding
from diffcurr.training.alignment import ALIGNMENTS, Alignment
from diffcurr.training.compiled import CompiledStep, with_shardings
from diffcurr.training.optimizer import OPTIMIZERS
from diffcurr.training.perceptual import PERCEPTUALS
from diffcurr.training.power_average import gamma_of
from diffcurr.training.randomness import step_key, stream_key
from diffcurr.training.state import TrainState, split_network
from diffcurr.training.step import StepConfig

parts.TABLES.update(
    {
        "task": TASKS,
        "task.perceptual": PERCEPTUALS,
        "dataset": DATASETS,
        "codec": CODECS,
        "codec.quantizer": QUANTIZERS,
        "process": PROCESSES,
        "process.prediction": PREDICTIONS,
        "process.weighting": WEIGHTINGS,
        "process.density": DENSITIES,
        "network": NETWORKS,
        "conditioning": CONDITIONINGS,
        "conditioning.encoder": TEXT_ENCODERS,
        "curriculum": RULES,
        "curriculum.density": CURRICULUM_DENSITIES,
        "curriculum.stages": STAGES,
        "curriculum.clustering": CLUSTERINGS,
        "optimizer": OPTIMIZERS,
        "sampling.solver": SOLVERS,
        "alignment": ALIGNMENTS,
        "encode.features": PICTURE_FEATURES,
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
    task: Task
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
    alignment: Alignment | None
    picture_features: PictureFeatures | None

    ################################################################# training

    @property
    def encoder(self) -> Codec | None:
        """The codec that encodes what is read; None where that is noised as it is: pixels, or stored latents."""
        return None if self.dataset.is_latent or isinstance(self.codec, Identity) else self.codec

    @functools.cached_property
    def network_outline(self) -> nnx.Module:
        """The network with shapes for arrays."""
        outline = nnx.eval_shape(lambda: self.make_network(nnx.Rngs(0)))
        with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
            getattr(outline, "choices", dict)()  # which may refuse the platform
        return outline

    @functools.cached_property
    def abstract_network(self) -> tuple[Any, Any]:
        """(graph definition, shapes of the parameters)."""
        return split_network(self.network_outline)

    @property
    def updating(self) -> dict[str, Any]:
        """The fields of `training.updating.Updating`, which every task's step has."""
        config = self.config
        return {
            "graph": self.task.network(self)[0],
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
            "seed": config.seed,
            "ema_decay": config.ema.decay,
            "ema_rampup": config.ema.rampup,
            "ema_gammas": tuple(map(gamma_of, config.ema.widths)),
            "microbatches": config.microbatches,
        }

    @functools.cached_property
    def step_config(self) -> StepConfig:
        """What the train step is compiled for."""
        if self.edges is None:
            raise ValueError("the clusters follow from a curve that has not been measured: see with_clusters")
        return StepConfig(
            **self.updating,
            process=self.process,
            rule=self.rule,
            conditioning=self.conditioning,
            edges=self.edges,
            stratified=self.config.curriculum.stratified,
            unbiased=self.config.curriculum.unbiased,
            codec=self.encoder,
            dropout=getattr(self.network_outline, "dropout", 0.0) > 0,
            augment=self.dataset.augment,
            alignment=self.alignment,
        )

    @property
    def features_spec(self) -> Field | None:
        """The features of one example that the network is aligned with; None where it is not."""
        if self.alignment is None:
            return None
        return Field(self.alignment.features_shape(self.network_outline), jnp.float16)

    def batches(self, source: Source) -> grain.MapDataset:
        """This process's share of the batches that are trained on, from the first."""
        return pipeline.make_dataset(
            source,
            self.dataset,
            self.conditioning.of,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def read_ahead(self, batches: grain.MapDataset) -> grain.DatasetIterator:
        """These batches in turn, as many of them read ahead as `pipeline.ahead` says."""
        arrays: list[tuple[tuple[int, ...], Any]] = [(self.dataset.shape, np.float32)]
        fields = (*self.conditioning.spec().values(), self.features_spec)
        arrays += [(field.shape, field.dtype) for field in fields if field]
        example = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in arrays)
        prefetch = pipeline.ahead(example * self.config.batch_size // jax.process_count())
        return pipeline.make_iterator(batches, threads=self.dataset.threads, prefetch=prefetch)

    @functools.cached_property
    def compiled(self) -> CompiledStep:
        """The train step for this config's mesh; compiled at its first call."""
        return self.task.compiled(self)

    def model_flops(self) -> float | None:
        """Floating-point operations of the forward and backward pass of one step over the global batch.

        Those of the matrix products and convolutions of the model, whatever is computed again in the backward pass
        (`network.remat`) and without the codec. None for a task that does not count them.
        """
        plain = self
        section, key = self.task.remat_key.split(".")
        if self.config[section].get(key, "none") != "none":
            config = config_lib.changed(self.config, {section: {key: "none"}})
            other = from_config(config, list(self.mesh.devices.flat))
            plain = dataclasses.replace(self, make_network=other.make_network, codec=other.codec)
        loss = plain.task.example_loss(plain)
        if loss is None:
            return None
        return self.config.batch_size * costs.gradient_flops(loss, self.abstract_state.params)

    def utilisation(self) -> float | None:
        """`model_flops` over what all devices could do in a second, by their peak in bfloat16.

        Times steps a second it is the model-flops utilisation. None where the chip's peak is not known.
        """
        chip = chips.known(self.mesh.devices.flat[0].device_kind)
        flops = self.model_flops() if chip else None
        return flops / (self.mesh.size * chip.flops) if chip and flops else None

    @functools.cached_property
    def codec_params(self) -> Any:
        """The codec's weights, on every device."""
        return sharding.place(self.codec.load(), sharding.replicated(self.mesh))

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        return with_shardings(self.mesh, lambda params: self.task.init_state(self, params), self.task.network(self)[1])

    def init_state(self) -> TrainState:
        """The state before the first step, made where it will live; a function of the seed alone."""

        def init() -> TrainState:
            return self.task.init_state(self, self.task.init_params(self))

        shardings = jax.tree.map(lambda x: x.sharding, self.abstract_state)
        # It runs once, and on a CPU it takes longer to compile well than to run.
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        options = {"xla_backend_optimization_level": 1} if on_cpu else {}
        return jax.jit(init, out_shardings=shardings, compiler_options=options)()

    def require_denoiser(self, what: str) -> None:
        """
        Args:
          what: what needs one, for a message that goes on with "a denoising network".

        Raises:
          UserError: if something else is trained.
        """
        if not self.task.denoises:
            raise UserError(
                f"task.name = {self.config.task.name!r}: {what} a denoising network, which the task 'diffusion' trains"
            )

    def with_clusters(self, workdir: epath.Path, line: Line, saved: Sequence[float] | None = None) -> "Experiment":
        """The experiment with its clusters known; the curve they may follow from is measured unless the workdir has it.

        All processes measure it together, and have the same edges to the bit.

        Args:
          saved: the edges that a checkpoint was trained with, which stay in force whatever the curve says by now.
        """
        if saved is not None:
            return self.with_edges(np.asarray(saved, np.float64))
        if self.edges is not None:
            return self
        kept = CURVES[self.clustering.needs_curve]
        measured = kept.had(workdir, self, line.say, functools.partial(Countdown, line))
        with concerning("curriculum.clustering"):
            edges = self.clustering.edges(self.config.curriculum.clusters, self.log_snr, measured.value)
        return self.with_edges(edges)

    def with_texts(self, source: Source, workdir: epath.Path, line: Line) -> "Experiment":
        """The experiment whose conditioning has encoded the captions of a source, where it reads them.

        Process 0 encodes them into a folder that all read.
        """
        if not self.conditioning.reads_captions:
            return self
        say = Countdown(line, "encoding captions", "captions")
        ready = distributed.primary_first(lambda: self.conditioning.prepared(source.captions(), workdir, say))
        return dataclasses.replace(self, conditioning=ready)

    def with_edges(self, edges: Float[np.ndarray, " edge"]) -> "Experiment":
        """The experiment with these clusters, and a rule that knows their noise levels.

        Raises:
          UserError: if the rule does not fit them.
        """
        found = dataclasses.replace(self, edges=edges)
        with concerning("curriculum"):
            return dataclasses.replace(found, rule=self.rule.on(found.levels))

    def without_curriculum(self, edges: Float[np.ndarray, " edge"]) -> "Experiment":
        """The experiment that counts on these clusters and draws all of them as its process does."""
        return dataclasses.replace(self, edges=edges, rule=NoStages(clusters=len(edges) - 1, seed=self.config.seed))

    @property
    def levels(self) -> Levels:
        """The clusters, once they are known, beside the noise levels that they hold."""
        assert self.edges is not None
        return Levels(self.edges, self.log_snr, self.process.noise_weight)

    @property
    def log_snr(self) -> Float[np.ndarray, " level"]:
        """log-SNR at the process's equally likely noise levels."""
        return self.process.log_snr(self.process.level_midpoints)

    def as_trained(self, batch: Batch) -> Float[np.ndarray, "n height width channel"]:
        """The examples of a batch as the first step sees them, augmented; latents decoded."""
        x = jnp.asarray(batch.x)
        if self.dataset.augment:
            x, _ = augmentation.augment(step_key(self.config.seed, "augmentation", 0, 0), x, self.dataset.augment)
        return self.decoder.decoded(np.asarray(x)) if self.dataset.is_latent else np.asarray(x)

    @functools.cached_property
    def decoder(self) -> OnHost:
        """The codec for what is on the host."""
        here = [device for device in self.mesh.devices.flat if device.process_index == jax.process_index()]
        return OnHost(codec=self.codec, params=lambda: self._codec_params_here, devices=here)

    @functools.cached_property
    def _codec_params_here(self) -> Any:
        return jax.tree.map(lambda x: np.asarray(x), self.codec_params)

    @functools.cached_property
    def picture_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what a person sees: of a decoded example."""
        latent = jax.ShapeDtypeStruct((1, *self.shape), jnp.float32)
        height, width, channels = jax.eval_shape(self.codec.decode_with, self.codec.abstract_params(), latent).shape[1:]
        return height, width, channels

    @property
    def has_alpha(self) -> bool:
        """Whether pictures have a fourth channel, of what is seen of them."""
        return self.picture_shape[-1] == 4 and not (self.dataset.is_latent and isinstance(self.codec, Identity))

    ################################################################## samples

    def require_sampled(self) -> Sampled:
        """The task.

        Raises:
          UserError: if no samples can be drawn of what it trains.
        """
        if not isinstance(self.task, Sampled):
            tasks = " or ".join(repr(name) for name, one in TASKS.items() if issubclass(one, Sampled))
            raise UserError(f"task.name = {self.config.task.name!r}: samples are drawn of what {tasks} trains")
        return self.task

    @functools.cached_property
    def sampler(self) -> Sampler:
        """Draws samples of the network of this experiment."""
        return self.require_sampled().sampler(self)

    @property
    def param_shardings(self) -> Any:
        """How parameters lie on the mesh."""
        return jax.tree.map(lambda x: x.sharding, self.abstract_state.ema)

    @property
    def network_and_codec(self) -> dict[str, Any]:
        """The fields that everything has which computes with both: what they are, and where their weights lie."""
        return {
            "graph": self.abstract_network[0],
            "codec": self.codec,
            "codec_params": lambda: self.codec_params,
            "mesh": self.mesh,
            "param_shardings": self.param_shardings,
        }

    @property
    def drawing(self) -> dict[str, Any]:
        """The fields of `sampling.drawing.Sampler`, which every sampler has."""
        return self.network_and_codec | {"conditioning": self.conditioning, "settings": self.sampling}

    def sampler_of(self, settings: Sampling, negative_prompt: str = "") -> Sampler:
        """The sampler with other settings, or with guidance that leads away from a text.

        Raises:
          ValueError: if the network is told no text to be led away from.
        """
        sampler = self.sampler
        if negative_prompt:
            conditioning = self.conditioning.leading_away_from(negative_prompt)
            if settings.guidance == 1.0:
                raise ValueError(f"negative prompt {negative_prompt!r:.100}: needs sampling.guidance other than 1")
            sampler = dataclasses.replace(sampler, conditioning=conditioning)
        return sampler if settings == sampler.settings else dataclasses.replace(sampler, settings=settings)

    def sample_key(self, seed: int | None = None) -> jax.Array:
        """The key of a seed's samples; of the config's if None."""
        return stream_key(self.config.seed if seed is None else seed, "samples")

    def find_features(self) -> Features:
        """The features that the config names by their file, or the shipped ones of its data set.

        Raises:
          UserError: if there are none, or they are for other images.
        """
        settings = self.config.evaluation
        shipped = self.dataset.encoded_from or self.config.dataset.name
        path = epath.Path(settings.features).expanduser() if settings.features else shipped
        found = features.load(path, {one.kind for one in self.metrics.values()}, settings.pipeline)
        side, _, channels = self.picture_shape
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
            self.sampler,
            self.pictures,
            found,
            self.metrics,
            number=number,
            seed=seed,
            key=self.sample_key(),
            reference=os.path.expanduser(self.config.evaluation.reference),
            held_out=dataclasses.replace(self.pictures, held_out=True),
        )

    @property
    def grid(self) -> Grid:
        """Where the denoising error of held-out images is measured."""
        return Grid(**self.config.evaluation.denoising)

    def held_out_images(self) -> Batch | None:
        """Images that training never sees, with what the network is told; None where there are none, or none wanted.

        Raises:
          UserError: if they cannot be had, or there is only one.
        """
        grid, dataset = self.grid, self.dataset
        if not grid.images or not dataset.holds_out:
            return None
        try:
            source = distributed.primary_first(dataset.opened_held_out)
        except UserError as error:
            raise UserError(f"{error} (or go without images held out: evaluation.denoising.images = 0)") from error
        images = pipeline.load(source, dataset, self.conditioning.of, grid.images, seed=0)
        if len(images.x) < 2:
            raise UserError(
                f"evaluation.denoising.images = {grid.images}: one image of {len(source)} held out has no interval; "
                f"give two at least, or 0 for none"
            )
        return images

    def held_out_error(self) -> Callable[[Any], Measured] | None:
        """What the task measures of parameters by held-out images, see `tasks.sampled.Sampled.held_out`."""
        return self.require_sampled().held_out(self)

    @functools.cached_property
    def pictures(self) -> RealPictures:
        """What samples are compared with: this process's share of the split."""
        return RealPictures(
            dataset=self.dataset,
            decoder=self.decoder,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )


def _prompts(dataset: Dataset) -> Mapping[str, int]:
    """The captions of a data set, of what it holds out where it does, in an order that is always the same."""
    open_source = dataset.opened_held_out if dataset.holds_out else dataset.opened
    source = distributed.primary_first(open_source)
    captions = source.captions()
    label = dict.fromkeys((captions[index] for index in np.random.default_rng(0).permutation(len(captions))), 0)
    if dataset.num_classes:
        examples = range(len(source))
        labels = source.labels if hasattr(source, "labels") else [source[index]["label"] for index in examples]
        label |= {caption: int(labels[index]) for index in examples for caption in source.captions([index])}
    return label


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
    chosen = parts.build("alignment", config.alignment)
    with concerning("alignment"):
        dataset, alignment = chosen.on(dataset)
    found = {"dataset": dataset.found} | ({"alignment": alignment.found} if alignment else {})
    config = config_lib.changed(config, found)
    task = parts.build("task", config.task)
    if alignment and not task.denoises:
        raise UserError(
            f"alignment.name = {config.alignment.name!r}: is for task.name = 'diffusion', and not for "
            f"{config.task.name!r}; set alignment.name = 'none'"
        )
    codec = parts.build("codec", config.codec)
    process = parts.build("process", config.process)
    prompts = functools.cache(functools.partial(_prompts, dataset))
    conditioning = parts.build("conditioning", config.conditioning, num_classes=dataset.num_classes, prompts=prompts)
    if conditioning.reads_captions and not dataset.captioned:
        raise UserError(
            f"conditioning.name = {config.conditioning.name!r}: dataset {config.dataset.name} has no captions; choose "
            f"one that has, or another conditioning"
        )
    optimizer = parts.build("optimizer", config.optimizer)
    with concerning("optimizer"):
        rate, transformation = optimizer.rate(config.steps), optimizer.transformation(config.steps)

    settings = dict(config.curriculum)
    own = {key: settings.pop(key) for key in config_lib.own_keys("curriculum")}
    rule = parts.build("curriculum", settings, clusters=own["clusters"], seed=config.seed)
    stages = parts.build("curriculum.stages", own["stages"], clusters=own["clusters"], seed=config.seed)
    if not isinstance(stages, NoStages):
        with concerning("curriculum"):
            rule = Staged(rule=rule, stages=stages)
    clustering = parts.build("curriculum.clustering", own["clustering"])
    with concerning("curriculum"):
        if own["clusters"] > process.num_levels:
            raise ValueError(f"clusters = {own['clusters']}: the process has only {process.num_levels} noise levels")
        clustering.check(own["clusters"])
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
    check_codec(dataset, codec)
    with concerning("codec"):
        shape = dataset.shape if dataset.is_latent else codec.latent_shape(dataset.shape)
    with concerning("sampling"):
        sampling = Sampling(
            **{key: config.sampling[key] for key in config.sampling if key not in ("samples", "solver")}
        )
    metrics = parts.build_several("evaluation.metrics", config.evaluation.metrics)
    for name, one in metrics.items():
        if one.held_out and not dataset.holds_out:
            raise UserError(
                f"evaluation.metrics.{name}: dataset {config.dataset.name} has no images that training never sees; set "
                f"dataset.held_out to the share of them"
            )
    with concerning("evaluation.denoising"):
        grid = Grid(**config.evaluation.denoising)
        try:
            grid.check(process)
        except ValueError:  # of no account where nothing is held out; to know that, all files may have to be listed
            if grid.images and task.denoises and dataset.holds_out:
                raise

    looks_at = parts.build("encode.features", config.encode.features)
    network = parts.choose("network", config.network.name)
    arguments = parts.check("network", network, {key: v for key, v in config.network.items() if key != "name"})
    with concerning(f"task {config.task.name}"):
        seen = task.network_shape(dataset, codec, shape)
    fields = conditioning.spec()
    if dataset.augment:
        fields["augment"] = Field((augmentation.NUM_LABELS,), jnp.float32)

    def make_network(rngs: nnx.Rngs) -> nnx.Module:
        settings = {"learn_variance": process.learns_variance, "dtype": config.dtype, "rngs": rngs}
        made: nnx.Module = network.from_spec(seen, fields, **settings, **arguments)
        if alignment:
            with concerning("alignment"):
                alignment.attach(made, config.dtype, rngs)
        return made

    experiment = Experiment(
        config=config,
        task=task,
        dataset=dataset,
        codec=codec,
        shape=shape,
        process=process,
        conditioning=conditioning,
        make_network=make_network,
        optimizer=transformation,
        learning_rate=rate,
        rule=rule,
        clustering=clustering,
        edges=edges,
        solver=solver,
        sampling=sampling,
        metrics=metrics,
        mesh=mesh,
        alignment=alignment,
        picture_features=looks_at if isinstance(looks_at, PictureFeatures) else None,
    )
    with concerning(f"task {config.task.name}"):
        task.check(experiment)
    if isinstance(task, Sampled):
        with concerning("sampling"):
            task.check_sampling(experiment, sampling)
    return experiment if edges is None else experiment.with_edges(edges)
