"""Pictures or latents that the user brings: a folder or a zip of files, in the layouts that public tools leave."""

import abc
import functools
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from diffcurr.data import captions, latents, pictures
from diffcurr.data.listing import Listing
from diffcurr.data.on_threads import each
from diffcurr.data.sources import BadExample
from diffcurr.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
LATENT_SUFFIXES = (".npy",)


class _Files(abc.ABC):
    """The examples of a listing, decoded when they are asked for.

    Attributes:
      classes: the names of the classes where folders gave them, or None.
      skipped: number of files that could not be read and are left out.
    """

    skipped: int = 0

    def __init__(self, listing: Listing, on_bad_file: str = "stop", texts: Sequence[tuple[str, ...]] | None = None):
        """
        Args:
          texts: the captions of each example, where they have some.
          on_bad_file: "stop" at the first file that cannot be read, when it is met; or "skip" all such files, which are
            looked for now, by decoding every file.

        Raises:
          UserError: if the first file cannot be read, or, of those to be skipped, there are more than half.
        """
        self._listing, self._texts = listing, texts
        self.classes = listing.classes
        if on_bad_file == "skip":
            self._skip_bad_files()
        _ = self[0]  # what cannot be read is said before training

    def __len__(self) -> int:
        return len(self._listing.names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._listing!r})"

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self._listing.names[index]
        try:
            image = self._decode(self._listing.read(name))
        except BadExample as error:
            raise self._listing.refuse(name, error) from error
        told = {} if self._texts is None else {captions.ALL: self._texts[index]}
        return {"image": image, "label": self._listing.labels[index]} | told

    @property
    def labels(self) -> Int[np.ndarray, " example"]:
        """The labels of all examples, int32."""
        return self._listing.labels

    def captions(self, of: Iterable[int] | None = None) -> list[str]:
        """See `captions.Captioned`; none where the examples have none."""
        return captions.listed(self._texts or [], of)

    def name_of(self, index: int) -> str:
        """Where the file of an example lies, for a message."""
        return self._listing.place_of(self._listing.names[index])

    def identity(self) -> dict[str, Any]:
        """See `sources.identity`."""
        return self._listing.identity() | ({} if self._texts is None else captions.identity(self._texts))

    @abc.abstractmethod
    def _decode(self, content: bytes) -> np.ndarray:
        """The example in a file. Raises BadExample."""

    def _skip_bad_files(self) -> None:
        def problem(index: int) -> str:
            try:
                _ = self[index]
            except BadExample as error:
                return str(error)
            return ""

        problems = list(each(problem, range(len(self)), "checking files"))
        bad = [text for text in problems if text]
        if not bad:
            return
        text = f"{len(bad):,} of {len(self):,} files cannot be read: {'; '.join(bad[:3])}{'; ...' if bad[3:] else ''}"
        if 2 * len(bad) > len(self):
            raise UserError(f"dataset.on_bad_file = 'skip': {text}; with more than half bad, something else is wrong")
        print(f"skipped: {text}", file=sys.stderr, flush=True)
        self.skipped = len(bad)
        kept = [index for index, text in enumerate(problems) if not text]
        self._listing.keep(kept)
        if self._texts is not None:
            self._texts = [self._texts[index] for index in kept]


class ImageFiles(_Files):
    """{"image": uint8 [size, size, channels], "label": int, and "captions" if told}; see `pictures.decode`."""

    def __init__(
        self,
        listing: Listing,
        size: int,
        channels: int = 3,
        resize: str = "centre",
        background: pictures.Colour = (255, 255, 255),
        on_bad_file: str = "stop",
        texts: Sequence[tuple[str, ...]] | None = None,
    ):
        self._decode_picture = functools.partial(
            pictures.decode, size=size, channels=channels, resize=resize, background=background
        )
        super().__init__(listing, on_bad_file, texts)

    def _decode(self, content: bytes) -> np.ndarray:
        return self._decode_picture(content)


class LatentFiles(_Files):
    """{"image": float32 [size, size, channels or 2 channels], "label": int} of an autoencoder's .npy files.

    A file holds [channels, size, size] (a leading axis of 1 is dropped); twice the channels are means, then standard
    deviations, from which training draws each time.
    """

    def __init__(self, listing: Listing, size: int, channels: int, scale: float, on_bad_file: str = "stop"):
        """
        Args:
          scale: what every value is multiplied by.
        """
        self._shapes = [(factor * channels, size, size) for factor in (1, 2)]
        self._scale = np.float32(scale)
        super().__init__(listing, on_bad_file)

    def _decode(self, content: bytes) -> np.ndarray:
        return latents.decode(content, self._shapes, self._scale)
