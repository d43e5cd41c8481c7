"""The latents that `--job=encode` has written, read an example at a time."""

import dataclasses
import functools
from typing import Annotated, Any, ClassVar

import annotated_types as at
import grain
import numpy as np
from etils import epath
from jaxtyping import Float

from diffcurr import ranges
from diffcurr.codecs import Codec, Identity
from diffcurr.config import flatten
from diffcurr.data import shards
from diffcurr.data.base import Dataset
from diffcurr.data.listing import FOUND, MOST_CLASSES
from diffcurr.data.records import FEATURES, MIRROR, EncodedLatents, Records
from diffcurr.data.shards import Contents
from diffcurr.data.sources import Source
from diffcurr.data.user_files import sample_latent
from diffcurr.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded(Dataset):
    """Latents that `--job=encode` has made of another data set, in the folder `data_dir`.

    What is left to be found is read from the folder's manifest. With all of it given, a config can be checked and
    planned where the folder is not.

    Attributes:
      size: height and width of a latent; 0 for those that are stored.
      channels: channels of a latent; 0 for those that are stored.
      classes: number of classes; 0 for none, -1 for as many as are stored.
      captions: "found" for those that are stored, if there are any; "stored" where there must be some.
      flip: take the latent of an image or of its mirror image at random; both were stored if the images were mirrored.
    """

    is_latent = True
    DERIVED: ClassVar[tuple[str, ...]] = ("aligned",)

    size: Annotated[int, at.Interval(ge=0, le=2048)] = 0
    channels: Annotated[int, at.Interval(ge=0, le=1024)] = 0
    classes: Annotated[int, at.Interval(ge=FOUND, le=MOST_CLASSES)] = FOUND
    captions: Annotated[str, ranges.OneOf(("found", "stored"))] = "found"
    flip: bool = False  # type: ignore[misc]
    aligned: bool = False  # whether what is trained on has the pictures' features; see `with_features`

    @functools.cached_property
    def contents(self) -> Contents:
        """What the folder holds.

        Raises:
          UserError: if it is not whole, or not what the settings say.
        """
        if not self.data_dir:
            raise UserError(
                "dataset.data_dir is missing: give the folder that --job=encode wrote; to plan without it, give "
                "dataset.size, dataset.channels and dataset.classes"
            )
        contents, _ = shards.read_manifest(self._folder)
        height, width, channels = contents.latent_shape
        if self.size not in (0, height) or self.size not in (0, width):
            raise UserError(f"dataset.size = {self.size}: latents in {self.data_dir} are {height}x{width}; give 0")
        if self.channels not in (0, channels):
            raise UserError(f"dataset.channels = {self.channels}: latents in {self.data_dir} have {channels}; give 0")
        if self.classes not in (FOUND, 0, contents.num_classes):
            raise UserError(
                f"dataset.classes = {self.classes}: latents in {self.data_dir} have {contents.num_classes} classes; "
                f"give {FOUND} for those"
            )
        if self.captions == "stored" and not contents.captioned:
            raise UserError(
                f"dataset.captions = {self.captions!r}: {self.data_dir} has none: encode images that have captions, or "
                f"set dataset.captions = 'found'"
            )
        if self.flip and not contents.mirrored:
            raise UserError(
                f"dataset.flip = {self.flip}: {self.data_dir} has no latents of mirrored images: set dataset.flip = "
                f"False, or encode the images again with it"
            )
        return contents

    def with_features(self, *, needed: bool) -> "Encoded":
        found = dataclasses.replace(self, aligned=True)
        if needed and self._is_there:
            found._feature_contents  # noqa: B018  # whatever is wrong with them
        return found

    @property
    def features_shape(self) -> tuple[int, int] | None:
        if not (self.aligned and self._is_there and (self._folder / FEATURES / shards.MANIFEST).exists()):
            return None
        rows, columns, width = self._feature_contents.latent_shape
        return rows * columns, width

    def features_identity(self) -> dict[str, Any]:
        return (
            {FEATURES: Records(self._folder / FEATURES, self._feature_contents).fingerprint()} if self.aligned else {}
        )

    @functools.cached_property
    def _feature_contents(self) -> Contents:
        """What the folder of the pictures' features holds.

        Raises:
          UserError: if there is none, it is not whole, or they are features of other pictures.
        """
        folder, remedy = self._folder / FEATURES, "by --job=encode with --config.encode.features=dinov2"
        if not folder.is_dir():
            raise UserError(
                f"dataset.data_dir = {self.data_dir!r}: has no features of the pictures: store them there {remedy}"
            )
        found, _ = shards.read_manifest(folder)
        if words := shards.differences(flatten(self.contents.source), flatten(found.source), "in features"):
            raise UserError(f"{folder} holds features of other pictures than the latents': {words}: encode both again")
        if self.flip and not found.mirrored:
            raise UserError(
                f"dataset.flip = {self.flip}: {folder} has no features of mirrored pictures: set dataset.flip = False, "
                f"or store them again {remedy} and dataset.flip"
            )
        return found

    @property
    def _folder(self) -> epath.Path:
        return epath.Path(self.data_dir).expanduser()

    @functools.cached_property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]  # a class attribute of Dataset
        if self.size and self.channels:
            return self.size, self.size, self.channels
        height, width, channels = self.contents.latent_shape
        return height, width, channels

    @functools.cached_property
    def num_classes(self) -> int:  # type: ignore[override]
        return self.contents.num_classes if self.classes == FOUND else self.classes

    @functools.cached_property
    def captioned(self) -> bool:  # type: ignore[override]
        """Whether examples have captions; where the folder is not there or not whole, as the settings say."""
        return self.captions == "stored" or (self._is_there and self.contents.captioned)

    @property
    def _is_there(self) -> bool:
        return bool(self.data_dir) and (self._folder / shards.MANIFEST).exists()

    @property
    def found(self) -> dict[str, Any]:
        height, width, channels = self.shape
        return {
            "size": height if height == width else 0,  # another shape is in the manifest alone
            "channels": channels,
            "classes": self.num_classes,
        }

    @property
    def encoded_from(self) -> str:
        return str(self.contents.source.get("settings", {}).get("name", ""))

    @property
    def codec_identity(self) -> dict[str, Any] | None:
        """Identity of the codec whose latents they are; None where the folder is not there or not whole."""
        return dict(self.contents.codec) if self._is_there else None

    def open(self) -> Source:
        features = (lambda: Records(self._folder / FEATURES, self._feature_contents)) if self.aligned else None
        return EncodedLatents(self._folder, self.contents, mirrored=self.flip, features=features)

    def scaled(self, stored: Any) -> Float[np.ndarray, "batch height width channel"]:
        return np.asarray(stored, np.float32)

    def drawn(self, examples: grain.MapDataset) -> grain.MapDataset:
        return self._drawn(examples, flip=False, aligned=False)

    def trained(self, examples: grain.MapDataset) -> grain.MapDataset:
        return self._drawn(examples, flip=self.flip, aligned=self.aligned)

    def _drawn(self, examples: grain.MapDataset, *, flip: bool, aligned: bool) -> grain.MapDataset:
        draw = functools.partial(_draw, channels=self.shape[-1], flip=flip, aligned=aligned)
        return super().drawn(examples).random_map(draw)


