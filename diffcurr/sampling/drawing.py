"""Samples drawn part by part: what sampling depends on, compiled once, for any number of samples."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Interval
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffcurr import ranges
from diffcurr.batch import in_chunks
from diffcurr.codecs import Codec
from diffcurr.conditioning import Condition, Conditioning
from diffcurr.processes import Process
from diffcurr.sampling.guidance import guided_denoiser
from diffcurr.sampling.solvers import SPACINGS, Solver, make_grid, sample, sampling_times
from diffcurr.training import distributed, sharding

PART = 256  # samples that share a key
ROWS = 32  # samples that each device draws at a time, where there are so many; on few devices a whole part is drawn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(ranges.Checked):
    """The settings of `sampling`.

    Attributes:
      steps: steps of the sampler; each evaluates the network once, with `heun` twice but for the last.
      last_step: length of the last step in native time, where the process lets it be chosen; its own choice if 0.
      spacing: `process`, its own grid, or `log_snr`, evenly in log-SNR between the same ends.
      guidance: scale of classifier-free guidance; 1 is none.
      guidance_interval: the quantiles u between which samples are guided.
      guidance_channels: so many first channels are guided; all if 0.
      clip: limit of |x0-hat|; 0 for none.
      temperature: divides the logits of tokens; below 1, likely tokens become more so.
      top_k: number of the likeliest tokens that may be drawn at each place; 0 for all.
      top_p: probability that the likeliest tokens, of which one is drawn, reach together.
    """

    steps: ranges.Steps
    last_step: ranges.ShareBelowOne = 0.0
    spacing: Annotated[str, ranges.OneOf(SPACINGS)] = "process"
    guidance: ranges.NotNegative = 1.0
    guidance_interval: ranges.Quantiles = (0.0, 1.0)
    guidance_channels: ranges.Channels = 0
    clip: ranges.NotNegative = 0.0
    temperature: ranges.Positive = 1.0
    top_k: ranges.Classes = 0
    top_p: Annotated[float, Interval(gt=0, le=1)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "guidance_interval", tuple(self.guidance_interval))
        low, high = self.guidance_interval
        if low >= high:
            raise ValueError(f"guidance_interval = {self.guidance_interval}: two rising quantiles in [0, 1]")

    def check(self, process: Process, conditioning: Conditioning, channels: int) -> None:
        """Raises ValueError if the settings do not fit the process, the conditioning or the number of channels."""
        sampling_times(process, self.steps, self.last_step, self.spacing)
        self.check_guidance(conditioning)
        if not 0 <= self.guidance_channels <= channels:
            raise ValueError(f"guidance_channels = {self.guidance_channels}: there are {channels} channels")
        self.require_defaults(("temperature", "top_k", "top_p"), "tokens")

    def require_defaults(self, names: Sequence[str], what: str) -> None:
        """Raises ValueError if settings that are for something else are not their defaults."""
        for name in names:
            value, default = getattr(self, name), getattr(type(self), name)
            if value != default:
                raise ValueError(f"{name} = {value}: is for {what}; give {default}")

    def check_guidance(self, conditioning: Conditioning) -> None:
        """Raises ValueError if samples are to be guided, and the network does not learn what it needs for that."""
        if self.guidance != 1.0 and not conditioning.spec():
            raise ValueError(f"guidance = {self.guidance}: the network is unconditional; choose a conditioning")
        if self.guidance != 1.0 and not conditioning.dropout:
            raise ValueError(f"guidance = {self.guidance}: needs conditioning.dropout above 0, to learn what none is")


class Part(NamedTuple):
    """Some of the samples that are drawn.

    Attributes:
      images: float [row, height, width, channel], decoded, spread over the mesh by rows.
      numbers: int [row], the number of each among all samples; -1 for a row that only fills the shape.
    """

    images: Array
    numbers: Int[np.ndarray, " row"]

    def rows_here(self) -> tuple[Int[np.ndarray, " here"], Float[np.ndarray, "here height width channel"]]:
        """(their numbers, the samples) that this process holds."""
        rows, images = sharding.rows_here(self.images)
        numbers = self.numbers[rows]
        return numbers[numbers >= 0], images[numbers >= 0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler(abc.ABC):
    """Draws samples of a network, spread over the devices as a batch of the training is.

    Sample i is drawn with the noise of row i mod PART under the key of part i // PART, whatever the devices.

    Attributes:
      graph: the network's static graph definition.
      codec, conditioning: codec and conditioning of the training.
      codec_params: reads the codec's weights, once, onto the devices.
      settings: those of sampling.
      mesh: the devices.
      param_shardings: how the parameters lie on them.
    """

    graph: Any
    codec: Codec
    codec_params: Callable[[], Any]
    conditioning: Conditioning
    settings: Sampling
    mesh: Mesh
    param_shardings: Any

    @abc.abstractmethod
    def encoded(
        self, params: Any, key: PRNGKeyArray, part: Int[Array, ""], condition: Condition, rows: int, parts: int
    ) -> Array:
        """Samples of some parts as the codec decodes them: one part's first row after the other's, then their second
        rows, ...

        Args:
          key: random key of all samples.
          part: number of the first part.
          condition: condition of each sample, in their order.
          rows: number of rows of each part.
        """

    @abc.abstractmethod
    def decode(self, codec_params: Any, encoded: Array) -> Float[Array, "row height width channel"]:
        """The pictures."""

    def _draw(
        self,
        params: Any,
        codec_params: Any,
        key: PRNGKeyArray,
        part: Int[Array, ""],
        condition: Condition,
        rows: int,
        parts: int,
    ) -> Array:
        with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):  # networks keep their activations spread over it
            x = self.encoded(params, key, part, condition, rows, parts)
            decode = functools.partial(self.decode, codec_params)
            return in_chunks(decode, x, sharding.batch_shards(self.mesh), self.codec.images_at_once)

    @functools.cached_property
    def compiled(self) -> Any:
        """(params, codec's, key, first part, condition, rows of a part, parts) -> samples."""
        everywhere, by_row = sharding.replicated(self.mesh), sharding.batch_sharding(self.mesh)
        return jax.jit(
            self._draw,
            in_shardings=(self.param_shardings, everywhere, everywhere, everywhere, by_row),
            out_shardings=by_row,
            static_argnums=(5, 6),
        )

    def parts(
        self,
        params: Any,
        key: PRNGKeyArray,
        condition: Condition,
        number: int,
        after_part: Callable[[int, int], None] = lambda done, number: None,
    ) -> Iterator[Part]:
        """Samples by and by, on the devices; in the same order in every process.

        Args:
          condition: conditions of all samples, NumPy arrays with a leading axis of `number`.
          after_part: called with (samples drawn, number) when those are there.
        """
        if number < 1:
            raise ValueError(f"number = {number}: give at least 1 sample")
        shards = sharding.batch_shards(self.mesh)
        rows = -(-min(number, PART) // shards) * shards
        wanted = -(-number // PART)
        together = min(wanted, -(-ROWS * shards // PART))
        for first in range(0, wanted, together):
            row, part = np.divmod(np.arange(rows * together), together)
            numbers = (first + part) * PART + row
            numbers[(row >= PART) | (numbers >= number)] = -1
            with jax.transfer_guard("allow"):
                # A row that only fills the shape takes the condition of some other.
                chosen = {name: np.take(values, numbers, axis=0, mode="wrap") for name, values in condition.items()}
                chosen = sharding.place(chosen, sharding.batch_sharding(self.mesh))
                images = self.compiled(params, self.codec_params(), key, np.int32(first), chosen, rows, together)
                jax.block_until_ready(images)
            after_part(min((first + together) * PART, number), number)
            yield Part(images, numbers)

    def draw(
        self,
        params: Any,
        key: PRNGKeyArray,
        condition: Condition,
        number: int,
        after_part: Callable[[int, int], None] = lambda done, number: None,
    ) -> Float[np.ndarray, "number height width channel"]:
        """Samples on the host of every process, decoded; see `parts`."""
        with jax.transfer_guard("allow"):
            found = [part.rows_here() for part in self.parts(params, key, condition, number, after_part)]
            return distributed.gather(*(np.concatenate(rows) for rows in zip(*found, strict=True)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionSampler(Sampler):
    """From noise, by the solver, and through the codec.

    Attributes:
      process, solver: as trained.
      shape: shape of one x.
    """

    process: Process
    solver: Solver
    shape: tuple[int, ...]

    def _latents(self, params: Any, key: PRNGKeyArray, part: Int[Array, ""], condition: Condition, rows: int) -> Array:
        settings, network = self.settings, nnx.merge(self.graph, params)
        denoise = guided_denoiser(
            network,
            self.process,
            condition,
            self.conditioning.null(condition),
            scale=settings.guidance,
            interval=settings.guidance_interval,
            channels=settings.guidance_channels,
            clip=settings.clip or None,
        )
        levels = make_grid(self.process, settings.steps, settings.last_step, settings.spacing)
        return sample(jax.random.fold_in(key, part), denoise, levels, (rows, *self.shape), self.solver)

    def encoded(
        self, params: Any, key: PRNGKeyArray, part: Int[Array, ""], condition: Condition, rows: int, parts: int
    ) -> Array:
        if parts == 1:  # keeps the bits of the samples of earlier versions
            return self._latents(params, key, part, condition, rows)
        side_by_side = jax.tree.map(lambda c: c.reshape(rows, parts, *c.shape[1:]), condition)
        numbers = part + jnp.arange(parts)
        draw = functools.partial(self._latents, params, key, rows=rows)
        x = jax.vmap(draw, in_axes=(0, 1), out_axes=1)(numbers, side_by_side)
        return x.reshape(rows * parts, *self.shape)

    def decode(self, codec_params: Any, encoded: Array) -> Float[Array, "row height width channel"]:
        return self.codec.decode_with(codec_params, encoded)
