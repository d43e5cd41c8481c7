"""Samples drawn part by part: what sampling depends on, compiled once, for any number of samples."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffcurr import ranges
from diffcurr.codecs import Codec
from diffcurr.conditioning import Condition, Conditioning
from diffcurr.processes import Process
from diffcurr.sampling.guidance import guided_denoiser
from diffcurr.sampling.solvers import Solver, make_levels, sample

PART = 256  # samples drawn at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(ranges.Checked):
    """The settings of `sampling`.

    Attributes:
      steps: network evaluations (twice as many, but at the last, with `heun`).
      last_step: length of the last step in native time, where the process lets it be chosen; its own choice if 0.
      guidance: scale of classifier-free guidance; 1 is none.
      guidance_interval: the quantiles u between which samples are guided.
      guidance_channels: so many first channels are guided; all if 0.
      clip: limit of |x0-hat|; 0 for none.
    """

    steps: ranges.Steps
    last_step: ranges.ShareBelowOne = 0.0
    guidance: ranges.NotNegative = 1.0
    guidance_interval: ranges.Quantiles = (0.0, 1.0)
    guidance_channels: ranges.Channels = 0
    clip: ranges.NotNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "guidance_interval", tuple(self.guidance_interval))
        low, high = self.guidance_interval
        if low >= high:
            raise ValueError(f"guidance_interval = {self.guidance_interval}: two rising quantiles in [0, 1]")

    def check(self, process: Process, conditioning: Conditioning, channels: int) -> None:
        """Raises ValueError if the settings do not fit the process, the conditioning or the number of channels."""
        process.sampling_times(self.steps, self.last_step)
        if self.guidance != 1.0 and not conditioning.spec():
            raise ValueError(f"guidance = {self.guidance}: the network is unconditional; choose a conditioning")
        if self.guidance != 1.0 and not conditioning.dropout:
            raise ValueError(f"guidance = {self.guidance}: needs conditioning.dropout above 0, to learn what none is")
        if not 0 <= self.guidance_channels <= channels:
            raise ValueError(f"guidance_channels = {self.guidance_channels}: there are {channels} channels")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """Draws samples of a network.

    Attributes:
      graph: the network's static graph definition.
      process, solver, codec, conditioning: as trained.
      shape: shape of one x.
      settings: those of sampling.
      mesh: the devices.
      param_shardings: how the parameters lie on them.
    """

    graph: Any
    process: Process
    solver: Solver
    codec: Codec
    conditioning: Conditioning
    shape: tuple[int, ...]
    settings: Sampling
    mesh: Mesh
    param_shardings: Any

    def _draw(self, params: Any, key: PRNGKeyArray, part: Int[Array, ""], condition: Condition, size: int) -> Array:
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
        levels = make_levels(self.process, settings.steps, settings.last_step)
        x = sample(jax.random.fold_in(key, part), denoise, levels, (size, *self.shape), self.solver)
        return self.codec.decode(x)

    @functools.cached_property
    def _compiled(self) -> Any:
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        return jax.jit(
            self._draw,
            in_shardings=(self.param_shardings, everywhere, everywhere, everywhere),
            out_shardings=everywhere,
            static_argnums=4,
        )

    def draw(
        self,
        params: Any,
        key: PRNGKeyArray,
        condition: Condition,
        number: int,
        after_part: Callable[[int, int], None] = lambda done, number: None,
    ) -> Float[np.ndarray, "number height width channel"]:
        """Samples on the host, decoded; the same for the same key, whatever the devices, up to rounding.

        Args:
          condition: conditions of all samples, NumPy arrays with a leading axis of `number`.
          after_part: called with (samples drawn, number) after each part.
        """
        if number < 1:
            raise ValueError(f"number = {number}: give at least 1 sample")
        size = min(number, PART)
        parts = []
        with jax.transfer_guard("allow"):
            for index, start in enumerate(range(0, number, size)):
                # The last part is as long as the others, so that one program serves all.
                chosen = {
                    name: np.take(np.asarray(values), np.arange(start, start + size), axis=0, mode="wrap")
                    for name, values in condition.items()
                }
                parts.append(jax.device_get(self._compiled(params, key, np.int32(index), chosen, size)))
                after_part(min(start + size, number), number)
        return np.concatenate(parts)[:number]
