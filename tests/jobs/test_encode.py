"""If a test here fails, stored latents are not those of the images, depend on who wrote them, or a kill loses them."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from data.lopsided import Lopsided, Strokes
from data.making import png, write
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from diffcurr import experiment as experiment_lib
from diffcurr.codecs import kl
from diffcurr.data import shards
from diffcurr.data.encoded import Encoded
from diffcurr.errors import UserError
from diffcurr.jobs import encode
from diffcurr.sampling import encoding

ROOT = pathlib.Path(__file__).parents[2]
LOPSIDED = ROOT / "tests" / "data" / "lopsided.py"


pytestmark = pytest.mark.usefixtures("lopsided_parts")


def config(**overrides: Any) -> ConfigDict:
    own = {"dataset__name": "strokes", "codec__name": "lopsided", "encode__shard": 32, "sampling__clip": 0.0}
    return tiny.config(**own | overrides)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, lopsided_parts: None) -> pathlib.Path:
    """The folder of 100 examples in four shards, encoded on eight devices."""
    workdir = tmp_path_factory.mktemp("run")
    assert encode.run(config(), workdir) == 0
    return workdir / "encoded"


def hashes(folder: pathlib.Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def stored(folder: pathlib.Path) -> list[dict[str, Any]]:
    source = Encoded(data_dir=os.fspath(folder), flip=True).opened()
    return [source[index] for index in range(len(source))]


def copied(folder: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def refusal(config: ConfigDict, folder: pathlib.Path) -> str:
    with pytest.raises(UserError) as caught:
        encode.run(config, "nowhere", out=folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_both_mirrors_with_means_deviations_and_labels(whole: pathlib.Path) -> None:
    codec, images = Lopsided(), Strokes().open()
    params = codec.load()
    for index, example in enumerate(stored(whole)):
        pixels = Strokes().scaled(images[index]["image"][None])
        assert example["label"] == index % 3
        for name, view in (("image", pixels), ("mirror", pixels[:, :, ::-1])):
            mean, std = codec.encode_with(params, view)
            np.testing.assert_allclose(example[name], np.concatenate([mean[0], std[0]], axis=-1), rtol=1e-6)
    mirrored = stored(whole)[0]["mirror"][..., :4]
    assert np.abs(mirrored - stored(whole)[0]["image"][:, ::-1, :4]).max() > 0.1


def test_manifest(whole: pathlib.Path) -> None:
    manifest = json.loads((whole / shards.MANIFEST).read_text())
    assert [one["examples"] for one in manifest["shards"]] == [32, 32, 32, 4]
    assert manifest["codec"] == {"name": "Lopsided", "gain": 2.0}
    assert (manifest["latent_shape"], manifest["image_shape"]) == ([4, 4, 4], [8, 8, 1])
    assert manifest["source"]["examples"] == 100 and manifest["source"]["settings"]["name"] == "strokes"
    values = np.stack([one[name] for one in stored(whole) for name in ("image", "mirror")]).astype(float)
    mean, std = values[..., :4], values[..., 4:]
    variance = mean.var(axis=(0, 1, 2)) + (std**2).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(manifest["statistics"]["mean"], mean.mean(axis=(0, 1, 2)), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(manifest["statistics"]["std"], np.sqrt(variance), rtol=1e-12)
    assert (whole / encode.PICTURE).stat().st_size > 1000


def test_float16_without_mirrors(tmp_path: pathlib.Path, whole: pathlib.Path) -> None:
    encode.run(config(encode__dtype="float16", dataset__flip=False), tmp_path)
    half = Encoded(data_dir=os.fspath(tmp_path / "encoded")).opened()
    np.testing.assert_allclose(half[70]["image"], stored(whole)[70]["image"], rtol=1e-3)
    assert half[70]["image"].dtype == np.float32 and "mirror" not in half[70]
    message = refusal(config(encode__dtype="float16", codec__gain=1e6), tmp_path / "large")
    assert message.startswith("example 0 is encoded to") and "too large for float16: set encode.dtype" in message


@pytest.mark.parametrize("devices", [1, 2])
def test_the_same_bytes_on_any_number_of_devices(
    devices: int, whole: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = functools.partial(experiment_lib.from_config, devices=jax.devices()[:devices])
    monkeypatch.setattr(encode.experiment_lib, "from_config", one)
    encode.run(config(), tmp_path)
    assert hashes(tmp_path / "encoded") == hashes(whole)


def test_an_autoencoder_gives_the_same_bits_too(whole: pathlib.Path) -> None:
    sizes = {"in_channels": 1, "block_out_channels": (4, 8), "layers_per_block": 1, "norm_num_groups": 2}
    network = kl.KLAutoencoder(**sizes, rngs=nnx.Rngs(0))
    contents = dataclasses.replace(shards.read_manifest(epath.Path(whole))[0], shard=16)
    parts = {"codec": kl.KL(**sizes), "params": nnx.to_pure_dict(nnx.state(network, nnx.Param)), "contents": contents}
    source, found = Strokes().open(), []
    for devices in (1, 2):
        encoder = encoding.Encoder(**parts, devices=jax.devices()[:devices])
        examples = (source[index] for index in range(20))
        found.append([array for array, _ in encoder(examples, Strokes().scaled)])
    np.testing.assert_array_equal(*found)


def test_two_processes_write_the_bytes_of_one(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    by_hand = [f"--coordinator=127.0.0.1:{tiny.free_port()}", "--num_processes=2"]
    command = [sys.executable, "-m", "diffcurr.main", f"--config={LOPSIDED}", "--job=encode", f"--workdir={tmp_path}"]
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    start = functools.partial(subprocess.Popen, cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True)
    pair = [start([*command, *by_hand, f"--process_id={index}"]) for index in range(2)]
    try:
        said = [process.communicate(timeout=100) for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [process.returncode for process in pair] == [0, 0], said
    assert "images beside what the codec makes of them" in said[0][0] and "encode" not in said[1][0]
    assert hashes(tmp_path / "encoded") == hashes(whole)


def test_a_killed_run_goes_on(whole: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    """Left: a whole shard, one without its record, a damaged one, and a half-written one. No reader takes them."""
    folder = copied(whole, tmp_path / "left")
    for name in (shards.MANIFEST, "shard-00001.json", "shard-00003.json", "shard-00003.array_record"):
        (folder / name).unlink()
    (folder / ".shard-00003.1234.array_record").write_bytes(b"half")
    with pytest.raises(UserError, match=r"has shards, but no manifest\.json: run --job=encode again to finish it"):
        Encoded(data_dir=os.fspath(folder)).opened()
    content = bytearray((folder / "shard-00002.array_record").read_bytes())
    content[5000] ^= 1
    (folder / "shard-00002.array_record").write_bytes(content)
    encode.run(config(), "nowhere", out=folder)
    assert "100 images of strokes, 68 of them to be encoded" in capsys.readouterr().out
    assert hashes(folder) == hashes(whole)
    before = (folder / "shard-00000.array_record").stat().st_mtime_ns
    encode.run(config(), "nowhere", out=folder)
    assert "0 of them to be encoded" in capsys.readouterr().out
    assert hashes(folder) == hashes(whole) and (folder / "shard-00000.array_record").stat().st_mtime_ns == before


def test_killed_between_shards(whole: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard = shards.write

    def write(folder: epath.Path, contents: shards.Contents, index: int, *rest: Any) -> None:
        if index == 2:
            raise KeyboardInterrupt
        write_shard(folder, contents, index, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write", write)
        with pytest.raises(KeyboardInterrupt):
            encode.run(config(), tmp_path)
    assert not (tmp_path / "encoded" / shards.MANIFEST).exists()
    encode.run(config(), tmp_path)
    assert hashes(tmp_path / "encoded") == hashes(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codec__gain": 3.0}, "codec.gain is 2.0 there and 3.0 now"),
        ({"dataset__seed": 1}, "source.images is '"),
        ({"dataset__flip": False}, "mirrored is True there and False now"),
        ({"encode__dtype": "float16"}, "dtype is 'float32' there and 'float16' now"),
        ({"encode__shard": 64}, "shard is 32 there and 64 now"),
    ],
)
def test_other_latents_are_not_mixed_in(changes: dict, message: str, whole: pathlib.Path) -> None:
    before = hashes(whole)
    said = refusal(config(**changes), whole)
    assert f"{whole} holds latents of something else: " in said and message in said and "--out" in said
    assert hashes(whole) == before


def test_what_cannot_be_encoded(tmp_path: pathlib.Path, whole: pathlib.Path) -> None:
    latents = config(dataset__name="encoded", dataset__data_dir=os.fspath(whole))
    assert "holds latents already" in refusal(latents, tmp_path)
    assert "codec.name = 'identity' encodes nothing" in refusal(config(codec__name="identity"), tmp_path)
    augmented = config(dataset__augment=0.1, dataset__flip=False, network="song_unet")
    assert "dataset.augment = 0.1: stored latents cannot be augmented" in refusal(augmented, tmp_path)
    assert "--out=gs://bucket/a: shards are written to a disk" in refusal(config(), "gs://bucket/a")  # type: ignore[arg-type]
    corners = np.stack([Strokes().open()[index]["image"][0, [0, -1]] for index in range(100)])
    first = int(np.argmax((corners > 253).any(axis=(1, 2))))
    message = f"example {first} is encoded to values that are not finite"
    assert message in refusal(config(codec__broken=True), tmp_path / "a")
    (tmp_path / "file").touch()
    assert "cannot be written" in refusal(config(), tmp_path / "file")


def folder_of_pictures(path: pathlib.Path, broken: int) -> pathlib.Path:
    rng = np.random.default_rng(0)
    files = {f"{index % 2}/{index}.png": png(rng.integers(0, 256, (8, 10, 3), np.uint8)) for index in range(10)}
    return write(path, files | {f"0/{index}.png": b"no picture" for index in range(2, 2 + 2 * broken, 2)})


def test_bad_files(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    pictures = folder_of_pictures(tmp_path / "pictures", broken=2)
    dataset = {"dataset__name": "folder", "dataset__data_dir": os.fspath(pictures), "dataset__size": 8}
    assert "0/2.png" in refusal(config(**dataset), tmp_path / "out")
    encode.run(config(**dataset, dataset__on_bad_file="skip"), "nowhere", out=tmp_path / "out")
    assert "2 that could not be read are left out" in capsys.readouterr().out
    contents, _ = shards.read_manifest(epath.Path(tmp_path / "out"))
    assert (contents.examples, contents.skipped, contents.mirrored) == (8, 2, False)
    cropped = config(**dataset, dataset__resize="random_crop")
    assert "dataset.resize = 'random_crop': takes another crop" in refusal(cropped, tmp_path / "cropped")


def test_devices_get_the_same_neighbours(whole: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents, _ = shards.read_manifest(epath.Path(whole))
    for most, expected in ((0, 32), (8, 8), (7, 4), (100, 32)):
        monkeypatch.setattr(Lopsided, "images_at_once", most)
        encoder = encoding.Encoder(codec=Lopsided(), params={}, devices=jax.devices(), contents=contents)
        assert (encoder.at_once, encoder.batch) == (expected, 8 * expected)


def test_captions_of_a_folder_are_stored(tmp_path: pathlib.Path) -> None:
    """The bytes of a killed job are those of one that was not; other captions are other contents."""
    rng = np.random.default_rng(0)
    files = {f"{one}.png": png(rng.integers(0, 256, (8, 8, 3), np.uint8)) for one in range(10)}
    texts = {f"{one}.txt": f"picture {one}\nsaid twice".encode() for one in range(10)}
    pictures = write(tmp_path / "pictures", files | texts)
    own = {"dataset__name": "folder", "dataset__data_dir": str(pictures), "dataset__size": 8, "encode__shard": 4}
    told = config(**own, dataset__captions="txt", conditioning__name="none", sampling__guidance=1.0)
    assert encode.run(told, "nowhere", out=tmp_path / "whole") == 0
    dataset = Encoded(data_dir=str(tmp_path / "whole"), captions="stored")
    source = dataset.opened()
    assert [source[index]["captions"] for index in range(10)] == [(f"picture {one}", "said twice") for one in range(10)]
    assert source.captions() == sorted([*(f"picture {one}" for one in range(10)), "said twice"])
    whole = hashes(tmp_path / "whole")
    killed = copied(tmp_path / "whole", tmp_path / "killed")
    for name in (shards.MANIFEST, shards.CAPTIONS, "shard-00001.array_record"):
        (killed / name).unlink()
    encode.run(told, "nowhere", out=killed)
    assert hashes(killed) == whole
    (pictures / "3.txt").write_text("another")
    assert "source.captions is" in refusal(told, tmp_path / "whole")
    without = config(**own, conditioning__name="none", sampling__guidance=1.0)
    assert "captioned is True there and None now" in refusal(without, tmp_path / "whole")
