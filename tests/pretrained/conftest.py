"""Hugging Face folders of the tiny CLIP and T5 of `tests/reference`, with tokenizers of words."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from reference_files import Reference
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ["a", "red", "apple", "green", "pear", "and", "<unk>"]


def tokenizer_of(words: list[str], end: str, start: str | None) -> Tokenizer:
    """Words -> their place in the list, between the start and the end token; it pads and cuts, until it is told not."""
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [(one, words.index(one)) for one in (start, end) if one]
    template = f"{start} $A {end}" if start else f"$A {end}"
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    tokenizer.enable_padding(length=9)
    tokenizer.enable_truncation(5)
    return tokenizer


@pytest.fixture
def clip_folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """The whole CLIP, as published: a vision tower and projections beside the text encoder, whose width is 32."""
    folder, rng = tmp_path / "clip", np.random.default_rng(0)
    folder.mkdir()
    arrays = {f"text_model.{name}": array for name, array in Reference("clip_text").weights().items()}
    arrays["text_model.embeddings.position_ids"] = np.arange(16)[None]
    arrays["text_projection.weight"] = rng.normal(0, 0.2, (24, 32)).astype(np.float32)
    arrays |= {"logit_scale": np.float32([2.6]), "vision_model.some.weight": np.ones((3, 3), np.float32)}
    save_file(arrays, folder / "model.safetensors")
    text: dict[str, Any] = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "max_position_embeddings": 16, "eos_token_id": 2, "hidden_act": "quick_gelu"}
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "projection_dim": 24, "text_config": text}))
    words = [*WORDS, *(f"filler{n}" for n in range(90)), "<start>", "<end>"]
    tokenizer_of(words, "<end>", "<start>").save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "<end>"}}))
    return folder


@pytest.fixture
def t5_folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """The encoder of a T5 v1.1 of width 32, in two files with an index."""
    folder, arrays = tmp_path / "t5", Reference("t5_encoder").weights()
    folder.mkdir()
    names = sorted(arrays)
    where = {name: f"model-0000{1 + (names.index(name) > 9)}-of-00002.safetensors" for name in names}
    for file in sorted(set(where.values())):
        save_file({name: arrays[name] for name in names if where[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    config = {"model_type": "t5", "vocab_size": 120, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2}
    config |= {"num_heads": 4, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20}
    (folder / "config.json").write_text(json.dumps(config | {"feed_forward_proj": "gated-gelu"}))
    tokenizer_of(["<pad>", "</s>", *WORDS], "</s>", None).save(str(folder / "tokenizer.json"))
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<pad>"}))
    return folder
