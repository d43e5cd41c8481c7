"""If these fail, data that are read in blocks, or by several processes, have another curve, or fill the memory."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from diffcurr.difficulty import cost
from diffcurr.difficulty.points import Points
from diffcurr.difficulty.relative_entropy import relative_entropy
from diffcurr.difficulty.streaming import own_components, relative_entropies
from diffcurr.difficulty.survey import survey
from diffcurr.processes import DDPM

DIGITS = (load_digits().images / 8 - 1).astype(np.float32)
LEVELS = slice(0, 1000, 37)
ALPHAS, SIGMAS = (level[LEVELS] for level in (np.sqrt(DDPM().alphas_cumprod), np.sqrt(1 - DDPM().alphas_cumprod)))
KEYS = [jax.random.key(0), jax.random.key(1)]
NUMBER = 1001  # no multiple of anything here


def points(data: np.ndarray, block: int, **settings: int) -> Points:
    share = slice(settings.get("process_index", 0), None, settings.get("process_count", 1))

    def read() -> Iterator[np.ndarray]:
        mine = data[share]
        for start in range(0, len(mine), 64):
            yield mine[start : start + 64]

    return Points(read=read, number=len(data), dimension=data[0].size, block=block, **settings)


@pytest.mark.parametrize(("block", "blocks"), [(2000, 1), (400, 3), (150, 7)])
def test_blocks_are_the_whole(block: int, blocks: int) -> None:
    """On eight devices, each with its own sums, the curve of all data on one; no array has a row for each point."""
    data, largest = DIGITS[:NUMBER], []
    read = points(data, block, piece=16)
    assert read.num_blocks == blocks

    def look(done: int, parts: int) -> None:
        assert parts == 4 * blocks and done <= parts
        largest.append(max(array.shape[0] for array in jax.live_arrays() if array.ndim > 1))

    got = relative_entropies(read, ALPHAS, SIGMAS, KEYS, 64, leave_one_out=(False, True), report=look)
    for kind, curves in zip((False, True), got, strict=True):
        for key, curve in zip(KEYS, curves, strict=True):
            whole = relative_entropy(jnp.asarray(data), ALPHAS, SIGMAS, key, 64, leave_one_out=kind)
            value, error = np.asarray(whole.value), np.asarray(whole.standard_error)
            # The leave-one-out curve crosses zero, so errors are compared with its standard error there.
            assert np.max(np.abs(curve.value - value) / (1e-5 * np.abs(value) + kind * 1e-4 * error)) < 1
            np.testing.assert_allclose(curve.standard_error[3:], error[3:], rtol=1e-4)  # before, it is rounding alone
            np.testing.assert_allclose(curve.upper_bound, whole.upper_bound, rtol=1e-6)
    assert len(largest) == 4 * blocks and max(largest) <= read.rows
    assert blocks == 1 or read.rows < NUMBER


def test_every_process_reads_its_share() -> None:
    """Each point is in one block of one process, and all processes have blocks of the same number and size."""
    data = np.arange(2 * 103, dtype=np.float32).reshape(103, 2)
    shares = [points(data, 10, piece=3, process_index=index, process_count=4, devices=2) for index in range(4)]
    blocks = [list(share) for share in shares]
    assert {len(one) for one in blocks} == {3} == {share.num_blocks for share in shares}
    assert {rows.x.shape for one in blocks for rows in one} == {(shares[0].rows, 2)}
    rows = [row for one in blocks for row in one]
    number, x = np.concatenate([row.number for row in rows]), np.concatenate([row.x for row in rows])
    np.testing.assert_array_equal(np.sort(number[number > 0]), 1 + np.arange(103))
    np.testing.assert_array_equal(x[number > 0], data[number[number > 0] - 1])
    assert not np.any(x[number == 0])


def test_one_block_is_read_once() -> None:
    reads = []
    for block in (103, 50):
        counted: list[int] = []

        def read(counted: list[int] = counted) -> Iterator[np.ndarray]:
            counted.append(1)
            yield np.ones((103, 2), np.float32)

        several = Points(read=read, number=103, dimension=2, block=block)
        assert sum(len(list(several)) for _ in range(2)) == 2 * several.num_blocks
        reads.append(len(counted))
    assert reads == [1, 2]


def test_means_and_covariance_are_those_of_the_whole() -> None:
    data = DIGITS[:NUMBER] * 100 + 1e4  # far from 0, where squares would lose what they are for
    wanted = np.array([7, 1000, 7, 0])
    found = survey(points(data, 300), wanted, covariance=True)
    x = data.reshape(NUMBER, -1).astype(np.float64)
    assert found.covariance is not None
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(x.T, ddof=0), rtol=1e-10, atol=1e-10 * np.var(x))
    np.testing.assert_allclose(found.moments.norm, np.mean(np.sum(x**2, 1)), rtol=1e-7)
    np.testing.assert_allclose(found.moments.centred_norm, np.sum(np.var(x, axis=0)), rtol=1e-7)
    np.testing.assert_array_equal(found.points(wanted), data.reshape(NUMBER, -1)[wanted])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.full((50, 4), 0.1, np.float32), "data are constant"),
        (np.where(np.arange(200).reshape(50, 4) == 190, np.nan, 1).astype(np.float32), "not finite"),
        (np.where(np.arange(200).reshape(50, 4) == 190, np.inf, 1).astype(np.float32), "not finite"),
    ],
)
def test_rejects_data(data: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        relative_entropies(points(data, 20), ALPHAS, SIGMAS, KEYS, 10)


def test_rejects_too_few() -> None:
    with pytest.raises(ValueError, match="num_samples = 51: choose between 8 and the 50"):
        relative_entropies(points(DIGITS[:50], 20), ALPHAS, SIGMAS, KEYS, 51)
    fewer = Points(read=lambda: [DIGITS[:30]], number=50, dimension=64, block=20)
    with pytest.raises(ValueError, match="30 examples could be read, where 50 were expected"):
        survey(fewer, own_components(KEYS, 8, fewer))


def test_the_bound_of_counted_work() -> None:
    """The larger of operations / peak and bytes / bandwidth, shared by the chips."""
    work = cost.work(1000, 4, 10, 11, parts=2, piece=100)
    assert work.pairs == 1000 * 10 * 10 and work.distances == 8 * work.pairs
    assert work.flops == 4 * 1000 * 10 * 4 + cost.OPERATIONS * work.pairs
    assert work.traffic == 4 * 1000 * 4 * 2 + 10 * (2 * 16 * 10 * 10)
    assert cost.bound(work, flops=work.flops, bandwidth=1e30, chips=2) == (0.5, 0.5)
    near, far = cost.bound(work, flops=1e30, bandwidth=work.traffic, chips=1)
    assert near == 1 and far == 1 + work.distances / work.traffic
