"""The recipe: from a config to the parts that it names."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from diffcurr import config as config_lib
from diffcurr import parts
from diffcurr.conditioning import Conditioning, Field
from diffcurr.curriculum.clusters import Clustering
from diffcurr.curriculum.rules import NoStages, Rule, Staged
from diffcurr.data.datasets import Dataset
from diffcurr.data.encoded import check_codec
from diffcurr.difficulty import convergence
from diffcurr.errors import UserError, concerning
from diffcurr.experiment import tables
from diffcurr.experiment.experiment import Experiment
from diffcurr.metrics.evaluation import Metric
from diffcurr.pretrained.picture_features import PictureFeatures
from diffcurr.processes import Process
from diffcurr.sampling.drawing import Sampling
from diffcurr.sampling.held_out import Denoising
from diffcurr.tasks import Sampled, Task
from diffcurr.training import augmentation, distributed, sharding
from diffcurr.training.alignment import Alignment

del tables  # imported for what it registers


def from_config(config: ConfigDict | Mapping[str, Any], devices: Sequence[jax.Device] | None = None) -> Experiment:
    """Checks every value of a config and gathers the parts that it names. Costs no compute.

    Args:
      devices: devices to run on; all there are if None.

    Raises:
      UserError: one line that names the value and the remedy.
    """
    config = config_lib.complete(config)
    config_lib.check_keys(config)
    with concerning("analysis.convergence"):
        convergence.check_steps(config.analysis.convergence.steps, config.analysis.convergence.evaluate_every)

    dataset, alignment = _data(config)
    found = {"dataset": dataset.found} | ({"alignment": alignment.found} if alignment else {})
    config = config_lib.changed(config, found)
    task = _task(config, alignment)
    codec = parts.build("codec", config.codec)
    process = parts.build("process", config.process)
    conditioning = _conditioning(config, dataset)
    optimizer = parts.build("optimizer", config.optimizer)
    with concerning("optimizer"):
        rate, transformation = optimizer.rate(config.steps), optimizer.transformation(config.steps)
    rule, clustering, edges = _curriculum(config, process)
    mesh = _mesh(config, devices)

    solver = parts.build("sampling.solver", config.sampling.solver)
    check_codec(dataset, codec)
    with concerning("codec"):
        shape = dataset.shape if dataset.is_latent else codec.latent_shape(dataset.shape)
    with concerning("sampling"):
        sampling = Sampling(
            **{key: config.sampling[key] for key in config.sampling if key not in ("samples", "solver")}
        )
    metrics = _metrics(config, dataset, task, process)
    looks_at = parts.build("encode.features", config.encode.features)
    with concerning(f"task {config.task.name}"):
        seen = task.network_shape(dataset, codec, shape)

    experiment = Experiment(
        config=config,
        task=task,
        dataset=dataset,
        codec=codec,
        shape=shape,
        process=process,
        conditioning=conditioning,
        make_network=_network(config, seen, dataset, process, conditioning, alignment),
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


def _data(config: ConfigDict) -> tuple[Dataset, Alignment | None]:
    """The data set, with the features that the network is aligned with, and the alignment."""
    dataset = parts.build("dataset", config.dataset)
    chosen = parts.build("alignment", config.alignment)
    with concerning("alignment"):
        found: tuple[Dataset, Alignment | None] = chosen.on(dataset)
    return found


def _task(config: ConfigDict, alignment: Alignment | None) -> Task:
    task: Task = parts.build("task", config.task)
    if alignment and not task.denoises:
        raise UserError(
            f"alignment.name = {config.alignment.name!r}: is for task.name = 'diffusion', and not for "
            f"{config.task.name!r}; set alignment.name = 'none'"
        )
    return task


def _conditioning(config: ConfigDict, dataset: Dataset) -> Conditioning:
    prompts = functools.cache(functools.partial(_prompts, dataset))
    made: Conditioning = parts.build(
        "conditioning", config.conditioning, num_classes=dataset.num_classes, prompts=prompts
    )
    if made.reads_captions and not dataset.captioned:
        raise UserError(
            f"conditioning.name = {config.conditioning.name!r}: dataset {config.dataset.name} has no captions; choose "
            f"one that has, or another conditioning"
        )
    return made


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


def _curriculum(config: ConfigDict, process: Process) -> tuple[Rule, Clustering, np.ndarray | None]:
    """(rule, clustering, edges); no edges where they follow from a curve that has yet to be measured."""
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
    return rule, clustering, edges


def _mesh(config: ConfigDict, devices: Sequence[jax.Device] | None) -> Mesh:
    """The mesh, whose devices can share the batch."""
    with concerning("mesh"):
        mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
        owners = sharding.owners(mesh)
        sharding.batch_share(owners, int(owners.flat[0]))
    shards = sharding.batch_shards(mesh)
    unit = shards * config.microbatches
    if config.batch_size % unit:
        raise UserError(
            f"batch_size = {config.batch_size}: must be divisible by {unit}, the {shards} devices that share the batch "
            f"times microbatches = {config.microbatches}; the next such size is {-(-config.batch_size // unit) * unit} "
            f"(a run that is continued keeps its own, and needs a number of devices that divides it)"
        )
    return mesh


def _metrics(config: ConfigDict, dataset: Dataset, task: Task, process: Process) -> dict[str, Metric]:
    """What is measured of samples, by name; the grid of the denoising error is checked, too."""
    metrics = parts.build_several("evaluation.metrics", config.evaluation.metrics)
    for name, one in metrics.items():
        if one.held_out and not dataset.holds_out:
            raise UserError(
                f"evaluation.metrics.{name}: dataset {config.dataset.name} has no images that training never sees; set "
                f"dataset.held_out to the share of them"
            )
        with concerning(f"evaluation.metrics.{name}"):
            one.check_features(config.evaluation.features)
    with concerning("evaluation.denoising"):
        denoising = Denoising(**config.evaluation.denoising)
        try:
            denoising.check(process)
        except ValueError:  # of no account where nothing is held out; to know that, all files may have to be listed
            if denoising.images and task.denoises and dataset.holds_out:
                raise
    return metrics


def _network(
    config: ConfigDict,
    shape: tuple[int, ...],
    dataset: Dataset,
    process: Process,
    conditioning: Conditioning,
    alignment: Alignment | None,
) -> Callable[[nnx.Rngs], nnx.Module]:
    """What makes the network for x of a shape, with random weights."""
    network = parts.choose("network", config.network.name)
    arguments = parts.check("network", network, {key: v for key, v in config.network.items() if key != "name"})
    fields = conditioning.spec()
    if dataset.augment:
        fields["augment"] = Field((augmentation.NUM_LABELS,), jnp.float32)

    def make_network(rngs: nnx.Rngs) -> nnx.Module:
        settings = {"learn_variance": process.learns_variance, "dtype": config.dtype, "rngs": rngs}
        made: nnx.Module = network.from_spec(shape, fields, **settings, **arguments)
        if alignment:
            with concerning("alignment"):
                alignment.attach(made, config.dtype, rngs)
        return made

    return make_network
