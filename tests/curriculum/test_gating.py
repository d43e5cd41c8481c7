"""If these fail, levels that tell nothing are taken for informative, by a rule, by clusters or in a picture."""

import jax.numpy as jnp
import numpy as np

from diffcurr.curriculum import gating


def test_the_gate_opens_with_the_noise() -> None:
    ratio = np.array([1e-3, 0.5, 1.0, 2.0, 1e3])
    expected = ratio**3 / (ratio**3 + 2.0**3)
    np.testing.assert_allclose(gating.gate(ratio, 2.0, 3.0), expected, rtol=1e-12)
    np.testing.assert_allclose(gating.gate(jnp.asarray(ratio), jnp.float32(2.0), 3.0), expected, rtol=1e-5)
    assert gating.gate(ratio, 2.0, 3.0)[3] == 0.5
    sharper = gating.gate(ratio, 2.0, 9.0)
    assert np.all(sharper[:3] < expected[:3]) and sharper[4] >= expected[4]


def test_the_onset_is_the_first_informative_level() -> None:
    """From the clean end, whatever comes behind it; an error that is not known is passed over."""
    error, ratio = np.array([1e-3, 0.05, 0.5, 0.01, 0.4]), np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    for array in (np.asarray, jnp.asarray):
        found = [float(gating.onset(array(error), array(ratio), share)) for share in (0.0, 0.01, 0.5, 0.9)]
        np.testing.assert_allclose(found, [0.1, 0.2, 0.3, 0.3], rtol=1e-6)
        known = array([False, False, True, True, True])
        np.testing.assert_allclose(float(gating.onset(array(error), array(ratio), 0.0, known)), 0.3, rtol=1e-6)


def test_gated_information() -> None:
    """A log-SNR that falls by 8 over u: e times 8 times the gate, whose c is found where the error begins."""
    log_snr = 4.0 - 8.0 * (np.arange(100) + 0.5) / 100
    error = np.where(np.arange(100) < 30, 1e-6, 0.25)
    ratio = np.exp(-log_snr / 2)
    expected = error * 8.0 / (1 + (ratio[30] / ratio) ** 3)
    np.testing.assert_allclose(gating.gated_information(error, log_snr), expected, rtol=1e-9)
    given = gating.gated_information(error, log_snr, at=2.0, sharpness=1.0)
    np.testing.assert_allclose(given, error * 8.0 / (1 + 2.0 / ratio), rtol=1e-9)
