"""Images or latents that the user brings would be read, labelled or scaled wrongly, or a wrong folder not refused."""

import io
import json
import pathlib
import zipfile

import numpy as np
import pytest
from PIL import Image

from diffcurr.conditioning import Nothing
from diffcurr.data import pipeline
from diffcurr.data.datasets import FFHQ64, FFHQ256Latents, ImageNet64
from diffcurr.data.files import ImageFiles, LatentFiles, centre_square
from diffcurr.errors import UserError


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def write(path: pathlib.Path, files: dict[str, bytes], as_zip: bool) -> pathlib.Path:
    if as_zip:
        with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path.with_suffix(".zip")
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


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


def test_labels(pictures: np.ndarray, tmp_path: pathlib.Path) -> None:
    """From dataset.json where there is one, else from the top folders; both must fit the classes."""
    names = [f"n{number}/{number}.JPEG" for number in (3, 1, 2, 0, 5, 4)]
    files = {name: png(image) for name, image in zip(names, pictures, strict=True)}  # PIL looks at bytes, not at names
    folder = write(tmp_path / "by folder", files, as_zip=False)
    assert [ImageFiles(folder, 64, 6)[index]["label"] for index in range(6)] == list(range(6))
    with pytest.raises(UserError, match="6 top folders instead of one for each of the 1000 classes"):
        ImageNet64(data_dir=str(folder)).open()

    listed = [[name, index % 2] for index, name in enumerate(sorted(names))]
    listing = {"dataset.json": json.dumps({"labels": listed}).encode()}
    with_list = ImageFiles(write(tmp_path / "listed", files | listing, as_zip=True), 64, 2)
    assert [with_list[index]["label"] for index in range(6)] == [0, 1] * 3
    with pytest.raises(UserError, match="labels 0 to 1 do not fit 1 classes"):
        ImageFiles(tmp_path / "listed.zip", 64, 1)
    listing = {"dataset.json": json.dumps({"labels": listed[1:]}).encode()}
    with pytest.raises(UserError, match=r"no label for n0/0\.JPEG and 0 more"):
        ImageFiles(write(tmp_path / "short", files | listing, as_zip=True), 64, 2)
    flat = write(tmp_path / "flat", {f"{number}.png": png(pictures[0]) for number in range(2)}, as_zip=False)
    with pytest.raises(UserError, match=r"there is no dataset\.json"):
        ImageFiles(flat, 64, 2)


def test_centre_square() -> None:
    """Halved while twice too large, then resized, then cropped: a wide picture keeps its middle."""
    wide = np.zeros((130, 300, 3), np.uint8)
    wide[:, 85:215] = 200  # the central square
    cropped = centre_square(Image.fromarray(wide), 64)
    assert cropped.shape == (64, 64, 3)
    np.testing.assert_array_equal(cropped[:, 2:-2], 200)
    exact = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    np.testing.assert_array_equal(centre_square(Image.fromarray(exact), 32), exact)
    np.testing.assert_array_equal(
        centre_square(Image.fromarray(exact), 16),
        np.floor(exact.reshape(16, 2, 16, 2, 3).mean((1, 3)) + 0.5),
    )


@pytest.mark.parametrize("as_zip", [False, True])
def test_latents(as_zip: bool, tmp_path: pathlib.Path) -> None:
    """Scaled as they are; where standard deviations come with them, drawn anew at each pass, the same for a seed."""
    rng = np.random.default_rng(0)
    mean, deviation = rng.normal(size=(2, 8, 4, 32, 32)).astype(np.float32)
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
    with pytest.raises(UserError, match="dataset.split = 'val'"):
        FFHQ64(split="val", data_dir=str(tmp_path / "empty")).open()
    broken = write(tmp_path / "broken", {"a.png": png(pictures[0])[:500]}, as_zip=False)
    with pytest.raises(UserError, match=r"a\.png is not a readable image"):
        FFHQ64(data_dir=str(broken)).open()
    other = write(tmp_path / "other", {"a.npy": npy(np.zeros((3, 32, 32)))}, as_zip=False)
    with pytest.raises(UserError, match=r"shape \(3, 32, 32\), not \(4, 32, 32\)"):
        FFHQ256Latents(data_dir=str(other)).open()
    pickled = write(tmp_path / "pickled", {"a.npy": npy(np.array([{}], object))}, as_zip=False)
    with pytest.raises(UserError, match=r"a\.npy is not a readable \.npy file"):
        LatentFiles(pickled, 32, 4, 1.0, 0)
    with pytest.raises(ValueError, match=r"latent_scale = 0\.0: must be above 0"):
        FFHQ256Latents(latent_scale=0.0)


def test_a_split_is_the_folder_of_its_name(pictures: np.ndarray, tmp_path: pathlib.Path) -> None:
    """Where there is one; otherwise the whole folder is the split train."""
    folder = write(tmp_path / "split", {"train/a.png": png(pictures[0]), "val/b.png": png(pictures[1])}, as_zip=False)
    for split, picture in (("train", pictures[0]), ("val", pictures[1])):
        source = FFHQ64(split=split, data_dir=str(folder)).open()
        assert len(source) == 1
        np.testing.assert_array_equal(source[0]["image"], picture)
