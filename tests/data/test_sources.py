"""A TFDS data set could not be prepared from files at hand, or a missing file would cost minutes and say nothing."""

import gzip
import hashlib
import importlib.util
import io
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import time
import types
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data.making import emoji, emoji_packages

from diffcurr.conditioning import Nothing
from diffcurr.data import pipeline, sources
from diffcurr.data.datasets import CIFAR10, DATASETS, CocoCaptions, FashionMNIST
from diffcurr.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


@pytest.fixture(scope="session")
def debian() -> types.ModuleType:
    """The tool that makes the upstream archives; without Debian's package there is nothing to make them from."""
    spec = importlib.util.spec_from_file_location("debian", ROOT / "launch" / "fashion_mnist_from_debian.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not module.SOURCE.exists():
        if os.environ.get("CI"):
            pytest.fail("CI must install Debian's dataset-fashion-mnist")
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    return module


@pytest.fixture(scope="session")
def fashion_mnist(debian: types.ModuleType, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A data folder with Fashion-MNIST in it, prepared by the stock builder with its checksums verified."""
    data_dir = tmp_path_factory.mktemp("tfds")
    subprocess.run([sys.executable, ROOT / "launch" / "fashion_mnist_from_debian.py", data_dir], check=True)
    FashionMNIST(data_dir=str(data_dir)).open()
    return data_dir


def test_real_fashion_mnist(fashion_mnist: pathlib.Path, debian: types.ModuleType) -> None:
    source = FashionMNIST(data_dir=str(fashion_mnist)).open()
    raw = np.frombuffer(gzip.decompress((debian.SOURCE / "train-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    images = raw.reshape(60_000, 28, 28)
    assert len(source) == 60_000
    # The builder shuffles; each photograph served must be one of the raw ones.
    known = {image.tobytes() for image in images}
    for index in (0, 1, 31_415, 59_999):
        image = source[index]["image"]
        assert image.shape == (28, 28, 1) and image.tobytes() in known
    test = FashionMNIST(split="test", data_dir=str(fashion_mnist)).open()
    assert len(test) == 10_000
    with pytest.raises(UserError, match="split = 'validation'.*test, train"):
        FashionMNIST(split="validation", data_dir=str(fashion_mnist)).open()


def test_reading_does_not_import_tensorflow(fashion_mnist: pathlib.Path) -> None:
    program = (
        "import sys; from diffcurr.data import datasets, pipeline; from diffcurr.conditioning import Nothing;"
        f"dataset = datasets.FashionMNIST(data_dir={str(fashion_mnist)!r}); source = dataset.open();"
        "batch = pipeline.make_dataset(source, dataset, Nothing().of, batch_size=4, seed=0)[0];"
        "assert batch.x.shape == (4, 28, 28, 1); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_tampered_archive_is_refused(debian: types.ModuleType, tmp_path: pathlib.Path) -> None:
    subprocess.run([sys.executable, ROOT / "launch" / "fashion_mnist_from_debian.py", tmp_path], check=True)
    file = tmp_path / "downloads" / "manual" / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte.gz"):
        FashionMNIST(data_dir=str(tmp_path)).open()
    assert not (tmp_path / "fashion_mnist").exists() or not list((tmp_path / "fashion_mnist").glob("*/*.array_record*"))


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "coco_captions"])
def test_neither_prepared_nor_reachable(name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(sources.socket, "create_connection", refuse)
    for variable in PROXIES:
        monkeypatch.delenv(variable, raising=False)
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        DATASETS[name](data_dir=str(tmp_path)).open()
    assert time.monotonic() - began < 15
    message = str(caught.value)
    file = {"fashion_mnist": "train-images-idx3-ubyte.gz", "cifar10": "cifar-10-binary.tar.gz"}.get(name, "val2014.zip")
    assert (
        file in message
        and "2017" not in message
        and "from http" in message
        and f"put it into {tmp_path}/downloads/manual" in message
    )
    assert "\n" not in message and not list(tmp_path.iterdir())


def test_a_host_that_never_answers_costs_at_most_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    def never_answer(*args: object, **kwargs: object) -> None:
        time.sleep(2)
        raise TimeoutError

    monkeypatch.setattr(sources.socket, "create_connection", never_answer)
    for variable in PROXIES:
        monkeypatch.delenv(variable, raising=False)
    began = time.monotonic()
    assert sources._unreachable(["http://one.invalid/a", "https://two.invalid/b"], 0.5) == [
        "one.invalid",
        "two.invalid",
    ]
    assert time.monotonic() - began < 1.5


def test_cifar10_through_the_real_builder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive of random images in the binary layout of CIFAR-10, with the checksum table told of it."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 3, 32, 32), np.uint8)
    labels = rng.integers(0, 10, 60).astype(np.uint8)
    records = np.concatenate([labels[:, None], images.reshape(60, -1)], axis=1)
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    files = {name: part.tobytes() for name, part in zip(names, np.split(records, 6), strict=True)}
    files["batches.meta.txt"] = "\n".join(classes).encode() + b"\n"
    with tarfile.open(manual / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    packed = (manual / "cifar-10-binary.tar.gz").read_bytes()
    builder_class = type(tfds.builder("cifar10", data_dir=tmp_path))
    (url,) = builder_class.url_infos
    info = tfds.download.checksums.UrlInfo(
        size=len(packed), checksum=hashlib.sha256(packed).hexdigest(), filename="cifar-10-binary.tar.gz"
    )
    monkeypatch.setitem(builder_class.url_infos, url, info)

    monkeypatch.setenv("HOME", str(tmp_path))
    cifar10 = CIFAR10(data_dir="~")
    source = cifar10.open()
    assert len(source) == 50
    own = sources.identity(source)
    assert own["examples"] == 50 and own["name"] == "cifar10" and own["split"] == "train" and "version" in own
    other = sources.identity(CIFAR10(data_dir=str(tmp_path), split="test").open())
    assert other["examples"] == 10 and own["shards"] != other["shards"]
    both = sources.identity(CIFAR10(data_dir=str(tmp_path), split="train[:50%]+test").open())
    assert both["examples"] == 35 and both["shards"] not in (own["shards"], other["shards"])
    for split, words in (("train+validation", "cifar10 has test, train"), ("train[:50", "")):
        with pytest.raises(UserError, match=re.escape(f"dataset.split = {split!r}: {words}")):
            CIFAR10(data_dir=str(tmp_path), split=split).open()
    by_label = {image.transpose(1, 2, 0).tobytes(): label for image, label in zip(images, labels, strict=True)}
    for index in range(50):
        assert by_label[source[index]["image"].tobytes()] == source[index]["label"]
    batch = pipeline.make_dataset(source, cifar10, Nothing().of, batch_size=10, seed=0)[0]
    assert batch.x.shape == (10, 32, 32, 3)


def test_emoji_through_the_real_builder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny packages in the layout of npm's, with the table of checksums told of them."""
    from diffcurr.data.emoji_builder import Emoji

    tones = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")
    hands = [emoji(f"HAND {one} SIGN", f"hand_{one}", f"A{one}", "People & Body", tones) for one in range(12)]
    things = [emoji(f"THING {one}", f"thing_{one}", f"B{one}") for one in range(30)]
    packages = emoji_packages(tmp_path / "downloads" / "manual", [*hands, *things])
    for url, info in Emoji.url_infos.items():
        (path,) = [path for path in packages if path.name == info.filename]
        told = tfds.core.download.checksums.UrlInfo(
            size=path.stat().st_size, checksum=hashlib.sha256(path.read_bytes()).hexdigest(), filename=path.name
        )
        monkeypatch.setitem(Emoji.url_infos, url, told)

    whole = {}
    for split in ("train", "test"):
        source = DATASETS["emoji"](data_dir=str(tmp_path), split=split, size=64).opened()
        whole[split] = [source[index] for index in range(len(source))]
        assert source.captions() == sorted({one for example in whole[split] for one in example["captions"]})
        assert source.classes[int(whole[split][0]["label"])] in ("People & Body", "Objects")
    assert len(whole["train"]) + len(whole["test"]) == 2 * 42
    for example in whole["train"] + whole["test"]:
        name, styled = example["captions"]
        number, tone, blue = example["image"][32, 32]
        assert example["image"].dtype == np.uint8 and (example["image"][0] == 255).all()  # on white
        assert name.startswith(f"hand {number}" if number < 12 else f"thing {number - 12}")
        assert styled == f"{name}, {('google', 'twitter')[blue]} style"
        assert (", " in name) == (tone > 0)
    assert not {one["captions"][0] for one in whole["train"]} & {one["captions"][0] for one in whole["test"]}

    for size in (16, 32):
        emoji_set = DATASETS["emoji"](data_dir=str(tmp_path), size=size, vendors=("twitter",))
        source = emoji_set.opened()
        assert len(source) == len(whole["train"]) / 2 and all("google" not in one for one in source.captions())
        batch = pipeline.make_dataset(
            source, emoji_set, lambda read: {"caption": read["caption"]}, batch_size=10, seed=0
        )[0]
        assert batch.x.shape == (10, size, size, 3) and set(batch.condition["caption"]) <= set(source.captions())
    assert emoji_set.holds_out and len(emoji_set.opened_held_out()) == len(whole["test"]) / 2


def test_emoji_are_neither_prepared_nor_reachable(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_unreachable", lambda urls: ["registry.npmjs.org"])
    with pytest.raises(UserError) as caught:
        DATASETS["emoji"](data_dir=str(tmp_path)).open()
    message = str(caught.value)
    assert "emoji-datasource-google-16.0.0.tgz (from https://" in message and "emoji-datasource-twitter" in message
    assert f"put it into {tmp_path}/downloads/manual" in message
    assert f"or run python launch/emoji_from_npm.py {tmp_path} first" in message and "\n" not in message


def test_coco_captions_with_the_features_of_the_real_builder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four photographs in place of those of COCO; captions as they come, of which TFDS's have blank ones."""
    builder_class = type(tfds.builder("coco_captions", data_dir=tmp_path))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40 + index, 60, 3), np.uint8) for index in range(4)]
    texts = [[f"A cat, number {index}. ", "Two\n cats.", " "][: 3 - index % 2] for index in range(4)]

    def examples() -> Iterator[tuple[int, dict]]:
        for index, image in enumerate(images):
            said = [{"id": number, "text": text} for number, text in enumerate(texts[index])]
            names = {"image/filename": f"{index}.jpg", "image/id": index}
            yield index, {"image": image, "objects": [], "captions": said} | names

    with monkeypatch.context() as patch:
        patch.setattr(builder_class, "_split_generators", lambda self, manager: {"train": examples()})
        patch.setattr(sources, "_unreachable", lambda urls: [])
        source = CocoCaptions(data_dir=str(tmp_path), size=32).open()
    assert len(source) == 4 and {len(source[index]["captions"]) for index in range(4)} == {2}
    for index in range(4):
        example = source[index]
        assert example["image"].shape == (32, 32, 3) and example["image"].dtype == np.uint8
        assert example["captions"][1] == "Two cats." and example["label"] == 0
    assert source.captions() == sorted({f"A cat, number {index}." for index in range(4)} | {"Two cats."})
    assert source.captions([0]) == sorted(source[0]["captions"])
    kept = list(tmp_path.rglob("fields-*.json"))
    assert len(kept) == 1 and "A cat" in kept[0].read_text()  # read once
    kept[0].write_text("damaged")
    again = CocoCaptions(data_dir=str(tmp_path), size=32, held_out=0.25)
    assert sources.identity(again.open()) == sources.identity(source) and "captions" in sources.identity(source)
    unseen = again.opened_held_out()
    assert len(unseen) == 1 and unseen.captions() == sorted(unseen[0]["captions"])


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    source, known = DATASETS["digits"]().open(), load_digits()
    assert len(source) == len(known.images) == 1797
    np.testing.assert_array_equal([source[i]["image"][..., 0] for i in range(1797)], known.images)
    np.testing.assert_array_equal([source[i]["label"] for i in range(1797)], known.target)
    assert source[0]["image"].dtype == np.uint8
