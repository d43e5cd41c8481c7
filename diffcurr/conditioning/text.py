"""Text-conditional: the network is told the states that a text encoder gives the words of a text."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Bool, Float16

from diffcurr import ranges
from diffcurr.conditioning.base import Condition, Conditioning, Field, Wish
from diffcurr.conditioning.encoded_texts import EncodedTexts, States, TextEncoder
from diffcurr.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text(Conditioning):
    """{"text": float16 [B, L, D], "text_mask": bool [B, L]}: the states of a text's words, and which words there are.

    No text is the empty one, encoded: `null` and what training drops.

    Attributes:
      encoder: gives the states.
      dropout: the share of texts that training replaces by the empty one, to learn what guidance needs.
      store: folder of encoded texts, which runs may share; the folder `text` of the workdir if "".
      negative: the text that stands in the place of the empty one, which guidance leads away from.
      known: the texts of the data, encoded; where there are none, texts are encoded when they are met.
    """

    DERIVED: ClassVar = (*Conditioning.DERIVED, "negative", "known")
    reads_captions: ClassVar = True

    encoder: TextEncoder
    dropout: ranges.ShareBelowOne = 0.1
    store: str = ""
    negative: str = ""
    known: EncodedTexts | None = None

    def spec(self) -> dict[str, Field]:
        length, width = self.encoder.length, self.encoder.width
        return {"text": Field((length, width), jnp.float16), "text_mask": Field((length,), jnp.bool_)}

    def of(self, examples: Mapping[str, Any]) -> Condition:
        return self._told([str(caption) for caption in np.asarray(examples["caption"])])

    def drop(self, condition: Condition, dropped: Bool[Array, " batch"]) -> Condition:
        states, mask = self._none
        return condition | {
            "text": jnp.where(dropped[:, None, None], states, condition["text"]),
            "text_mask": jnp.where(dropped[:, None], mask, condition["text_mask"]),
        }

    def chosen(self, number: int, wanted: Wish = None) -> Condition:
        return self._told(self.captions(number, wanted))

    def captions(self, number: int, wanted: Wish = None) -> list[str]:
        given = list(self.prompts()) if wanted is None else wanted
        texts: list[Any] = np.atleast_1d(np.asarray(given, object)).tolist()
        if not len(texts):
            raise ValueError("prompts []: give one at least")
        others = [text for text in texts if not isinstance(text, str)]
        if others:
            raise ValueError(f"classes {others}: the network is told texts; give prompts")
        return [str(texts[index % len(texts)]) for index in range(number)]

    def wanted(self, number: int) -> tuple[np.ndarray | None, Sequence[str]]:
        captions, label = self.captions(number), self.prompts()
        return np.array([label[caption] for caption in captions]) if self.num_classes else None, captions

    def recorded(self, number: int, wanted: Wish = None) -> dict[str, np.ndarray]:
        return {"captions": np.asarray(self.captions(number, wanted))}

    def identity(self) -> dict[str, Any]:
        return {"text_encoder": self.encoder.identity()}

    def prepared(self, texts: Iterable[str], workdir: epath.Path, say: Callable[[int, int], None]) -> "Text":
        store = epath.Path(self.store).expanduser() if self.store else workdir / "text"
        return dataclasses.replace(self, known=EncodedTexts.of(texts, self.encoder, store, say))

    def leading_away_from(self, negative: str) -> "Text":
        return dataclasses.replace(self, negative=negative)

    def outlined(self) -> "Text":
        return dataclasses.replace(self, encoder=_Outline(self.encoder.length, self.encoder.width))

    def _told(self, texts: Sequence[str]) -> Condition:
        if self.known is not None and all(text in self.known for text in texts):
            states, mask = self.known(texts)
        else:
            row = {text: index for index, text in enumerate(sorted(set(texts)))}
            states, mask = self.encoder.encode(list(row))
            rows = [row[text] for text in texts]
            states, mask = states[rows], mask[rows]
        return {"text": states, "text_mask": mask}

    @functools.cached_property
    def _none(self) -> tuple[Float16[np.ndarray, "word width"], Bool[np.ndarray, " word"]]:
        # It may be asked for while a program is traced, under a mesh and a guard of transfers; a thread knows of none.
        with ThreadPoolExecutor(1) as thread:
            states, mask = thread.submit(self.encoder.encode, [self.negative]).result()
        return states[0], mask[0]


@dataclasses.dataclass(frozen=True)
class _Outline:
    """Stands in the place of an encoder whose weights are not there, for programs that are compiled and not run."""

    length: int
    width: int

    def encode(self, texts: Sequence[str]) -> States:
        shape = (len(texts), self.length)
        return np.zeros((*shape, self.width), np.float16), np.ones(shape, bool)

    def identity(self) -> dict[str, Any]:
        raise UserError("an outline of a text encoder encodes nothing")
