"""What `--job=encode` has written, read an example at a time: latents, and features of their pictures beside them."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import grain
import numpy as np
from etils import epath
from jaxtyping import Float16

from diffcurr.data import captions, shards
from diffcurr.data.shards import Contents, Stored
from diffcurr.data.sources import BadExample, fingerprint
from diffcurr.errors import UserError, first_line

MIRROR = "mirror"  # the field of an example that holds the latent of its mirrored image
FEATURES = "features"  # the field that holds features of its picture; and their folder, in that of the latents


class Records:
    """The examples in the shards of a folder as they are stored, each read when asked for.

    Attributes:
      manifest: {"examples", "bytes", "sha256"} of each shard.
    """

    def __init__(self, folder: epath.Path, contents: Contents):
        """
        Raises:
          UserError: if a shard is missing, or not as long as the manifest says.
        """
        self._folder, self._contents = folder, contents
        self.manifest = shards.read_manifest(folder)[1]
        paths = [shards.shard_file(folder, index) for index in range(contents.number)]
        for path, known in zip(paths, self.manifest, strict=True):
            size = path.stat().length if path.exists() else 0
            if size != known["bytes"]:
                there = f"has {size:,} bytes of {known['bytes']:,}" if size else "is missing"
                raise UserError(f"{path} {there}: {shards.FINISH}")
        # With its number of examples behind the name, a file is opened when it is needed.
        named = [f"{path}[0:{known['examples']}]" for path, known in zip(paths, self.manifest, strict=True)]
        self._records = grain.sources.ArrayRecordDataSource(named)

    def __getitem__(self, index: int) -> Stored:
        try:
            return self._contents.unpack(self._records[index])
        except Exception as error:  # BadExample, or whatever the reader raises at a damaged file
            path = shards.shard_file(self._folder, index // self._contents.shard)
            what = str(error) if isinstance(error, BadExample) else f"cannot be read: {first_line(error)}"
            raise BadExample(
                f"{path}: example {index % self._contents.shard} {what}; --job=encode finds and replaces such shards"
            ) from error

    def fingerprint(self) -> str:
        """A short hash of all of them."""
        return fingerprint(*(one["sha256"].encode() for one in self.manifest))


class EncodedLatents:
    """{"image": float32 [height, width, channels or 2 channels], "label": int}, read from shards when asked for.

    Examples that were captioned have "captions" too.

    Attributes:
      classes: the names of the classes, or None.
    """

    def __init__(
        self,
        folder: epath.Path,
        contents: Contents,
        *,
        mirrored: bool,
        features: Callable[[], Records] | None = None,
    ):
        """
        Args:
          mirrored: whether the latent of the mirrored image is given too, as "mirror".
          features: opens those of the pictures, when they are first asked for; then "features" is a function that
            reads those of the picture, or of its mirror image if told so.

        Raises:
          UserError: if a shard is missing, or not as long as the manifest says.
        """
        self._folder, self._contents, self._mirrored = folder, contents, mirrored
        self._records, self._open_features = Records(folder, contents), features
        self.classes = contents.classes

    def __len__(self) -> int:
        return self._contents.examples

    def __repr__(self) -> str:
        return f"EncodedLatents({len(self)} latents in {self._folder})"

    def __getitem__(self, index: int) -> dict[str, Any]:
        stored, fields = self._records[index]
        label = {"label": np.int32(fields["label"])} if "label" in fields else {}
        mirror = {MIRROR: stored[1].astype(np.float32)} if self._mirrored else {}
        told = {captions.ALL: tuple(fields[captions.ALL])} if self._contents.captioned else {}
        features = {FEATURES: functools.partial(self._features_of, index)} if self._open_features else {}
        return {"image": stored[0].astype(np.float32)} | label | mirror | told | features

    def _features_of(self, index: int, mirrored: bool) -> Float16[np.ndarray, "token feature"]:
        stored = self._features[index][0][int(mirrored)]
        return stored.reshape(-1, stored.shape[-1])

    @functools.cached_property
    def _features(self) -> Records:
        assert self._open_features is not None
        return self._open_features()

    @functools.cached_property
    def _texts(self) -> list[tuple[str, ...]]:
        return shards.read_captions(self._folder, self._contents) if self._contents.captioned else []

    def captions(self, of: Iterable[int] | None = None) -> list[str]:
        """See `captions.Captioned`; none where the examples have none.

        Raises:
          UserError: if their file is missing or damaged.
        """
        return captions.listed(self._texts, of)

    def identity(self) -> dict[str, Any]:
        """See `sources.identity`."""
        told = captions.identity(self._texts) if self._contents.captioned else {}
        return told | {
            "latents": self._records.fingerprint(),
            "codec": fingerprint(repr(sorted(self._contents.codec.items())).encode()),
        }
