"""The network would be told another text than the example's, or a text that no one encoded."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from worded import Hashed

from diffcurr.conditioning import Class, Field, Nothing, Text
from diffcurr.conditioning.encoded_texts import EncodedTexts

CAPTIONS = np.array(["a red apple", "", "a red apple", "a word too many for it"])


def quiet(done: int, number: int) -> None:
    pass


def test_what_of_an_example_the_network_is_told() -> None:
    """Float16, as it is stored; equal texts are encoded once."""
    encoder = Hashed()
    condition = Text(encoder=encoder).of({"caption": CAPTIONS})
    assert {name: (x.shape, x.dtype) for name, x in condition.items()} == {
        "text": ((4, 4, 6), np.float16),
        "text_mask": ((4, 4), bool),
    }
    np.testing.assert_array_equal(condition["text_mask"].sum(axis=1), [4, 1, 4, 4])
    np.testing.assert_array_equal(condition["text"][0], condition["text"][2])
    assert encoder.calls == sorted(set(CAPTIONS))


def test_spec_is_of_the_arrays_that_of_gives() -> None:
    conditioning = Text(encoder=Hashed())
    told = conditioning.of({"caption": CAPTIONS})
    for name, field in conditioning.spec().items():
        assert field == Field(told[name].shape[1:], told[name].dtype)
        assert field.zeros(4).shape == told[name].shape


def test_no_text_is_the_empty_one_encoded() -> None:
    """For some of a batch, for all, and inside a compiled step; what else is told stays."""
    conditioning = Text(encoder=Hashed())
    empty, mask = Hashed().encode([""])
    condition = conditioning.of({"caption": CAPTIONS}) | {"augment": np.ones((4, 9))}
    dropped = jax.jit(conditioning.drop)(condition, jnp.asarray([True, False, False, True]))
    for row, expected in ((0, empty[0]), (1, empty[0]), (2, condition["text"][2]), (3, empty[0])):
        np.testing.assert_array_equal(dropped["text"][row], expected)
    np.testing.assert_array_equal(dropped["text_mask"].sum(axis=1), [1, 1, 4, 1])
    np.testing.assert_array_equal(dropped["augment"], 1.0)
    for null in (conditioning.null(condition), conditioning.nothing(4)):
        np.testing.assert_array_equal(null["text"], np.repeat(empty, 4, axis=0))
        np.testing.assert_array_equal(null["text_mask"], np.repeat(mask, 4, axis=0))


def test_a_negative_prompt_stands_in_its_place() -> None:
    null = Text(encoder=Hashed()).leading_away_from("a blurry picture").nothing(2)
    np.testing.assert_array_equal(null["text"][1], Hashed().encode(["a blurry picture"])[0][0])
    for conditioning in (Class(num_classes=3), Nothing()):
        with pytest.raises(ValueError, match="negative prompt 'a blurry picture': the network is told no text"):
            conditioning.leading_away_from("a blurry picture")


def test_prompts_take_turns_and_captions_stand_for_none() -> None:
    conditioning = Text(encoder=Hashed(), num_classes=9, prompts=lambda: {"of the data": 3, "of it too": 7})
    assert conditioning.captions(3, ["one", "two"]) == ["one", "two", "one"]
    assert conditioning.captions(2, "one") == ["one", "one"]
    assert conditioning.captions(3) == ["of the data", "of it too", "of the data"]
    np.testing.assert_array_equal(conditioning.chosen(3)["text"][1], Hashed().encode(["of it too"])[0][0])
    labels, captions = conditioning.wanted(3)
    assert labels.tolist() == [3, 7, 3] and captions == conditioning.captions(3)
    assert conditioning.recorded(2, ["one"])["captions"].tolist() == ["one", "one"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([], "prompts .*: give one at least"),
        ([3], "classes .3.: the network is told texts; give prompts"),
        (3, "texts"),
    ],
)
def test_what_is_no_prompt(wanted: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Text(encoder=Hashed()).chosen(4, wanted)


def test_a_prompt_for_a_network_that_is_told_none() -> None:
    with pytest.raises(ValueError, match="'a cat': the network is told classes, and no text"):
        Class(num_classes=3).chosen(4, ["a cat"])
    with pytest.raises(ValueError, match="'a cat'.*unconditional"):
        Nothing().chosen(4, "a cat")


################################################################ on disk


def test_texts_are_encoded_once(tmp_path: pathlib.Path) -> None:
    """By whoever asks for the same texts of the same encoder; what is read is what was encoded."""
    first, again, said = Hashed(), Hashed(), []
    folder = epath.Path(tmp_path)
    Text(encoder=first).prepared([*CAPTIONS, "b"], folder, lambda *done: said.append(done))
    assert first.calls == sorted({*CAPTIONS, "b"}) and said[-1] == (4, 4)
    ready = Text(encoder=again).prepared(["b", *CAPTIONS], folder, quiet)
    told = ready.of({"caption": CAPTIONS})
    assert not again.calls
    for name, values in Text(encoder=Hashed()).of({"caption": CAPTIONS}).items():
        np.testing.assert_array_equal(told[name], values)
    assert ready.of({"caption": ["another"]})["text_mask"].sum() == 2 and again.calls == ["another"]


def test_another_encoder_reads_none_of_these(tmp_path: pathlib.Path) -> None:
    texts, folder = ["a", "b"], epath.Path(tmp_path)
    EncodedTexts.of(texts, Hashed(), folder, quiet)
    other = Hashed(salt=1)
    found = EncodedTexts.of(texts, other, folder, quiet)
    assert other.calls == texts and not np.array_equal(found(["a"])[0], Hashed().encode(["a"])[0])


def test_what_was_cut_off_while_it_was_written_is_encoded_again(tmp_path: pathlib.Path) -> None:
    folder = epath.Path(tmp_path)
    EncodedTexts.of(["a", "b"], Hashed(), folder, quiet)
    (record,) = tmp_path.glob("*/texts.json")
    assert json.loads(record.read_text())["texts"] == ["a", "b"]
    record.unlink()
    again = Hashed()
    EncodedTexts.of(["a", "b"], again, folder, quiet)
    assert again.calls == ["a", "b"]


def test_a_shared_store(tmp_path: pathlib.Path) -> None:
    encoder = Hashed()
    for run in ("one", "other"):
        Text(encoder=encoder, store=str(tmp_path / "store")).prepared(["a"], epath.Path(tmp_path / run), quiet)
    assert encoder.calls == ["a"]
