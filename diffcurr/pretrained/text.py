"""What the text encoders share: reading a Hugging Face folder, texts to tokens, and encoding in batches of one size.

Texts are cut into tokens by the library `tokenizers`, which the extra `text` brings.
"""

import hashlib
import json
import pathlib
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import annotated_types as at
import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from diffcurr import ranges
from diffcurr.errors import UserError, first_line
from diffcurr.pretrained import arrays as arrays_lib

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PathLike: TypeAlias = str | pathlib.Path
WEIGHTS, INDEX, CONFIG, TOKENIZER = "model.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json"
MOST_BYTES = 2**37  # of a file of weights: T5-XXL's encoder in float32 is 19 GB
BATCH_SIZE = 64
SAMPLE = 2**12  # bytes that stand for a third of an array in the fingerprint
REMEDY = f"give a folder as Hugging Face has it, with {CONFIG}, {WEIGHTS} and {TOKENIZER}"


class Folder:
    """A folder of a public network: config.json, tokenizer.json, and weights in one safetensors file or several.

    Every method raises UserError, naming the file, if it is missing or cannot be read. A pickle is never read.
    """

    def __init__(self, path: PathLike):
        self.path = pathlib.Path(path).expanduser()
        if not str(path) or not self.path.is_dir():
            raise UserError(f"folder = {str(path)!r}: is no folder: {REMEDY}")

    def config(self) -> dict[str, Any]:
        """What config.json holds."""
        return self._json(CONFIG, REMEDY)

    def weight_files(self) -> list[pathlib.Path]:
        """The safetensors files: model.safetensors, or those that model.safetensors.index.json lists."""
        if (self.path / WEIGHTS).exists() or not (self.path / INDEX).exists():
            return [self._file(WEIGHTS, f"{REMEDY}; with many files also {INDEX}")]
        listed = self._json(INDEX, REMEDY).get("weight_map")
        names = set(listed.values()) if isinstance(listed, dict) and listed else {None}
        wrong = [name for name in names if not isinstance(name, str) or pathlib.PurePath(name).name != name]
        if wrong:
            raise UserError(f"{self.path / INDEX}: weight_map names {wrong[0]!a:.80}: give the index as published")
        return [self._file(name, "give every file that the index lists") for name in sorted(map(str, names))]

    def arrays(self, wanted: Callable[[str], bool] = lambda name: True) -> arrays_lib.Arrays:
        """The arrays whose names are wanted."""
        found: arrays_lib.Arrays = {}
        for path in self.weight_files():
            part, _ = arrays_lib.read(path, MOST_BYTES, wanted)
            twice = found.keys() & part.keys()
            if twice:
                raise UserError(f"{path}: {min(twice)} is in another file too: give the files as published")
            found |= part
        return found

    def tokenizer(self) -> "Tokenizer":
        """The tokenizer, without the padding and the limit of length that the file may hold."""
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise UserError("the package tokenizers is missing: pip install tokenizers") from error
        remedy = "transformers writes it by AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        path = self._file(TOKENIZER, remedy)
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises Exception itself
            raise UserError(f"{path}: cannot be read ({first_line(error)}): {remedy}") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    def token_id(self, kind: str, tokenizer: "Tokenizer") -> int | None:
        """The number of a special token, such as "pad_token", from the tokenizer's configs; None if they name none."""
        for file in ("tokenizer_config.json", "special_tokens_map.json"):
            if (self.path / file).exists():
                given = self._json(file, REMEDY).get(kind)
                found = tokenizer.token_to_id(str(given.get("content") if isinstance(given, dict) else given))
                if found is not None:
                    return int(found)
        return None

    def fingerprint(self, facts: Mapping[str, Any]) -> str:
        """A short hash of the weights, the tokenizer, and facts (JSON values) such as the sizes.

        It takes the headers of the weights and three samples of each array, so that it is cheap for any size.
        """
        whole = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        whole.update(self._file(TOKENIZER, REMEDY).read_bytes())
        for path in self.weight_files():
            try:
                for part in _samples(path):
                    whole.update(part)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
                raise UserError(f"{path}: cannot be read ({first_line(error)}): give a safetensors file") from error
        return whole.hexdigest()[:16]

    def _file(self, name: str, remedy: str) -> pathlib.Path:
        path = self.path / name
        if not path.is_file():
            raise UserError(f"{path}: is missing: {remedy}")
        return path

    def _json(self, name: str, remedy: str) -> dict[str, Any]:
        path = self._file(name, remedy)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: cannot be read ({first_line(error)}): {remedy}") from error
        if not isinstance(found, dict):
            raise UserError(f"{path}: is no JSON object: {remedy}")
        return found


