"""A denoiser for a sampler: a network, its process, a condition, and classifier-free guidance."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from diffcurr.conditioning import Condition
from diffcurr.processes.base import Denoised, Process
from diffcurr.sampling.solvers import Denoise

Network = Callable[[Float[Array, "batch *shape"], Float[Array, " batch"], Condition], Array]


def guided_denoiser(
    network: Network,
    process: Process,
    condition: Condition,
    null: Condition,
    *,
    scale: float = 1.0,
    interval: Sequence[float] = (0.0, 1.0),
    channels: int = 0,
    clip: float | None = None,
) -> Denoise:
    """x0-hat = uncond + scale (cond - uncond) (Ho & Salimans 2022), which on x0, epsilon and velocity is the same.

    Args:
      condition: condition of each sample.
      null: the condition without information, of the same batch size.
      scale: 1 is the conditional network alone, at half the cost of any other scale.
      interval: quantiles u between which samples are guided (Kynkaanniemi et al. 2024); elsewhere the scale is 1.
      channels: only so many first channels are guided (DiT's public sampler: 3 of its 4); all if 0.
      clip: limit of |x0-hat|, for pixels in [-1, 1]; None for latents.
    """
    guided = bool(condition) and scale != 1.0
    told = jax.tree.map(in_pairs, condition, null) if guided else condition
    if hasattr(network, "once"):
        told = network.once(told)

    def denoise(x: Array, time: Float[Array, ""]) -> Denoised:
        x = in_pairs(x, x) if guided else x
        x0, variance = process.denoise(lambda x, t: network(x, t, told), x, jnp.broadcast_to(time, x.shape[:1]))
        if guided:
            conditional, unconditional = x0[::2], x0[1::2]
            variance = None if variance is None else variance[::2]
            u = process.quantile(time)
            extra = jnp.where((interval[0] <= u) & (u <= interval[1]), scale - 1.0, 0.0)
            difference = conditional - unconditional
            if channels:
                difference = difference.at[..., channels:].set(0.0)
            x0 = conditional + extra * difference
        return Denoised(x0 if clip is None else jnp.clip(x0, -clip, clip), variance)

    return denoise


def in_pairs(first: Shaped[Array, "n *rest"], second: Shaped[Array, "n *rest"]) -> Shaped[Array, "2*n *rest"]:
    """Each row of one followed by that of the other, so that rows stay on the device that holds them."""
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])
