"""A data set's latents, written once to be trained on: `python -m diffcurr.main --config=... --job=encode`"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from diffcurr import config as config_lib
from diffcurr import experiment as experiment_lib
from diffcurr.codecs import Codec, Identity
from diffcurr.codecs.on_host import OnHost
from diffcurr.data import captions, pipeline, shards
from diffcurr.data.datasets import Dataset
from diffcurr.data.encoded import identity_of
from diffcurr.data.on_threads import each
from diffcurr.data.records import FEATURES
from diffcurr.data.shards import Contents, Stored
from diffcurr.data.sources import Part, Source, identity, name_of, skipped
from diffcurr.errors import UserError, concerning
from diffcurr.experiment import Experiment
from diffcurr.pretrained.picture_features import PictureFeatures
from diffcurr.reporting import grids
from diffcurr.reporting.progress import Countdown, Line
from diffcurr.sampling.encoding import Encoder
from diffcurr.training import distributed

PICTURE = "encode.png"
SHOWN = 24  # images that are shown beside their reconstructions


class Written(NamedTuple):
    """Latents, or features of the pictures, and the folder that they are written to.

    Attributes:
      by: name of the part of the config that makes them.
      contents: what the shards hold.
      network: the codec, or the network whose features they are.
    """

    by: str
    folder: epath.Path
    contents: Contents
    network: Codec | PictureFeatures


def run(config: ConfigDict, workdir: epath.PathLike, out: epath.PathLike | None = None) -> int:
    """Writes shards of latents, manifest.json and encode.png. Returns the exit code.

    Where the config asks for features of the pictures, their shards and manifest are written to the folder `features`.

    Process p of P writes shards p, p + P, ...; the shards are the same for any number of processes and devices. Started
    again, it goes on with the shards that are not there.

    Args:
      out: the folder to write to; `encoded` in the workdir if None.

    Raises:
      UserError: if the folder holds other latents, cannot be written, or an image cannot be read or encoded.
    """
    config = config_lib.changed(config_lib.complete(config), {"alignment": "none"})  # with what is made here
    experiment, line = experiment_lib.from_config(config), Line(silent=not distributed.is_primary())
    folder = epath.Path(epath.Path(workdir) / "encoded" if out is None else out).expanduser()
    _refuse_what_cannot_be_stored(experiment, folder)
    source = distributed.primary_first(experiment.dataset.opened)
    everything = [_latents(experiment, source, folder)]
    if experiment.picture_features:
        everything.append(_features(experiment, experiment.picture_features, everything[0]))
    for one in everything:
        shards.check_contents(one.folder, one.contents)
    for one in everything:
        _write(experiment, source, one, line)
    if distributed.is_primary():
        contents = everything[0].contents
        with_features = " --config.alignment=repa" if len(everything) > 1 else ""
        line.say(
            f"{contents.examples:,} images of {experiment.config.dataset.name}{_skipped(contents)}; "
            f"train with --config.dataset=encoded --config.dataset.data_dir={folder}{with_features}"
        )
    return 0


def _write(experiment: Experiment, source: Source, what: Written, line: Line) -> None:
    """Writes what is not there yet, and the manifest; in all processes."""
    dataset, primary, (by, folder, contents, network) = experiment.dataset, distributed.is_primary(), what

    ########################################################### what is to be written
    mine = range(jax.process_index(), contents.number, jax.process_count())
    written = each(functools.partial(shards.is_written, folder), mine, "checking shards")
    missing = [index for index, whole in zip(mine, written, strict=True) if not whole]
    number = sum(len(contents.numbers(index)) for index in missing)
    left = int(distributed.total(number))  # from here on, all have looked at what is there
    line.say(
        f"{contents.examples:,} images of {experiment.config.dataset.name}, {left:,} of them to be encoded "
        f"by {by} on {experiment.mesh.size} device(s); writing to {folder}"
    )
    encoder = Encoder(codec=network, params=network.load(), devices=experiment.decoder.devices, contents=contents)

    def prepare() -> None:
        shards.prepare(folder, whole=not left)
        if isinstance(network, Codec) and not (folder / PICTURE).exists():
            _draw(folder / PICTURE, network, encoder, dataset, source, alpha=experiment.has_alpha)
            line.say(f"images beside what the codec makes of them: look at {folder / PICTURE}")

    distributed.on_primary(prepare)

    ####################################################################### the shards
    examples = _read(source, contents, missing, dataset.threads, ahead=2 * encoder.batch)
    whose = "" if jax.process_count() == 1 else f" (process 0 of {jax.process_count()})"
    examples, again = itertools.tee(examples)
    told = _told(encoder(examples, dataset.scaled), again)
    stored = _counted(told, number, Countdown(line, f"encoded{whose}", "images"))
    problem = None
    try:
        for index in missing:
            part = itertools.islice(stored, len(contents.numbers(index)))
            shards.write(folder, contents, index, part, functools.partial(name_of, source))
    except UserError as error:
        problem = error
    failed = distributed.total(problem is not None)
    if problem is not None:
        raise problem
    if failed:
        raise UserError("--job=encode: another process could not write its shards: see what it says")

    ##################################################################### the manifest
    if primary:
        manifest = shards.finish(folder, contents)
        shape = "x".join(map(str, contents.latent_shape))
        text = f"{folder}: {contents.examples:,} arrays of {shape}"
        if isinstance(network, Codec):  # of features there are too many
            mean, std = (" ".join(f"{value:.3g}" for value in manifest["statistics"][key]) for key in ("mean", "std"))
            text = f"{folder}: {contents.examples:,} latents of {shape}, mean {mean}, std {std} by channel"
        line.say(text)


def _refuse_what_cannot_be_stored(experiment: Experiment, folder: epath.Path) -> None:
    config, dataset = experiment.config, experiment.dataset
    if dataset.is_latent:
        raise UserError(
            f"--job=encode: dataset.name = {config.dataset.name!r} holds latents already: give a data set of images, "
            f"such as --config.dataset=folder"
        )
    if isinstance(experiment.codec, Identity) and not experiment.picture_features:
        raise UserError(f"--job=encode: codec.name = {config.codec.name!r} encodes nothing: choose another codec")
    if len(experiment.shape) != 3:
        raise UserError(f"--job=encode: latents of shape {experiment.shape} cannot be stored, which is no image's")
    if dataset.augment:
        raise UserError(
            f"--job=encode: dataset.augment = {dataset.augment}: stored latents cannot be augmented; set it to 0"
        )
    if getattr(dataset, "resize", "") == "random_crop":
        raise UserError(
            "--job=encode: dataset.resize = 'random_crop': takes another crop at each pass, and one is stored; choose "
            "another"
        )
    if "://" in str(folder):
        raise UserError(
            f"--out={folder}: shards are written to a disk: give a folder there, and copy it when it is whole"
        )


def _latents(experiment: Experiment, source: Source, folder: epath.Path) -> Written:
    """The latents that are to be written; none is computed here."""
    config, dataset, codec = experiment.config, experiment.dataset, experiment.codec
    # These do not decide what an image looks like; the captions are known by their hash.
    other = ("data_dir", "threads", "on_bad_file", "flip", "captions", "annotations")
    settings = {key: value for key, value in config.dataset.to_dict().items() if key not in other}
    one = jax.ShapeDtypeStruct((1, *dataset.shape), jnp.float32)
    _, std = jax.eval_shape(codec.encode_with, codec.abstract_params(), one)
    contents = Contents(
        examples=len(source),
        shard=config.encode.shard,
        latent_shape=experiment.shape,
        image_shape=dataset.shape,
        num_classes=dataset.num_classes,
        classes=getattr(source, "classes", None),
        has_std=std is not None,
        mirrored=dataset.flip,
        dtype=config.encode.dtype,
        codec=identity_of(codec),
        source={"settings": settings} | identity(source),
        skipped=skipped(source),
        captioned=dataset.captioned,
    )
    return Written(config.codec.name, folder, contents, codec)


def _features(experiment: Experiment, network: PictureFeatures, latents: Written) -> Written:
    """The features that are to be written, of the images whose latents are; none is computed here."""
    name = experiment.config.encode.features.name
    with concerning("encode.features"):
        shape = network.shape(experiment.dataset.shape)
    contents = dataclasses.replace(
        latents.contents,
        latent_shape=shape,
        has_std=False,
        dtype="float16",
        codec={"name": name} | network.identity(),
        captioned=False,
    )
    return Written(name, latents.folder / FEATURES, contents, network)


def _read(
    source: Source, contents: Contents, indices: Sequence[int], threads: int, ahead: int
) -> Iterator[dict[str, Any]]:
    """The examples of some shards, in order, read ahead on threads."""
    numbers = [np.array(contents.numbers(index)) for index in indices]
    part = Part(source, np.concatenate([np.zeros(0, int), *numbers]))
    examples = grain.MapDataset.source(part).to_iter_dataset(pipeline.read_options(threads, ahead))
    return iter(examples) if numbers else iter(())


def _told(stored: Iterator[Stored], examples: Iterator[dict[str, Any]]) -> Iterator[Stored]:
    """What is stored of each example, with its captions where it has some."""
    for (array, fields), example in zip(stored, examples, strict=True):
        yield array, {**fields, captions.ALL: example[captions.ALL]} if captions.ALL in example else fields


def _counted(stored: Iterator[Stored], number: int, countdown: Callable[[int, int], None]) -> Iterator[Stored]:
    for done, one in enumerate(stored, 1):
        countdown(done, number)
        yield one


def _draw(path: epath.Path, codec: Codec, encoder: Encoder, dataset: Dataset, source: Source, *, alpha: bool) -> None:
    """Images, each beside what the codec makes of the mean of its latent."""
    number = min(SHOWN, len(source), encoder.batch)
    images = dataset.scaled(np.stack([encoder.checked(source[index]["image"]) for index in range(number)]))
    decoder = OnHost(codec=codec, params=lambda: encoder.params, devices=encoder.devices)
    pairs = np.stack([images, decoder.decoded(encoder.means(images))], axis=1)
    grids.save_grid(path, pairs.reshape(-1, *images.shape[1:]), columns=8, alpha=alpha)


def _skipped(contents: Contents) -> str:
    return f"; {contents.skipped:,} that could not be read are left out" if contents.skipped else ""
