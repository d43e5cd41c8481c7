"""Images or latents that the user brings would be served wrongly, or a wrong folder or file not refused."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np
import pytest
from data.making import encoded, npy, png, write
from PIL import Image

from diffcurr import parts
from diffcurr.conditioning import Class, Nothing
from diffcurr.data import pipeline, sources
from diffcurr.data.datasets import (
    FFHQ64,
    FFHQ256Latents,
    ImageNet64,
    ImageNet256Latents,
    LatentFolder,
    Latents,
    PictureFolder,
)
from diffcurr.data.sources import BadExample, identity
from diffcurr.errors import UserError


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3)).astype(np.uint8)


@pytest.mark.parametrize("as_zip", [False, True])
def test_ffhq(as_zip: bool, pictures: np.ndarray, tmp_path: pathlib.Path) -> None:
    """The layout of EDM's tool, whose labels may be null; every picture is served, mirrored or not, in [-1, 1]."""
    files = {f"00000/img{index:08d}.png": png(image) for index, image in enumerate(pictures)}
    path = write(tmp_path / "ffhq", files | {"dataset.json": b'{"labels": null}'}, as_zip)
    dataset = FFHQ64(data_dir=str(path))
    source = dataset.open()
    for index, image in enumerate(pictures):
        np.testing.assert_array_equal(source[index]["image"], image)
    endless = pipeline.make_dataset(source, dataset, Nothing().of, batch_size=6, seed=0)
    batch = next(iter(pipeline.make_iterator(endless, threads=2)))
    known = {image.tobytes() for image in pictures} | {image[:, ::-1].tobytes() for image in pictures}
    served = {np.round((image + 1) * 127.5).astype(np.uint8).tobytes() for image in batch.x}
    assert len(served) == 6 and served <= known


def test_imagenet(pictures: np.ndarray, tmp_path: pathlib.Path) -> None:
    """Its thousand classes must be there, and each picture has the label of its folder."""
    names = [f"n{number:04}/{number}.JPEG" for number in reversed(range(1000))]  # whose content is PNG
    files = {name: png(pictures[index % 6]) for index, name in enumerate(names)}
    dataset = ImageNet64(data_dir=str(write(tmp_path / "all", files, as_zip=True)))
    source = dataset.opened()
    assert dataset.num_classes == 1000 and [source[index]["label"] for index in (0, 7, 999)] == [0, 7, 999]
    np.testing.assert_array_equal(source[999]["image"], pictures[0])
    with pytest.raises(UserError, match="999 top folders instead of one for each of the 1000 classes"):
        ImageNet64(data_dir=str(write(tmp_path / "short", dict(list(files.items())[1:]), as_zip=True))).open()


