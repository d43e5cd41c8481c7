"""If a test here fails, training sees other latents than were stored, or a damaged folder is not said in one line."""

import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
from data.lopsided import Lopsided
from etils import epath

from diffcurr.codecs import Codec, Identity
from diffcurr.data import pipeline, shards
from diffcurr.data.encoded import Encoded, check_codec, identity_of
from diffcurr.data.shards import Contents, Moments
from diffcurr.data.sources import BadExample, identity
from diffcurr.errors import UserError

RNG = np.random.default_rng(0)
CONTENTS = Contents(
    examples=10,
    shard=4,
    latent_shape=(4, 4, 2),
    image_shape=(8, 8, 1),
    num_classes=3,
    classes=["a", "b", "c"],
    has_std=True,
    mirrored=True,
    dtype="float32",
    codec=identity_of(Lopsided()),
    source={"examples": 10},
    skipped=0,
)
TEXTS = [(f"caption {index}", f"{'long ' * index}one")[: 1 + index % 2] for index in range(10)]
MEANS = RNG.normal(size=(10, 2, 4, 4, 2)).astype(np.float32)
STDS = RNG.uniform(0.1, 1, (10, 2, 4, 4, 2)).astype(np.float32)
ARRAYS = np.concatenate([MEANS, STDS], axis=-1)


def written(folder: pathlib.Path, contents: Contents = CONTENTS, arrays: np.ndarray = ARRAYS) -> pathlib.Path:
    shards.prepare(epath.Path(folder), whole=False)
    told = {"captions": TEXTS} if contents.captioned else {}
    fields = ({"label": index % 3} | {key: texts[index] for key, texts in told.items()} for index in range(len(arrays)))
    examples = zip(arrays, fields, strict=True)
    for index in range(contents.number):
        part = [next(examples) for _ in contents.numbers(index)]
        shards.write(epath.Path(folder), contents, index, iter(part), "example {}".format)
    shards.finish(epath.Path(folder), contents)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return written(tmp_path_factory.mktemp("encoded") / "whole")