def identity_of(codec: Codec) -> dict[str, Any]:
    """Identity of a codec, as it is stored beside its latents."""
    return {"name": type(codec).__name__} | codec.identity()


def check_codec(dataset: Dataset, codec: Codec) -> None:
    """Latents may be trained with the codec that made them, to be decoded by it, or with `identity`, to be shown raw.

    Raises:
      UserError: if stored latents are known to be those of another codec: with what differs.
    """
    known = dataset.codec_identity
    if known is None or isinstance(codec, Identity):
        return
    if words := shards.differences(known, identity_of(codec), "here"):
        raise UserError(
            f"codec: the latents in dataset.data_dir = {dataset.data_dir!r} are those of another one: "
            f"{words}: set codec to that one, or encode the images again by --job=encode"
        )


def _draw(
    example: dict[str, Any], rng: np.random.Generator, channels: int, flip: bool, aligned: bool
) -> dict[str, Any]:
    """The latent, or its mirror image's, drawn from its distribution; and, if aligned, that picture's features."""
    mirror, features = example.get(MIRROR), example.get(FEATURES)
    example = {name: value for name, value in example.items() if name not in (MIRROR, FEATURES)}
    mirrored = flip and rng.random() < 0.5
    if mirrored:
        example["image"] = mirror
    if aligned and features is not None:
        example[FEATURES] = features(mirrored)
    return sample_latent(example, rng, channels)
