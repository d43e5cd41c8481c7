"""The error of a network on images that it was not trained on, over the devices of all processes."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import annotated_types as at
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffcurr import ranges
from diffcurr.batch import Batch
from diffcurr.metrics import denoising
from diffcurr.metrics.evaluation import Measured
from diffcurr.metrics.intervals import mean_interval
from diffcurr.processes import Process
from diffcurr.training import sharding

ROWS = 128  # images that each device sees at a time
SEED = 0  # of the noise: the same for every run, whatever its own seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Denoising(ranges.Checked):
    """The settings of `evaluation.denoising`.

    Attributes:
      images: held-out images, at most; 0 for none.
      log_snr: the ends of the grid of log-SNR.
      levels: number of levels of the grid.
    """

    images: Annotated[int, at.Interval(ge=0, le=10**8)]
    log_snr: Annotated[Sequence[float], at.Len(2, 2)]
    levels: Annotated[int, at.Interval(ge=2, le=1000)]

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_snr", tuple(self.log_snr))
        super().__post_init__()
        if self.log_snr[0] >= self.log_snr[1]:
            raise ValueError(f"log_snr = {self.log_snr}: give two rising numbers")

    @property
    def points(self) -> Float[np.ndarray, " level"]:
        """The levels."""
        low, high = self.log_snr
        return np.linspace(low, high, self.levels)

    def check(self, process: Process) -> None:
        """Raises ValueError if the process has no such noise levels."""
        process.time_at(self.points)


def in_turn(
    compute: Callable[[Batch, Int[Array, " row"]], Float[Array, "row *rest"]], images: Batch, mesh: Mesh
) -> Float[np.ndarray, "n *rest"]:
    """What is computed of each image, ROWS on each device at a time, in every process.

    Args:
      compute: (some of the images, spread over the mesh; their numbers) -> the same in every process.
    """
    rows, number, found = ROWS * sharding.batch_shards(mesh), len(images.x), []
    with jax.transfer_guard("allow"):
        for first in range(0, number, rows):
            numbers = np.arange(first, first + rows) % number  # the last part is filled up with first images
            part = jax.tree.map(lambda x, numbers=numbers: x[numbers], images)
            placed = sharding.place((part, numbers.astype(np.int32)), sharding.batch_sharding(mesh))
            found.append(np.asarray(compute(*placed))[: number - first])
    return np.concatenate(found)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOutError:
    """A function of parameters, always of the same images and the same noise.

    Attributes:
      graph, process: the network and process that were trained.
      images: the held-out images as they are noised, with what the network is told; in every process all of them.
      values: the values that they take, for pixels; None for latents, and where they are too many to tell apart.
      settings: the noise levels and the number of images.
      mesh, param_shardings: where the parameters lie.
    """

    graph: Any
    process: Process
    images: Batch
    values: Float[np.ndarray, " value"] | None
    settings: Denoising
    mesh: Mesh
    param_shardings: Any

    def __call__(self, params: Any) -> Measured:
        """What was measured, the same in every process.

        `denoising_bound` has the bound in bits per dimension (`metrics.denoising.bound`) with its interval over images,
        and lists over log-SNR: `log_snr`, `noise_error`, `x0_error` (means), `noise_error_sd` (of an image).
        """
        key = jax.random.key(SEED)
        found = in_turn(lambda *part: self._compiled(params, *part, key), self.images, self.mesh)
        points = self.settings.points
        x0_error = found.astype(np.float64)
        noise_error = x0_error * np.exp(points)
        bits = self._bits(points, noise_error)
        return {
            denoising.NAME: mean_interval(bits).as_json()
            | {
                "examples": len(found),
                "log_snr": points.tolist(),
                "noise_error": noise_error.mean(axis=0).tolist(),
                "x0_error": x0_error.mean(axis=0).tolist(),
                "noise_error_sd": noise_error.std(axis=0, ddof=1).tolist(),
            }
        }

    def _bits(
        self, points: Float[np.ndarray, " level"], noise_error: Float[np.ndarray, "image level"]
    ) -> Float[np.ndarray, " image"]:
        shares = None
        if self.values is not None:
            step = self.values[1] - self.values[0]
            index = np.round((np.asarray(self.images.x) - self.values[0]) / step).astype(int)
            shares = np.bincount(index.ravel(), minlength=len(self.values)) / index.size
        second_moment = float(np.mean(np.square(self.images.x, dtype=np.float64)))
        return denoising.bound(points, noise_error, second_moment, self.values, shares)

    @functools.cached_property
    def _compiled(self) -> Any:
        """(params, images, their numbers, key) -> errors of x0 [image, level]."""
        times = jnp.asarray(self.process.time_at(self.settings.points), jnp.float32)
        levels = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), self.process.level_at(self.settings.points))

        def errors(params: Any, batch: Batch, numbers: Int[Array, " n"], key: PRNGKeyArray) -> Float[Array, "n level"]:
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                network = nnx.merge(self.graph, params)

                def denoise(x: Array, time: Array, level: Any) -> Any:
                    return self.process.denoise(lambda x, t: network(x, t, batch.condition), x, time, level)

                return denoising.x0_errors(denoise, batch.x, numbers, times, levels, key)

        everywhere, by_row = sharding.replicated(self.mesh), sharding.batch_sharding(self.mesh)
        return jax.jit(
            errors, in_shardings=(self.param_shardings, by_row, by_row, everywhere), out_shardings=everywhere
        )
