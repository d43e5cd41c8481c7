"""A denoiser for a sampler: a network, its process, labels, and classifier-free guidance."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffcurr.processes.base import Process
from diffcurr.sampling.solvers import Denoise

Network = Callable[
    [Float[Array, "batch height width channel"], Float[Array, " batch"], Int[Array, " batch"] | None], Array
]


def guided_denoiser(
    network: Network,
    process: Process,
    labels: Int[Array, " batch"] | None,
    *,
    null_label: int = 0,
    scale: float = 1.0,
    clip: float | None = None,
) -> Denoise:
    """x0-hat = uncond + scale (cond - uncond) (Ho & Salimans 2022), which on x0 and on epsilon is the same.

    Args:
      labels: one class a sample; None for an unconditional network.
      null_label: the label that stands for "no class".
      scale: 1 is the conditional network alone, at half the cost of any other scale.
      clip: limit of |x0-hat|, for pixels in [-1, 1]; None for latents.
    """

    def denoise(x: Array, u: Float[Array, ""]) -> Array:
        guided = labels is not None and scale != 1.0
        y = labels
        if labels is not None and guided:
            x, y = jnp.concatenate([x, x]), jnp.concatenate([labels, jnp.full_like(labels, null_label)])
        x0 = process.denoise(lambda x, t: network(x, t, y), x, jnp.broadcast_to(u, x.shape[:1]))
        if guided:
            conditional, unconditional = jnp.split(x0, 2)
            x0 = unconditional + scale * (conditional - unconditional)
        return x0 if clip is None else jnp.clip(x0, -clip, clip)

    return denoise
