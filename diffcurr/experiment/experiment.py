"""The parts that a config names, and what follows from several of them."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
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

from diffcurr.batch import Batch
from diffcurr.codecs import Codec, Identity
from diffcurr.codecs.on_host import OnHost
from diffcurr.conditioning import Conditioning, Field
from diffcurr.curriculum import Levels
from diffcurr.curriculum.clusters import Clustering
from diffcurr.curriculum.rules import NoStages, Rule
from diffcurr.data import pipeline
from diffcurr.data.datasets import Dataset
from diffcurr.data.sources import Source
from diffcurr.difficulty.curves import CURVES
from diffcurr.errors import UserError, concerning
from diffcurr.metrics import features
from diffcurr.metrics.evaluation import Measured, Metric
from diffcurr.metrics.features import Features
from diffcurr.pretrained.picture_features import PictureFeatures
from diffcurr.processes import Process
from diffcurr.reporting.progress import Countdown, Line
from diffcurr.sampling.drawing import Sampler, Sampling
from diffcurr.sampling.evaluator import Evaluator
from diffcurr.sampling.held_out import Denoising
from diffcurr.sampling.real_pictures import RealPictures
from diffcurr.sampling.solvers import Solver
from diffcurr.tasks import TASKS, Sampled, Task
from diffcurr.training import augmentation, distributed, sharding
from diffcurr.training.alignment import Alignment
from diffcurr.training.compiled import CompiledStep, with_shardings
from diffcurr.training.power_average import gamma_of
from diffcurr.training.randomness import step_key, stream_key
from diffcurr.training.state import TrainState, split_network
from diffcurr.training.step import StepConfig


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
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
    def told_by(self) -> dict[str, Any]:
        """The text encoder, and the weights of the codec that encodes, as JSON values; a workdir keeps them.

        Raises:
          UserError: if weights cannot be read.
        """
        encodes = self.encoder is not None and not self.task.trains_codec
        weights = self.codec.identity().get("weights") if encodes else None
        return self.conditioning.identity() | ({"codec_weights": weights} if weights else {})

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

    @property
    def _batch_share(self) -> tuple[int, int]:
        return sharding.batch_share(sharding.owners(self.mesh), jax.process_index())

    def batches(self, source: Source) -> grain.MapDataset:
        """This process's share of the batches that are trained on, from the first."""
        share, shares = self._batch_share
        return pipeline.make_dataset(
            source,
            self.dataset,
            self.conditioning.of,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            process_index=share,
            process_count=shares,
        )

    def read_ahead(self, batches: grain.MapDataset) -> grain.DatasetIterator:
        """These batches in turn, as many of them read ahead as `pipeline.ahead` says."""
        arrays: list[tuple[tuple[int, ...], Any]] = [(self.dataset.shape, np.float32)]
        fields = (*self.conditioning.spec().values(), self.features_spec)
        arrays += [(field.shape, field.dtype) for field in fields if field]
        example = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in arrays)
        shares = self._batch_share[1]
        prefetch = pipeline.ahead(example * self.config.batch_size // shares)
        return pipeline.make_iterator(batches, threads=self.dataset.threads, prefetch=prefetch)

    @functools.cached_property
    def compiled(self) -> CompiledStep:
        """The train step for this config's mesh; compiled at its first call."""
        return self.task.compiled(self)

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
        if self.edges is not None and (saved is None or np.array_equal(self.edges, saved)):
            return self  # with what it has computed
        if saved is not None:
            return self.with_edges(np.asarray(saved, np.float64))
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
    def denoising(self) -> Denoising:
        """Where the denoising error of held-out images is measured, and of how many."""
        return Denoising(**self.config.evaluation.denoising)

    def held_out_images(self) -> Batch | None:
        """Images that training never sees, with what the network is told; None where there are none, or none wanted.

        Raises:
          UserError: if they cannot be had, or there is only one.
        """
        number, dataset = self.denoising.images, self.dataset
        if not number or not dataset.holds_out:
            return None
        try:
            source = distributed.primary_first(dataset.opened_held_out)
        except UserError as error:
            raise UserError(f"{error} (or go without images held out: evaluation.denoising.images = 0)") from error
        images = pipeline.load(source, dataset, self.conditioning.of, number, seed=0)
        if len(images.x) < 2:
            raise UserError(
                f"evaluation.denoising.images = {number}: one image of {len(source)} held out has no interval; "
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
