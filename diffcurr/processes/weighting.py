"""Loss weights from the literature, as functions of the signal-to-noise ratio, for any prediction.

Each is given as the weight w of the squared error of the noise. A network that outputs o = a x0 + b noise has
|error of noise|^2 = c |error of o|^2 at the same x (`prediction.squared_error_factor`), so its own loss is weighted
with c w: SNR w for x0, SNR / (SNR + 1) w for v.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffcurr.processes import prediction as prediction_lib
from diffcurr.processes.prediction import Level

_NOISE_WEIGHTS: dict[str, tuple[float, Callable[..., Array]]] = {
    # Hang et al. 2023: min(SNR, gamma) on x0.
    "min_snr": (5.0, lambda snr, gamma, k: jnp.minimum(1.0, gamma / snr)),
    # Crowson et al. 2024: its smooth form, SNR gamma / (SNR + gamma) on x0; with gamma = 1 / sigma_data^2 it is
    # (sigma sigma_data)^2 / (sigma^2 + sigma_data^2)^2 on the output of EDM's network.
    "soft_min_snr": (4.0, lambda snr, gamma, k: gamma / (snr + gamma)),
    # Choi et al. 2022.
    "p2": (1.0, lambda snr, gamma, k: (k + snr) ** -gamma),
}
"""Name -> (the usual gamma, weight of the noise's squared error)."""

WEIGHTINGS = ("constant", *_NOISE_WEIGHTS)


def weight(name: str, prediction: str, level: Level, *, gamma: float = 0.0, k: float = 1.0) -> Float[Array, " batch"]:
    """The factor of a prediction's squared error; 1 for `constant`.

    Args:
      gamma: of the weight; the usual one if 0 (5 for Min-SNR, 4 for its soft form, 1 for P2).
      k: of P2.

    Raises:
      ValueError: for another name.
    """
    if name == "constant":
        return jnp.ones_like(level.sigma)
    if name not in _NOISE_WEIGHTS:
        raise ValueError(f"weighting = {name!r}: choose one of {', '.join(WEIGHTINGS)}")
    usual, function = _NOISE_WEIGHTS[name]
    snr = jnp.square(level.alpha / level.sigma)
    factor = prediction_lib.squared_error_factor(prediction, level)
    return factor * function(snr, gamma or usual, k)
