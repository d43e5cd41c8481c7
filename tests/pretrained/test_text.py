"""If these fail, a spoilt or foreign folder ends in a traceback, or texts are cut, padded or batched in another way."""

import json
import pathlib
import shutil
import struct
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffcurr.errors import UserError
from diffcurr.pretrained import clip_text, t5, text

LONG = "a red apple and a green pear and a red pear"


def test_long_texts_are_cut_with_one_notice(clip_folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The end token is kept. The line of a program is told once, how often it calls."""
    encoder = clip_text.load(clip_folder, batch_size=2)
    assert encoder.ids(["a red apple"], 5)[0].tolist() == [[97, 0, 1, 2, 98]]
    assert not capsys.readouterr().err
    for _ in range(2):
        tokens, mask = encoder([LONG, "a", "a red apple and"], 5)
    assert tokens.shape == (3, 5, 32) and mask.sum(axis=1).tolist() == [5, 3, 5]
    told = capsys.readouterr().err
    assert told == "WARNING: 2 of 3 texts were cut to 5 tokens; the longest has 13: a larger length keeps more\n"
    assert encoder.ids([LONG], 5)[0].tolist() == [[97, 0, 1, 2, 98]]
    assert "1 of 1 texts were cut to 5" in capsys.readouterr().err  # another line


def test_batches_are_of_one_size(t5_folder: pathlib.Path) -> None:
    """One program for each length; texts do not see each other, bit for bit."""
    encoder = t5.load(t5_folder, batch_size=2)
    texts = ["a", "red apple", LONG, "", "green pear"]
    tokens, mask = encoder(texts, 12)
    for number, one in enumerate(texts):
        alone, own = encoder([one], 12)
        np.testing.assert_array_equal(alone[0], tokens[number])
        np.testing.assert_array_equal(own[0], mask[number])
    assert encoder._apply._cache_size() == 1
    tokens, mask = encoder([], 12)
    assert (tokens.shape, mask.shape) == ((0, 12, 32), (0, 12))


def test_rejects_texts(clip_folder: pathlib.Path) -> None:
    encoder = clip_text.load(clip_folder)
    for length in (1, 17):
        with pytest.raises(ValueError, match=rf"length = {length}: must be an integer from 2 to 16"):
            encoder.ids(["a"], length)
    with pytest.raises(ValueError, match=r"texts = 'a red apple': give a list of texts"):
        encoder._check("a red apple", 8)
    with pytest.raises(ValueError, match=r"text 3: must be a str"):
        encoder._check(["a", 3], 8)
    with pytest.raises(ValueError, match=r"is no valid Unicode: remove it"):
        encoder.ids(["a \ud800"], 8)
    with pytest.raises(UserError, match=r"clip: batch_size = 0: must be an integer from 1"):
        clip_text.load(clip_folder, batch_size=0)


def test_missing_files(clip_folder: pathlib.Path, t5_folder: pathlib.Path) -> None:
    for folder in ("", clip_folder / "nowhere"):
        with pytest.raises(UserError, match=r"is no folder: give a folder as Hugging Face has it, with config\.json"):
            clip_text.load(folder)
    for file, remedy in (
        ("model.safetensors", "give a folder as Hugging Face has it, .* with many files also model.safetensors.index"),
        ("tokenizer.json", "transformers writes it by AutoTokenizer"),
        ("config.json", "give a folder as Hugging Face has it"),
    ):
        copy = clip_folder.parent / f"without {file}"
        shutil.copytree(clip_folder, copy)
        (copy / file).unlink()
        with pytest.raises(UserError, match=rf"{file}: is missing: {remedy}"):
            clip_text.load(copy)
    (t5_folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"00002\.safetensors: is missing: give every file that the index lists"):
        t5.load(t5_folder)


def test_without_tokenizers(clip_folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"the package tokenizers is missing: pip install tokenizers"):
        clip_text.load(clip_folder)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\ud800", "[" * 100_000])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_spoilt_files(clip_folder: pathlib.Path, file: str, content: str) -> None:
    (clip_folder / file).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=rf"{file}: (cannot be read|is no JSON object)") as caught:
        clip_text.load(clip_folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("weight_map", [None, {}, [], {"a": 3}, {"a": "../clip/model.safetensors"}, {"a": "/etc/x"}])
def test_spoilt_indices(t5_folder: pathlib.Path, weight_map: object) -> None:
    """Only files of the folder are read."""
    (t5_folder / text.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match=r"index\.json: weight_map names .*: give the index as published"):
        t5.load(t5_folder)


def test_spoilt_weights(t5_folder: pathlib.Path) -> None:
    first, second = sorted(t5_folder.glob("*.safetensors"))
    arrays = load_file(first)
    save_file(arrays | {max(load_file(second)): np.zeros(3)}, first)
    with pytest.raises(UserError, match=r"is in another file too: give the files as published"):
        t5.load(t5_folder)
    save_file({name: array.astype(np.int32) for name, array in arrays.items()}, first)
    with pytest.raises(UserError, match=r"t5: encoder\.block.*: is of dtype int32: weights are floats"):
        t5.load(t5_folder)
    first.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"00001-of-00002\.safetensors: cannot be read"):
        t5.load(t5_folder)
    with pytest.raises(UserError, match=r"00001-of-00002\.safetensors: cannot be read"):
        text.Folder(t5_folder).fingerprint({})


def test_tokenizers_of_other_networks(clip_folder: pathlib.Path, t5_folder: pathlib.Path) -> None:
    tokenizer = json.loads((clip_folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["one more"] = 99
    (clip_folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"tokenizer\.json: has 100 tokens, the network 99: give the files of one"):
        clip_text.load(clip_folder)
    tokenizer = json.loads((t5_folder / "tokenizer.json").read_text())
    (t5_folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}))
    with pytest.raises(UserError, match=r"tokenizer\.json: adds no end token to texts: give the file as published"):
        t5.load(t5_folder)


def test_fingerprints(t5_folder: pathlib.Path) -> None:
    """The same for a copy; another for another array, tokenizer or size."""
    copy = t5_folder.parent / "copy"
    shutil.copytree(t5_folder, copy)
    found = [text.Folder(t5_folder).fingerprint({"a": 1})]
    assert text.Folder(copy).fingerprint({"a": 1}) == found[0] and len(found[0]) == 16
    found.append(text.Folder(copy).fingerprint({"a": 2}))
    file = copy / "model-00002-of-00002.safetensors"
    arrays = load_file(file)
    for name in arrays:
        save_file(arrays | {name: arrays[name] * 2}, file)
        found.append(text.Folder(copy).fingerprint({"a": 1}))
    save_file(arrays, file)
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text() + " ")
    found.append(text.Folder(copy).fingerprint({"a": 1}))
    assert len(set(found)) == len(found) == 3 + len(arrays)


def test_fingerprints_of_large_files_are_cheap(t5_folder: pathlib.Path) -> None:
    """64 GB that hold no bytes on the disk, but would take minutes to read."""
    file = t5_folder / "model-00001-of-00002.safetensors"
    size = 2**36
    header = json.dumps({"a": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(header)) + header)
        out.truncate(8 + len(header) + size)
    assert text.Folder(t5_folder).fingerprint({})