def _samples(path: pathlib.Path) -> Iterator[bytes]:
    """The header of a safetensors file, and bytes of each array: first, middle and last."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = struct.unpack("<Q", file.read(8))[0]
        if length > size - 8:
            raise ValueError("header larger than the file")
        header = file.read(length)
        yield header
        for name, one in sorted(json.loads(header).items()):
            if name != "__metadata__":
                begin, end = (8 + length + offset for offset in one["data_offsets"])
                for start in (begin, (begin + end) // 2, max(begin, end - SAMPLE)):
                    file.seek(start)
                    yield file.read(min(SAMPLE, end - start))


def whole_number(config: Mapping[str, Any], key: str, default: int) -> int:
    """A size of a public config; the default of the public code where the config leaves it out.

    Raises:
      ValueError: if it is no size.
    """
    value = config.get(key, default)
    ranges.check({key: Annotated[int, at.Interval(ge=1, le=2**20)]}, {key: value})
    return int(value)


def section(config: Mapping[str, Any], whole: str, key: str, alone: str) -> Mapping[str, Any]:
    """The part of a public config that is about one tower.

    Args:
      whole: `model_type` of a config in which it is the section `key`.
      alone: `model_type` of a config of that tower alone.

    Raises:
      ValueError: if the config is neither.
    """
    check_config({"model_type": config.get("model_type")}, {"model_type": (whole, alone)}, f"a {whole}")
    part = config if config["model_type"] == alone else config.get(key) or {}
    if not isinstance(part, Mapping):
        raise ValueError(f"{key} = {ranges.shown(part)}: must be a section; give the file as published")
    return part


def check_config(config: Mapping[str, Any], known: Mapping[str, Any], kind: str) -> None:
    """Raises ValueError if a config says something else than the only value that `kind` has here."""
    for key, value in known.items():
        given = config.get(key, value)
        if given not in value if isinstance(value, tuple) else given != value:
            words = " or ".join(map(repr, value)) if isinstance(value, tuple) else repr(value)
            raise ValueError(f"{key} = {ranges.shown(given)}: must be {words}; give the folder of {kind}")


class Encoded(NamedTuple):
    """What a network says of a batch of texts.

    Attributes:
      tokens: float32 [B, L, D], of every token, padding too.
      vectors: float32 [B, E], one for each text; None where the network has none.
    """

    tokens: Any
    vectors: Any = None


class Encoder:
    """Texts -> tokens, by a network and its tokenizer. Called with (texts, length); see `__call__`.

    Attributes:
      width: D, of the tokens.
      most: the largest length; None if there is no limit.
    """

    def __init__(
        self,
        network: nnx.Module,
        apply: Callable[[Any, Array, Array], Encoded],
        tokenizer: "Tokenizer",
        *,
        pad_id: int | None,
        width: int,
        vocab_size: int,
        most: int | None = None,
        batch_size: int = BATCH_SIZE,
    ):
        """
        Args:
          apply: (network, ids int [B, L], mask bool [B, L]) -> what it says of them.
          pad_id: the token that fills texts up to the length; the end token if None.
          vocab_size: number of tokens that the network knows.
          batch_size: texts that are encoded at a time; fewer are filled up, so that a length is compiled once.

        Raises:
          ValueError: if the tokenizer has more tokens than the network or adds no end token, or batch_size is no size.
        """
        ranges.check({"batch_size": ranges.Size}, {"batch_size": batch_size})
        if tokenizer.get_vocab_size() > vocab_size:
            raise ValueError(
                f"{TOKENIZER}: has {tokenizer.get_vocab_size()} tokens, the network {vocab_size}: give the files of one"
            )
        empty = tokenizer.encode("").ids
        if not empty:
            raise ValueError(f"{TOKENIZER}: adds no end token to texts: give the file as published")
        self.width, self.most, self.batch_size = width, most, batch_size
        self._tokenizer, self._pad_id = tokenizer, empty[-1] if pad_id is None else pad_id
        graph, self._params = nnx.split(network)
        self._apply = jax.jit(lambda params, ids, mask: apply(nnx.merge(graph, params), ids, mask))

    def __call__(
        self, texts: Sequence[str], length: int
    ) -> tuple[Float[np.ndarray, "text token feature"], Bool[np.ndarray, "text token"]]:
        """(tokens float32 [B, L, D], mask bool [B, L]) of B texts, padded to L = `length` tokens.

        The mask is true for a text's own tokens, up to and including the end token. Longer texts are cut, the end token
        kept, and a line on stderr says so, once for each place in a program that calls.

        Raises:
          ValueError: if the length, or a text, is none.
        """
        ids, mask = self.ids(texts, length)
        tokens = np.zeros((*mask.shape, self.width), np.float32)
        for rows, found in self.batches(ids, mask):
            tokens[rows] = found.tokens
        return tokens, mask

    def ids(
        self, texts: Sequence[str], length: int
    ) -> tuple[Int[np.ndarray, "text token"], Bool[np.ndarray, "text token"]]:
        """(ids int32 [B, L], mask bool [B, L]) of texts, as in `__call__`."""
        self._check(texts, length)
        ids = np.full((len(texts), length), self._pad_id, np.int32)
        mask, lengths = np.zeros(ids.shape, bool), []
        for start in range(0, len(texts), 1024):  # a tokenizer's results take much memory
            try:
                found = self._tokenizer.encode_batch([str(text) for text in texts[start : start + 1024]])
            except (TypeError, UnicodeError) as error:
                raise ValueError(f"texts {start} to {start + 1023}: one is no valid Unicode: remove it") from error
            for row, one in enumerate(found, start):
                own = one.ids if len(one.ids) <= length else one.ids[: length - 1] + one.ids[-1:]
                ids[row, : len(own)], mask[row, : len(own)] = own, True
                lengths.append(len(one.ids))
        cut = [own for own in lengths if own > length]
        if cut:
            _notice(f"{len(cut)} of {len(texts)} texts were cut to {length} tokens; the longest has {max(cut)}")
        return ids, mask

    def batches(
        self, ids: Int[np.ndarray, "text token"], mask: Bool[np.ndarray, "text token"]
    ) -> Iterator[tuple[slice, Encoded]]:
        """(rows, what the network says of them as NumPy arrays), batch after batch."""
        for start in range(0, len(ids), self.batch_size):
            rows = slice(start, min(start + self.batch_size, len(ids)))
            # The first texts once more fill the last batch up.
            filled = [np.resize(one[rows], (self.batch_size, one.shape[1])) for one in (ids, mask)]
            found = self._apply(self._params, *filled)
            yield rows, jax.tree.map(lambda x, number=rows.stop - start: np.asarray(x)[:number], found)

    def _check(self, texts: Any, length: int) -> None:
        ranges.check({"length": Annotated[int, at.Interval(ge=2, le=self.most or 2**16)]}, {"length": length})
        if isinstance(texts, str | bytes):
            raise ValueError(f"texts = {ranges.shown(texts)}: give a list of texts")
        wrong = next((text for text in texts if not isinstance(text, str)), None)
        if wrong is not None:
            raise ValueError(f"text {ranges.shown(wrong)}: must be a str")

    def _vectors(self, texts: Sequence[str], length: int) -> Float[np.ndarray, "text feature"]:
        ids, mask = self.ids(texts, length)
        found = [part.vectors for _, part in self.batches(ids, mask)]
        return np.concatenate(found) if found else np.zeros((0, self.width), np.float32)


INNER = (__name__.rpartition(".")[0], "jaxtyping", "beartype")  # the latter where annotations are checked at run time
_NOTICED: set[tuple[str, int]] = set()


def _notice(text: str) -> None:
    """Says it on stderr, unless the line of the program that called this folder's code has been told already."""
    frame: FrameType | None = sys._getframe()
    while frame and frame.f_back and str(frame.f_globals.get("__name__")).startswith(INNER):
        frame = frame.f_back
    place = (frame.f_code.co_filename, frame.f_lineno) if frame else ("", 0)
    if place not in _NOTICED:
        _NOTICED.add(place)
        print(f"WARNING: {text}: a larger length keeps more", file=sys.stderr, flush=True)
