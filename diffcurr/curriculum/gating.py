"""Which noise levels tell something about the data, from the squared error of the noise that a network makes there.

By the I-MMSE relation (Guo, Shamai & Verdu 2005) the information about the data per log-SNR is half that error, summed
over pixels, whatever the process. Where there is almost no noise nothing is left to learn but the grid of pixel values;
a gate leaves those levels out (InfoNoise, arXiv 2602.18647). `onset` and `gate` take NumPy arrays or JAX's.
"""

from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Bool, Float

from diffcurr.curriculum.levels import slope

ONSET = 0.002  # share of the largest error; as published
SHARPNESS = 3.0  # as published

Values: TypeAlias = Float[Array | np.ndarray, " level"]
Value: TypeAlias = float | Float[Array | np.ndarray, ""]


def onset(error: Values, ratio: Values, share: float, known: Bool[Array | np.ndarray, " level"] | bool = True) -> Value:
    """The ratio of noise to data at the first level, from the clean end, whose error is above a share of the largest.

    Args:
      error: squared error of the noise, 0 where it is not known.
      ratio: sigma / alpha, rising.
      share: in [0, 1).
      known: where the error is known.
    """
    found: Value = ratio[(known & (error > share * error.max())).argmax()]
    return found


def gate(ratio: Values, at: Value, sharpness: float) -> Values:
    """g = s^n / (s^n + c^n), which rises from 0 to 1 with the noise and is 1/2 at s = c.

    Args:
      ratio: s = sigma / alpha.
      at: c, above 0.
      sharpness: n.
    """
    return 1.0 / (1.0 + (at / ratio) ** sharpness)


def gated_information(
    error: Float[np.ndarray, " level"],
    log_snr: Float[np.ndarray, " level"],
    *,
    at: float = 0.0,
    share: float = ONSET,
    sharpness: float = SHARPNESS,
) -> Float[np.ndarray, " level"]:
    """The information about the data per unit of u, gated: e g |d log-SNR / du|, twice the nats per pixel.

    Args:
      error: e, mean squared error of the noise per pixel at T equally likely levels.
      log_snr: log(alpha^2 / sigma^2) at those levels, falling.
      at: the gate's c; 0 finds it, with `onset`.
      share: see `onset`.
      sharpness: see `gate`.
    """
    ratio = np.exp(-log_snr / 2)
    return error * gate(ratio, at or onset(error, ratio, share), sharpness) * slope(log_snr)