def test_your_own_pictures(pictures: np.ndarray, tmp_path: pathlib.Path) -> None:
    """Of any size, with the classes that there are, or those that are given."""
    files = {f"{name}/1.png": png(pictures[index]) for index, name in enumerate(("10", "2", "3"))}
    path = str(write(tmp_path / "own", files))
    dataset = PictureFolder(data_dir=path, size=32, channels=1)
    assert dataset.shape == (32, 32, 1) and dataset.num_classes == 3 and not dataset.flip and not dataset.is_latent
    source = dataset.opened()
    assert source.classes == ["2", "3", "10"]
    assert [int(source[index]["label"]) for index in range(3)] == [2, 0, 1]
    grey = pictures[0].astype(float).reshape(32, 2, 32, 2, 3).mean((1, 3)) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(source[0]["image"][..., 0], grey, atol=2)
    condition_of = Class(num_classes=dataset.num_classes).of
    batch = pipeline.make_dataset(source, dataset, condition_of, batch_size=3, seed=0)[0]
    assert batch.x.shape == (3, 32, 32, 1) and set(batch.condition["label"].tolist()) == {0, 1, 2}
    assert PictureFolder(data_dir=path, classes=0).opened()[2]["label"] == 0
    with pytest.raises(UserError, match="3 top folders instead of one for each of the 4 classes"):
        PictureFolder(data_dir=path, classes=4).open()
    # What a config says needs no data.
    assert PictureFolder(data_dir="nowhere", classes=4, channels=4).num_classes == 4
    assert PictureFolder().shape == (64, 64, 3)
    with pytest.raises(UserError, match="data_dir is missing: .*; to plan without them, give dataset.classes"):
        _ = PictureFolder().num_classes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size = 0: must be an integer from 1 to 2048"),
        ({"channels": 2}, "channels = 2: choose one of 1, 3, 4"),
        ({"classes": -2}, "classes = -2: must be an integer from -1 to"),
        ({"resize": "crop"}, "resize = 'crop': choose one of centre, stretch, pad, random_crop"),
        ({"background": (0, 0, 256)}, "background = .*: must be"),
        ({"background": (0, 0)}, "background = .*: must be"),
        ({"on_bad_file": "ignore"}, "on_bad_file = 'ignore': choose one of stop, skip"),
        ({"threads": -2}, "threads = -2: must be an integer from -1 to 256"),
        ({"augment": 0.1, "flip": True}, "augment = 0.1: mirrors images itself; set flip = False"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PictureFolder(**settings)


def test_the_known_sets_keep_their_settings() -> None:
    """A workdir's config.json from before names them, and no others are needed."""
    old = {"split", "data_dir", "threads"}
    for kind, own in (
        (FFHQ64, {"augment", "flip"}),
        (ImageNet64, {"augment", "flip"}),
        (FFHQ256Latents, {"latent_scale"}),
    ):
        assert parts.settings_of(kind).keys() >= old | own
        assert not {"size", "channels", "classes", "shape"} & parts.settings_of(kind).keys()
    assert FFHQ64().flip and not FFHQ64().augment and FFHQ64(augment=0.15, flip=False).shape == (64, 64, 3)
    assert (ImageNet64().num_classes, FFHQ64().num_classes, ImageNet256Latents().num_classes) == (1000, 0, 1000)


def test_transparent_pictures_show_the_background_that_is_set(tmp_path: pathlib.Path) -> None:
    path = str(write(tmp_path / "clear", {"a.png": png(np.zeros((16, 16, 4), np.uint8))}))
    for settings, expected in (
        ({}, [255, 255, 255]),
        ({"background": [1, 2, 3]}, [1, 2, 3]),  # a list, as a workdir's config.json has it
        ({"channels": 4}, [0, 0, 0, 0]),
        ({"channels": 1, "background": (9, 9, 9)}, [9]),
    ):
        image = PictureFolder(data_dir=path, size=16, **settings).opened()[0]["image"]  # type: ignore[arg-type]
        np.testing.assert_array_equal(image, np.broadcast_to(expected, image.shape))


def test_random_crops(tmp_path: pathlib.Path) -> None:
    """Each at a place of the longer side that is drawn at each pass, the same for a seed."""
    ramp = np.broadcast_to(np.arange(48, dtype=np.uint8)[None, :, None], (16, 48, 3))
    path = write(tmp_path / "wide", {"a.png": png(ramp), "b.png": png(np.ascontiguousarray(ramp.transpose(1, 0, 2)))})
    dataset = PictureFolder(data_dir=str(path), size=16, resize="random_crop")
    source = dataset.opened()
    batches, again = (pipeline.make_dataset(source, dataset, Nothing().of, batch_size=2, seed=0) for _ in range(2))
    starts = set()
    for index in range(200):
        for x in np.round((batches[index].x + 1) * 127.5):
            image = x if np.all(x[0] == x[1]) else x.transpose(1, 0, 2)
            start = int(image[0, 0, 0])
            starts.add(start)
            np.testing.assert_array_equal(image, ramp[:, start : start + 16])
    assert starts == set(range(33))
    np.testing.assert_array_equal(batches[3].x, again[3].x)
    assert pipeline.load(source, dataset, Nothing().of, 2, seed=0).x.shape == (2, 16, 16, 3)


@pytest.mark.parametrize("as_zip", [False, True])
def test_bad_files(
    as_zip: bool, pictures: np.ndarray, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Named where training meets them; or left out before it, which is said, and changes no label and no order."""
    files = {f"{index % 2}/{index}.png": png(pictures[index]) for index in range(6)}
    bad = {"1/1.png": files["1/1.png"][:300], "0/7.png": encoded(Image.new("RGB", (8, 8)), "gif")}
    path = write(tmp_path / "some", files | bad, as_zip)
    stopping = PictureFolder(data_dir=str(path))
    source = stopping.opened()
    batches = pipeline.make_iterator(pipeline.make_dataset(source, stopping, Nothing().of, batch_size=7, seed=0))
    with pytest.raises(BadExample, match=r"some.*: (1/1|0/7)\.png is not a readable image") as caught:
        next(batches)
    assert "\n" not in str(caught.value)

    skipping = dataclasses.replace(stopping, on_bad_file="skip")
    assert skipping.open() is skipping.open()  # they are checked once
    kept = [skipping.open()[index] for index in range(len(skipping.open()))]
    names = sorted(files.keys() - bad.keys())
    assert [int(one["label"]) for one in kept] == [int(name[0]) for name in names]
    np.testing.assert_array_equal([one["image"] for one in kept], [pictures[int(name[2])] for name in names])
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and said.startswith("skipped: 2 of 7 files cannot be read: ")
    assert "0/7.png is not a readable image" in said and "1/1.png is not" in said

    mostly = write(
        tmp_path / "mostly", {f"{index}.png": b"" for index in range(3)} | {"4.png": png(pictures[0])}, as_zip
    )
    with pytest.raises(UserError, match="3 of 4 files cannot be read: .*; with more than half bad"):
        PictureFolder(data_dir=str(mostly), on_bad_file="skip").open()


def test_a_pipe_is_a_bad_file(pictures: np.ndarray, tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "pipes", {"b.png": png(pictures[0]), "c.png": png(pictures[1])})
    os.mkfifo(path / "a.png")
    with pytest.raises(BadExample, match=r"a\.png is no regular file"):
        PictureFolder(data_dir=str(path)).open()
    assert len(PictureFolder(data_dir=str(path), on_bad_file="skip").open()) == 2


@pytest.mark.parametrize("as_zip", [False, True])
def test_latents(as_zip: bool, tmp_path: pathlib.Path) -> None:
    """Scaled as they are; where standard deviations come with them, drawn at each pass, the same for a seed."""
    rng = np.random.default_rng(0)
    mean, deviation = np.abs(rng.normal(size=(2, 8, 4, 32, 32))).astype(np.float32)
    condition_of = Nothing().of

    files = {f"{index}.npy": npy(latent[None]) for index, latent in enumerate(mean)}
    dataset = FFHQ256Latents(data_dir=str(write(tmp_path / "plain", files, as_zip)), latent_scale=0.5)
    source = dataset.open()
    np.testing.assert_allclose(source[3]["image"], 0.5 * mean[3].transpose(1, 2, 0))
    batch = pipeline.make_dataset(source, dataset, condition_of, batch_size=8, seed=0)[0]
    assert batch.x.shape == (8, 32, 32, 4) and batch.x.dtype == np.float32 and batch.condition == {}
    assert dataset.is_latent and not dataset.flip
    np.testing.assert_array_equal(dataset.quantised(3 * batch.x), 3 * batch.x)  # latents have no grid and no limits

    files = {f"{index}.npy": npy(np.concatenate(pair)) for index, pair in enumerate(zip(mean, deviation, strict=True))}
    dataset = FFHQ256Latents(data_dir=str(write(tmp_path / "moments", files, as_zip)))
    source = dataset.open()
    batches, again = (pipeline.make_dataset(source, dataset, condition_of, batch_size=8, seed=1) for _ in range(2))
    passes = np.stack([batches[index].x for index in range(2)])
    np.testing.assert_array_equal(passes[0], again[0].x)
    for latents in passes:
        errors = [np.min([np.mean((latent - m.transpose(1, 2, 0)) ** 2) for m in mean]) for latent in latents]
        np.testing.assert_allclose(errors, np.mean(deviation**2), rtol=0.1)
    assert not np.any(np.all(passes[0] == passes[1], axis=(1, 2, 3)))
    loaded = pipeline.load(source, dataset, condition_of, 8, seed=0).x
    assert loaded.shape == (8, 32, 32, 4)


def test_dits_latents(tmp_path: pathlib.Path) -> None:
    """The public layout of features and labels, in a folder for each."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 1, 4, 8, 8)).astype(np.float32)
    files = {f"imagenet256_features/{index}.npy": npy(value) for index, value in enumerate(values)}
    files |= {f"imagenet256_labels/{index}.npy": npy(np.array([999 - index])) for index in range(12)}
    path = str(write(tmp_path / "dit", files))
    dataset = LatentFolder(data_dir=path, size=8, classes=1000, latent_scale=0.5)
    source = dataset.opened()
    assert dataset.shape == (8, 8, 4) and len(source) == 12 and dataset.is_latent
    for index in range(12):
        np.testing.assert_allclose(source[index]["image"], 0.5 * values[index, 0].transpose(1, 2, 0))
        assert source[index]["label"] == 999 - index
    assert LatentFolder(data_dir=path, size=8).num_classes == 1000
    with pytest.raises(UserError, match=r"imagenet256_features/0\.npy has shape \(4, 8, 8\), not \(4, 32, 32\)"):
        ImageNet256Latents(data_dir=path).open()


def test_a_guest_says_the_shape_in_the_class(tmp_path: pathlib.Path) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Small(Latents):
        shape, num_classes = (2, 2, 1), 2

    path = write(tmp_path / "small", {f"{name}/0.npy": npy(np.ones((1, 2, 2))) for name in "ab"})
    source = Small(data_dir=str(path)).opened()
    assert [int(source[index]["label"]) for index in range(2)] == [0, 1]


def test_identity(tmp_path: pathlib.Path, pictures: np.ndarray) -> None:
    """Of a source of any kind; what is not data does not count."""
    path = write(tmp_path / "own", {"a/1.png": png(pictures[0]), "b/2.png": png(pictures[1])})
    one, other = (identity(PictureFolder(data_dir=str(path), size=size).open()) for size in (32, 64))
    assert one == other == json.loads(json.dumps(one)) and one["examples"] == 2 and len(one["names"]) == 16
    images, labels = np.arange(12).reshape(3, 2, 2, 1), np.arange(3)
    array = identity(sources.ArraySource(images, labels))
    assert array["examples"] == 3
    assert identity(sources.ArraySource(images + 1, labels)) == array | {
        "images": identity(sources.ArraySource(images + 1, labels))["images"]
    }
    assert identity(sources.ArraySource(images, labels[::-1]))["images"] == array["images"]
    assert identity(sources.ArraySource(images, labels[::-1]))["labels"] != array["labels"]
    part = identity(sources.Part(sources.ArraySource(images, labels), np.array([2])))
    assert part["examples"] == 1 and part["images"] == array["images"]

    class Guest:
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {}

    assert identity(Guest()) == {"examples": 5}


def test_bad_input(tmp_path: pathlib.Path, pictures: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"dataset\.data_dir is missing: give the folder or zip of your images"):
        FFHQ64().open()
    with pytest.raises(
        UserError, match=r"dataset\.data_dir is missing: give the folder or zip of your latents \(\.npy\)"
    ):
        FFHQ256Latents().open()
    with pytest.raises(UserError, match="there is nothing there"):
        FFHQ64(data_dir=str(tmp_path / "nowhere")).open()
    (tmp_path / "file").write_bytes(b"no zip")
    with pytest.raises(UserError, match="neither a folder nor a zip"):
        FFHQ64(data_dir=str(tmp_path / "file")).open()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no .png"):
        FFHQ64(data_dir=str(tmp_path / "empty")).open()
    whole = write(tmp_path / "whole", {"a.png": png(pictures[0])})
    with pytest.raises(UserError, match="dataset.split = 'val'"):
        FFHQ64(split="val", data_dir=str(whole)).open()
    broken = write(tmp_path / "broken", {"a.png": png(pictures[0])[:500]}, as_zip=False)
    with pytest.raises(UserError, match=r"a\.png is not a readable image"):
        FFHQ64(data_dir=str(broken)).open()
    other = write(tmp_path / "other", {"a.npy": npy(np.zeros((3, 32, 32)))}, as_zip=False)
    with pytest.raises(UserError, match=r"shape \(3, 32, 32\), not \(4, 32, 32\)"):
        FFHQ256Latents(data_dir=str(other)).open()
    pickled = write(tmp_path / "pickled", {"a.npy": npy(np.array([{}], object))}, as_zip=False)
    with pytest.raises(UserError, match=r"a\.npy is not a readable \.npy file"):
        FFHQ256Latents(data_dir=str(pickled)).open()
    with pytest.raises(ValueError, match=r"latent_scale = 0\.0: must be a number above 0"):
        FFHQ256Latents(latent_scale=0.0)


def test_a_split_is_the_folder_of_its_name(pictures: np.ndarray, tmp_path: pathlib.Path) -> None:
    """Where there is one; otherwise the whole folder is the split train."""
    folder = write(tmp_path / "split", {"train/a.png": png(pictures[0]), "val/b.png": png(pictures[1])}, as_zip=False)
    for split, picture in (("train", pictures[0]), ("val", pictures[1])):
        source = FFHQ64(split=split, data_dir=str(folder)).open()
        assert len(source) == 1
        np.testing.assert_array_equal(source[0]["image"], picture)
