"""If these fail, samples are compared with another reference than the published one, or a file decides what is run."""

import hashlib
import io
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg

from diffcurr.errors import UserError
from diffcurr.metrics import frechet, published

WIDTH, SPATIAL = 12, 7
Arrays = dict[str, np.ndarray]


def statistics(width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    features = np.random.default_rng(seed).normal(size=(50, width))
    return features.mean(axis=0), np.cov(features, rowvar=False)


def arrays_of_adm() -> Arrays:
    mu, sigma = statistics(WIDTH, 0)
    mu_s, sigma_s = statistics(SPATIAL, 1)
    pictures = np.random.default_rng(2).integers(0, 256, (10, 8, 6, 3)).astype(np.uint8)
    return {"arr_0": pictures, "mu": mu, "sigma": sigma, "mu_s": mu_s, "sigma_s": sigma_s}


def read(path: pathlib.Path) -> published.Published:
    return published.read(path, WIDTH, SPATIAL)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_of_adm(save: Callable[..., None], tmp_path: pathlib.Path) -> None:
    arrays, path = arrays_of_adm(), tmp_path / "a.npz"
    save(path, **arrays)
    found = read(path)
    assert found.pool is not None and found.spatial is not None and found.pictures == 10
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    for ours, suffix in ((found.pool, ""), (found.spatial, "_s")):
        np.testing.assert_array_equal(ours.mean, arrays[f"mu{suffix}"])
        np.testing.assert_array_equal(ours.covariance, arrays[f"sigma{suffix}"])
    batches = list(published.pictures(path, 4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(batches), arrays["arr_0"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_file_of_edm_gives_the_distance(dtype: type, tmp_path: pathlib.Path) -> None:
    """That of SciPy's matrix root."""
    (mu, sigma), features = statistics(WIDTH, 0), np.random.default_rng(3).normal(0.3, 1.2, (60, WIDTH))
    np.savez(tmp_path / "a.npz", mu=mu.astype(dtype), sigma=np.asfortranarray(sigma.astype(dtype)))
    found = read(tmp_path / "a.npz")
    assert found.pool is not None and found.spatial is None and found.pictures == 0
    covariance = np.cov(features, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(sigma @ covariance))
    expected = np.sum((mu - features.mean(axis=0)) ** 2) + np.trace(sigma + covariance - 2 * root)
    assert frechet.distance(frechet.statistics(features), found.pool) == pytest.approx(expected, rel=1e-6)


def test_covariances_without_full_rank(tmp_path: pathlib.Path) -> None:
    """Rounding makes some of their eigenvalues negative."""
    features = np.random.default_rng(4).normal(size=(5, WIDTH)).astype(np.float32)
    for sigma in (np.cov(features, rowvar=False), np.cov(features, rowvar=False, dtype=np.float32), np.zeros((12, 12))):
        np.savez(tmp_path / "a.npz", mu=features[0], sigma=sigma)
        assert read(tmp_path / "a.npz").pool is not None


def test_a_batch_of_samples(tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / "a.npz", arr_0=arrays_of_adm()["arr_0"], arr_1=np.arange(10))  # with labels
    assert read(tmp_path / "a.npz")[1:] == (None, None, 10)


SPOIL: dict[str, Callable[[Arrays], Arrays]] = {
    "mu is of 12 features, these features are 2048: give the statistics of this network": lambda a: a,
    "holds no sigma: give reference statistics": lambda a: {"mu": a["mu"]},
    "holds no mu_s: ": lambda a: {name: a[name] for name in ("mu", "sigma", "sigma_s")},
    "holds neither mu and sigma nor pictures arr_0: ": lambda a: {"a": a["mu"]},
    "mu_s is of 12 features, these features are 7": lambda a: a | {"mu_s": a["mu"]},
    r"mu has shape \(1, 12\), not \(12,\)": lambda a: a | {"mu": a["mu"][None]},
    "mu holds NaN or infinity": lambda a: a | {"mu": np.full(WIDTH, np.inf)},
    "sigma_s is not symmetric, by ": lambda a: a | {"sigma_s": a["sigma_s"] + np.tri(SPATIAL)},
    "sigma has eigenvalues from -1 to 1, a covariance none below 0": lambda a: (
        a | {"sigma": np.diag([-1.0] + [1.0] * (WIDTH - 1))}
    ),
    r"cannot be read \(sigma: is of dtype int64, not float64\)": lambda a: a | {"sigma": np.eye(WIDTH, dtype=int)},
    r"cannot be read \(mu: is of dtype object": lambda a: a | {"mu": np.asarray([{}], object)},
    r"cannot be read \(arr_0: is of dtype uint8 and shape \(10, 8, 6\)": lambda a: a | {"arr_0": a["arr_0"][..., 0]},
    r"cannot be read \(arr_0: is of dtype float64": lambda a: a | {"arr_0": a["arr_0"] / 2},
}


@pytest.mark.parametrize("message", SPOIL)
def test_spoilt_arrays_are_one_line(message: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **SPOIL[message](arrays_of_adm()))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"a.npz: {message}") as error:
        published.read(path) if "2048" in message else read(path)
    assert "\n" not in str(error.value)


def test_spoilt_files_are_one_line(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(pickle.dumps({"mu": 1}))
    with pytest.raises(UserError, match=r"cannot be read \(File is not a zip file\): .*pickles are not read"):
        read(path)
    with pytest.raises(UserError, match="none.npz: is not a file: give reference statistics"):
        read(tmp_path / "none.npz")
    np.savez(path, **arrays_of_adm())  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"bytes are more than the 1000 that it can have"):
        published.read(path, WIDTH, SPATIAL, most_bytes=1000)
    path.write_bytes(path.read_bytes().replace(arrays_of_adm()["mu"].tobytes(), bytes(8 * WIDTH)))
    with pytest.raises(UserError, match="cannot be read .*CRC"):
        read(path)
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({WIDTH}, {2**60})}}".encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("sigma.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
        archive.writestr("mu.npy", b"\x93NUMPY\x07\x00")
    path.write_bytes(file.getvalue())
    with pytest.raises(UserError, match=r"mu: version \(7, 0\) of the format"):
        read(path)
    np.savez(path, mu=np.zeros(2))
    with pytest.raises(UserError, match="no item named 'arr_0.npy'"):
        next(iter(published.pictures(path)))