@pytest.fixture
def folder(whole: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy, to be damaged."""
    return pathlib.Path(shutil.copytree(whole, tmp_path / "copy"))


def encoded(folder: pathlib.Path, **settings: Any) -> Encoded:
    return Encoded(data_dir=os.fspath(folder), **settings)


def passes(dataset: Encoded, seed: int = 0) -> list[dict[int, np.ndarray]]:
    """Two passes over the examples, each example by its number."""
    source = dataset.opened()
    told = {"batch_size": 1, "seed": seed}
    batches = pipeline.make_dataset(source, dataset, lambda one: {"label": one["label"]}, **told)
    order = pipeline.make_dataset(_Numbered(len(source)), dataset, lambda one: {"label": one["label"]}, **told)
    found: list[dict[int, np.ndarray]] = [{}, {}]
    for index in range(2 * len(source)):
        found[index // len(source)][int(order[index].condition["label"][0])] = batches[index].x[0]
    return found


class _Numbered:
    """Whose labels are the numbers of the examples."""

    def __init__(self, number: int):
        self._number = number

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": np.zeros((4, 4, 4), np.float32), "mirror": np.zeros((4, 4, 4), np.float32), "label": index}


def refusal(dataset: Encoded) -> str:
    with pytest.raises(UserError) as caught:
        dataset.opened()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_examples_are_what_was_stored(whole: pathlib.Path) -> None:
    dataset = encoded(whole)
    source = dataset.opened()
    assert (len(source), dataset.shape, dataset.num_classes, dataset.is_latent) == (10, (4, 4, 2), 3, True)
    assert dataset.found == {"size": 4, "channels": 2, "classes": 3}
    assert source.classes == ["a", "b", "c"]
    for index in range(10):
        example = source[index]
        np.testing.assert_array_equal(example["image"], ARRAYS[index, 0])
        assert example["image"].dtype == np.float32 and example["label"] == index % 3 and "mirror" not in example
    np.testing.assert_array_equal(encoded(whole, flip=True).opened()[7]["mirror"], ARRAYS[7, 1])


def test_each_pass_draws_again(whole: pathlib.Path) -> None:
    """From the distribution of one mirror or the other; a function of the seed."""
    first, second = passes(encoded(whole, flip=True))
    seen = set()
    for index in range(10):
        assert np.abs(first[index] - second[index]).max() > 1e-3
        for drawn in (first[index], second[index]):
            apart = [np.abs((drawn - MEANS[index, mirror]) / STDS[index, mirror]).max() for mirror in (0, 1)]
            seen.add(int(np.argmin(apart)))
            assert min(apart) < 5
    assert seen == {0, 1}
    again = passes(encoded(whole, flip=True))[0]
    assert all(np.array_equal(first[index], again[index]) for index in range(10))
    for index, drawn in passes(encoded(whole))[0].items():
        assert np.abs((drawn - MEANS[index, 0]) / STDS[index, 0]).max() < 5
    read = pipeline.load(encoded(whole, flip=True).opened(), encoded(whole), lambda one: {}, 10, seed=0)
    assert read.x.shape == (10, 4, 4, 2)


def test_without_deviations_the_mean_is_trained(tmp_path: pathlib.Path) -> None:
    contents = dataclasses.replace(CONTENTS, has_std=False, mirrored=False, num_classes=0, classes=None)
    folder = written(tmp_path / "means", contents, MEANS[:, :1])
    first, second = passes(encoded(folder))
    for index in range(10):
        np.testing.assert_array_equal(first[index], MEANS[index, 0])
        np.testing.assert_array_equal(second[index], MEANS[index, 0])
    assert "dataset.flip = True" in refusal(encoded(folder, flip=True))
    assert "has no latents of mirrored images" in refusal(encoded(folder, flip=True))


def test_a_config_is_planned_without_the_folder() -> None:
    dataset = Encoded(size=32, channels=4, classes=1000, flip=True)
    assert (dataset.shape, dataset.num_classes) == ((32, 32, 4), 1000)
    assert dataset.found == {"size": 32, "channels": 4, "classes": 1000} and dataset.codec_identity is None
    check_codec(dataset, Lopsided())
    assert "dataset.data_dir is missing: give the folder that --job=encode wrote" in refusal(dataset)
    with pytest.raises(UserError, match=r"to plan without it, give dataset\.size"):
        _ = Encoded().shape


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 8}, "dataset.size = 8: latents in"),
        ({"channels": 4}, "dataset.channels = 4: latents in"),
        ({"classes": 10}, "dataset.classes = 10: latents in"),
    ],
)
def test_other_settings_than_the_folder(settings: dict, message: str, whole: pathlib.Path) -> None:
    assert message in refusal(encoded(whole, **settings))
    assert encoded(whole, classes=0).num_classes == 0


def test_codec(whole: pathlib.Path) -> None:
    dataset = encoded(whole)
    assert dataset.codec_identity == {"name": "Lopsided", "gain": 2.0}
    check_codec(dataset, Lopsided())
    check_codec(dataset, Identity())
    with pytest.raises(UserError) as caught:
        check_codec(dataset, Lopsided(gain=3.0))
    assert f"dataset.data_dir = {str(whole)!r} are those of another one: gain is 2.0 there and 3.0 here" in str(
        caught.value
    )
    assert "encode the images again by --job=encode" in str(caught.value)


def test_no_weights_are_read_where_nothing_is_stored(tmp_path: pathlib.Path) -> None:
    class Fails(Lopsided):
        def identity(self) -> dict[str, Any]:
            raise AssertionError

    codec: Codec = Fails()
    check_codec(Encoded(data_dir=os.fspath(tmp_path), size=4, channels=2, classes=0), codec)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text("{"), "is damaged ("),
        (lambda path: path.write_text("[]"), "is damaged ("),
        (lambda path: path.write_bytes(b"\xff"), "is damaged ("),
        (lambda path: _change(path, codec=None), "is damaged ("),
        (lambda path: _change(path, examples=9), "is damaged (its shards do not hold 9 examples)"),
        (lambda path: _change(path, version=7), "is damaged (version = 7: choose"),
        (lambda path: _change(path, dtype="int8"), "is damaged ("),
        (lambda path: _change(path, latent_shape=[0, 1, 2]), "is damaged (latent_shape = [0, 1, 2]: must be"),
        (lambda path: _without(path, "shards"), "is damaged ('shards' is missing)"),
        (lambda path: _without(path, "dtype"), "is damaged ("),
        (lambda path: path.unlink(), "has shards, but no manifest.json: run --job=encode again to finish it"),
        (lambda path: shutil.rmtree(path.parent), "there is no such folder: --job=encode makes one"),
        (
            lambda path: [one.unlink() for one in path.parent.iterdir()],
            "has no manifest.json: give one of --job=encode",
        ),
        (lambda path: _shard(path).unlink(), "shard-00001.array_record is missing: run --job=encode again"),
        (lambda path: _shard(path).write_bytes(b"abc"), "shard-00001.array_record has 3 bytes of"),
    ],
)
def test_damaged_folders(damage: Any, message: str, folder: pathlib.Path) -> None:
    damage(folder / shards.MANIFEST)
    said = refusal(encoded(folder))
    assert message in said and "--job=encode" in said and str(folder) in said


def _change(path: pathlib.Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _without(path: pathlib.Path, key: str) -> None:
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))


def _shard(path: pathlib.Path) -> pathlib.Path:
    return path.parent / "shard-00001.array_record"


def test_a_damaged_shard_is_a_bad_example(folder: pathlib.Path) -> None:
    content = _shard(folder / shards.MANIFEST).read_bytes()
    at = content.find(ARRAYS[5].tobytes()[:64])
    assert at > 0
    nan = np.full(4, np.nan, np.float32).tobytes()
    for changed in (content[:at] + nan + content[at + len(nan) :], bytes(len(content))):
        _shard(folder / shards.MANIFEST).write_bytes(changed)
        source = encoded(folder).opened()
        with pytest.raises(BadExample, match=r"shard-00001\.array_record: example 1 .*; --job=encode finds") as caught:
            _ = source[5]
        assert "\n" not in str(caught.value)
    assert not shards.is_written(epath.Path(folder), 1) and shards.is_written(epath.Path(folder), 0)


def test_what_is_not_finite_is_not_stored() -> None:
    def packed(value: float, dtype: str = "float32") -> bytes:
        array = np.where(np.arange(ARRAYS[0].size).reshape(ARRAYS[0].shape) == 3, value, ARRAYS[0])
        return dataclasses.replace(CONTENTS, dtype=dtype).pack(array, {})

    for value, message in ((np.nan, "not finite"), (np.inf, "not finite"), (-1.0, "standard deviations below 0")):
        with pytest.raises(BadExample, match=message):
            packed(value)
    with pytest.raises(BadExample, match=r"is encoded to 70000, too large for float16: set encode\.dtype"):
        packed(70000.0, "float16")
    for record in (b"", packed(1.0)[:-3], packed(1.0) + b"{"):
        with pytest.raises(BadExample, match="is no example"):
            CONTENTS.unpack(record)


def test_a_run_knows_its_latents(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    known = identity(encoded(whole).opened())
    assert known["examples"] == 10
    other = written(tmp_path / "other", arrays=ARRAYS[::-1].copy())
    assert identity(encoded(other).opened())["latents"] != known["latents"]
    codec = written(tmp_path / "codec", dataclasses.replace(CONTENTS, codec={"name": "b"}))
    assert identity(encoded(codec).opened()) == known | {"codec": identity(encoded(codec).opened())["codec"]}


def test_moments_are_those_of_draws() -> None:
    seen = [Moments.of(array, 2) for array in ARRAYS]
    whole = seen[0]
    for one in seen[1:]:
        whole = whole + one
    mean, std = MEANS.astype(float), STDS.astype(float)
    np.testing.assert_allclose(whole.mean, mean.mean(axis=(0, 1, 2, 3)))
    variance = mean.var(axis=(0, 1, 2, 3)) + (std**2).mean(axis=(0, 1, 2, 3))
    np.testing.assert_allclose(whole.squares / whole.count, variance)
    again = Moments.from_plain(json.loads(json.dumps(whole.plain())))
    assert np.array_equal(again.mean, whole.mean) and np.array_equal(again.squares, whole.squares)


@pytest.fixture
def captioned(tmp_path: pathlib.Path) -> pathlib.Path:
    return written(tmp_path / "captioned", dataclasses.replace(CONTENTS, captioned=True))


def test_captions_are_stored_with_the_latents(captioned: pathlib.Path) -> None:
    dataset = encoded(captioned, flip=True)
    source = dataset.opened()
    assert dataset.captioned and [source[index]["captions"] for index in range(10)] == TEXTS
    assert source.captions() == sorted({one for some in TEXTS for one in some})
    assert source.captions([3]) == sorted(TEXTS[3])
    read = pipeline.load(source, dataset, lambda one: {"caption": one["caption"], "label": one["label"]}, 10, seed=0)
    assert read.x.shape == (10, 4, 4, 2) and set(read.condition["caption"]) <= set(source.captions())
    unseen = encoded(captioned, held_out=0.2).opened_held_out()
    assert unseen.captions() == sorted({one for index in range(2) for one in unseen[index]["captions"]})


def test_captions_are_listed_without_reading_latents(captioned: pathlib.Path, whole: pathlib.Path) -> None:
    wanted = encoded(captioned).opened().captions()
    for path in captioned.glob("*.array_record"):
        path.write_bytes(bytes(path.stat().st_size))
    source = encoded(captioned).open()
    assert source.captions() == wanted and "captions" in identity(source)
    assert "captions" not in identity(encoded(whole).open()) and encoded(whole).open().captions() == []


def test_folders_without_captions_are_as_before(whole: pathlib.Path) -> None:
    """And are found without them, unless they are insisted on; a plan needs no folder."""
    manifest = json.loads((whole / shards.MANIFEST).read_text())
    assert "captioned" not in manifest and not (whole / shards.CAPTIONS).exists()
    assert "captioned" not in json.loads((whole / "shard-00000.json").read_text())["contents"]
    shards.check_contents(epath.Path(whole), CONTENTS)
    assert not encoded(whole).captioned and "captions" not in encoded(whole).opened()[0]
    assert "dataset.captions = 'stored': " in refusal(encoded(whole, captions="stored"))
    planned = Encoded(size=32, channels=4, classes=0)
    assert not planned.captioned and dataclasses.replace(planned, captions="stored").captioned
    with pytest.raises(UserError, match="captioned is None there and True now"):
        shards.check_contents(epath.Path(whole), dataclasses.replace(CONTENTS, captioned=True))


@pytest.mark.parametrize("content", [None, "{", "[]", "[[]]", json.dumps([["a"]] * 9), json.dumps([[3]] * 10)])
def test_damaged_captions(content: str | None, captioned: pathlib.Path) -> None:
    path = captioned / shards.CAPTIONS
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=r"captions\.json is missing or damaged \(.*\): run --job=encode") as caught:
        encoded(captioned).opened().captions()
    assert "\n" not in str(caught.value)
