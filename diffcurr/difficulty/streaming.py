"""The relative entropy of data that do not fit in memory, on all devices of all processes.

Each device adds its part of each block to sums of its own, and the sums are merged once, at the end. So devices and
processes exchange nothing while the data are read, and memory is that of a block, of the samples, and of the sums:
4 floats for each sample and pair of timesteps.

The result is that of `relative_entropy` on the whole data, up to the rounding of float32 sums in another order, about
1e-5 of the value.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from diffcurr.difficulty import mixture
from diffcurr.difficulty.coefficients import Bound, Coefficients, coefficients_of
from diffcurr.difficulty.mixture import Block, Moments, Samples, Sums, Terms
from diffcurr.difficulty.points import Points
from diffcurr.difficulty.relative_entropy import RelativeEntropy, estimate
from diffcurr.difficulty.survey import Survey, survey
from diffcurr.training import sharding

DEVICES = "devices"


def own_components(keys: Sequence[PRNGKeyArray], num_samples: int, points: Points) -> Int[np.ndarray, " sample"]:
    """The numbers of the points from which the samples of all keys are drawn; one may be there several times."""
    drawn = [np.asarray(mixture.draw(key, num_samples, points.number, 1)[0]) for key in keys]
    return np.concatenate(drawn)


def relative_entropies(
    points: Points,
    alphas: Float[np.ndarray, "..."],
    sigmas: Float[np.ndarray, "..."],
    keys: Sequence[PRNGKeyArray],
    num_samples: int,
    *,
    leave_one_out: Sequence[bool] = (False,),
    surveyed: Survey | None = None,
    report: Callable[[int, int], None] | None = None,
) -> list[list[RelativeEntropy]]:
    """`relative_entropy(data, alphas, sigmas, key, num_samples)` for several keys, of data that are read in blocks.

    All processes call it, with the same arguments but `points`, and have the same results. The data are read once, and
    before that once for the survey, if it is not given.

    Args:
      points: the data.
      keys: random keys. All samples of all keys are computed while a block is in memory.
      num_samples: number of samples for each key, from 8 to the number of points.
      leave_one_out: what to compute of each key; see `relative_entropy`.
      surveyed: the survey of `points` with `own_components(keys, num_samples, points)`.
      report: called with (parts done, parts in all), where a part is a block with the samples of one key.

    Returns:
      For each value of `leave_one_out`, the result of each key.

    Raises:
      ValueError: if the data are constant or not finite, `num_samples` is out of range, or `alphas` and `sigmas` are
        invalid.
    """
    coefficients = coefficients_of(alphas, sigmas)
    if not 8 <= num_samples <= points.number:
        raise ValueError(f"num_samples = {num_samples}: choose between 8 and the {points.number} data points")
    if surveyed is None:
        surveyed = survey(points, own_components(keys, num_samples, points))
    mesh = Mesh(np.array(jax.devices()), DEVICES)
    everywhere, spread = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(DEVICES))
    c, bound = sharding.place(jax.tree.map(np.float32, coefficients), everywhere)
    moments: Moments = sharding.place(surveyed.moments, everywhere)

    samples, terms, sums = [], {}, {}
    for number, key in enumerate(keys):
        index, eps = mixture.draw(key, num_samples, points.number, points.dimension)
        drawn = sharding.place((index, eps, surveyed.points(np.asarray(index))), everywhere)
        samples.append(_samples(*drawn, moments))
        for kind in set(leave_one_out):
            terms[kind, number] = _terms(c, bound, samples[number], moments, kind)
            sums[kind, number] = _no_sums(terms[kind, number], mesh, kind)

    parts, done = points.num_blocks * len(sums), 0
    for rows in points:
        x, numbers = (_spread_out(part, points.devices, spread) for part in rows)
        for kind, number in sums:
            sums[kind, number] = _add(
                sums[kind, number],
                x,
                numbers,
                c,
                samples[number],
                terms[kind, number],
                moments,
                mesh,
                kind,
                points.pieces,
            )
            # Without waiting, blocks would be read ahead of the computation, and fill the memory.
            jax.block_until_ready(sums[kind, number])
            done += 1
            if report:
                report(done, parts)
    return [
        [
            jax.tree.map(
                np.asarray, _estimate(sums[kind, number], samples[number], terms[kind, number], moments, mesh, kind)
            )
            for number in range(len(keys))
        ]
        for kind in leave_one_out
    ]


def _spread_out(here: Shaped[np.ndarray, "row *rest"], devices: int, spread: NamedSharding) -> jax.Array:
    """The rows of all processes as one array, of which each device has an equal part of its process's rows."""
    # In whatever order the mesh has the devices: every row carries its number.
    local = [device for device in spread.mesh.devices.flat if device.process_index == jax.process_index()]
    shards = [jax.device_put(part, device) for part, device in zip(np.split(here, devices), local, strict=True)]
    shape = (spread.mesh.size * len(here) // devices, *here.shape[1:])
    return jax.make_array_from_single_device_arrays(shape, spread, shards)


@jax.jit
@jax.default_matmul_precision("highest")
def _samples(
    index: Int[Array, " sample"], eps: Float[Array, "sample dim"], own: Float[Array, "sample dim"], moments: Moments
) -> Samples:
    centred = own - moments.mean
    norm, centred_norm = (jnp.sum(jnp.square(x), axis=1) for x in (own, centred))
    return mixture.samples_of(index, eps, centred, norm, centred_norm, moments.mean)


@functools.partial(jax.jit, static_argnums=4)
def _terms(c: Coefficients, bound: Bound, samples: Samples, moments: Moments, leave_one_out: bool) -> Terms:
    return mixture.terms_of(c, bound, samples, moments, leave_one_out)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _no_sums(terms: Terms, mesh: Mesh, leave_one_out: bool) -> Sums:
    """Sums over no components for every device, along a leading axis that is spread over the devices."""
    spread = NamedSharding(mesh, PartitionSpec(DEVICES))
    return jax.tree.map(
        lambda x: jax.lax.with_sharding_constraint(jnp.broadcast_to(x, (mesh.size, *x.shape)), spread),
        mixture.no_sums(terms, leave_one_out),
    )


@functools.partial(jax.jit, static_argnums=(7, 8, 9), donate_argnums=0)
def _add(
    sums: Sums,
    x: Float[Array, "row dim"],
    number: Int[Array, " row"],
    c: Coefficients,
    samples: Samples,
    terms: Terms,
    moments: Moments,
    mesh: Mesh,
    leave_one_out: bool,
    pieces: tuple[int, int],
) -> Sums:
    """Every device adds its rows to its sums."""

    @jax.default_matmul_precision("highest")  # accelerators would round the factors of products to fewer bits
    def add_here(sums: Sums, x: Array, number: Array, c: Any, samples: Any, terms: Any, moments: Any) -> Sums:
        def add(sums: Sums, piece: tuple[Array, Array]) -> tuple[Sums, None]:
            x, number = piece
            centred = x - moments.mean
            centred_norm, norm = (jnp.sum(jnp.square(points), axis=1) for points in (centred, x))
            block = Block(centred, centred_norm, norm, number)
            return mixture.add_block(sums, block, c, samples, terms, leave_one_out)

        here = jax.tree.map(lambda v: v[0], sums)
        here, _ = jax.lax.scan(add, here, (x.reshape(*pieces, -1), number.reshape(pieces)))
        return jax.tree.map(lambda v: v[None], here)

    spread, everywhere = PartitionSpec(DEVICES), PartitionSpec()
    return jax.shard_map(
        add_here,
        mesh=mesh,
        in_specs=(spread, spread, spread, everywhere, everywhere, everywhere, everywhere),
        out_specs=spread,
        check_vma=False,  # nothing is reduced here
    )(sums, x, number, c, samples, terms, moments)


@functools.partial(jax.jit, static_argnums=(4, 5))
@jax.default_matmul_precision("highest")
def _estimate(
    sums: Sums, samples: Samples, terms: Terms, moments: Moments, mesh: Mesh, leave_one_out: bool
) -> RelativeEntropy:
    result = estimate(mixture.merged(sums), samples, terms, moments, leave_one_out)
    return jax.lax.with_sharding_constraint(result, NamedSharding(mesh, PartitionSpec()))
