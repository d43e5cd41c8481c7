"""A fixed density would be drawn that is not the one of its authors, or one that cannot be drawn."""

import math

import numpy as np
import pytest

from diffcurr.curriculum import densities
from diffcurr.curriculum.densities import DENSITIES, Beta, Density, Laplace, LogNormal, Mode, Shift, Table, Uniform
from diffcurr.curriculum.levels import Levels


def flow_levels(edges: list[float], number: int = 100_000) -> Levels:
    """Flow's linear path: u is the share of noise, log-SNR = 2 log((1 - u) / u)."""
    u = (np.arange(number) + 0.5) / number
    return Levels(np.array(edges), 2 * (np.log1p(-u) - np.log(u)), np.ones(number))


EDGES = [0.0, 0.1, 0.5, 0.8, 1.0]
# The mass of each cluster, by hand from each density's formula: u is the share of noise t, logit(t) = -log-SNR / 2.
MASSES = {
    "uniform": (Uniform(), [0.1, 0.4, 0.3, 0.2]),
    # log-SNR at the edges: 4.3944, 0, -2.7726. Above 4.3944: exp(-4.3944 / 2) / 2.
    "laplace": (Laplace(scale=2.0), [0.05556, 0.44444, 0.375, 0.125]),
    # The normal distribution function at logit(0.1) = -2.1972, at 0, and at logit(0.8) = 1.3863.
    "log_normal": (LogNormal(), [0.01400, 0.48600, 0.41717, 0.08283]),
    "MeanFlow": (LogNormal(mean=-0.4), [0.03615, 0.61927, 0.30754, 0.03704]),
    "beta": (Beta(a=2.0, b=1.0), [0.01, 0.24, 0.39, 0.36]),
    "mode 0": (Mode(scale=0.0), [0.1, 0.4, 0.3, 0.2]),
    # t' = 3 t / (1 + 2 t) is 0.1 at t = 1/28, 0.5 at 1/4 and 0.8 at 4/7.
    "shift": (Shift(scale=3.0), [1 / 28, 1 / 4 - 1 / 28, 4 / 7 - 1 / 4, 3 / 7]),
    "table": (Table(at=(4, 1, 0, 2)), [0.4 / 1.2, 0.4 / 1.2, 0.0, 0.4 / 1.2]),
}


@pytest.mark.parametrize(("density", "masses"), MASSES.values(), ids=MASSES)
def test_mass_of_each_cluster(density: Density, masses: list[float]) -> None:
    levels = flow_levels(EDGES)
    np.testing.assert_allclose(density.weights(levels) * levels.widths, masses, atol=2e-5)


def test_no_shift() -> None:
    """Also where there are few levels, and the outermost are wide."""
    np.testing.assert_allclose(Shift().weights(flow_levels(EDGES, 10)), 1.0, rtol=1e-12)


def test_mode_by_its_samples() -> None:
    """SD3's formula, applied to draws."""
    scale, v = 1.29, (np.arange(200_000) + 0.5) / 200_000
    t = 1 - v - scale * (np.cos(math.pi / 2 * v) ** 2 - 1 + v)
    levels = flow_levels(EDGES)
    expected = np.histogram(t, EDGES)[0] / len(t)
    np.testing.assert_allclose(Mode(scale=scale).weights(levels) * levels.widths, expected, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in DENSITIES if name != "table"])
def test_the_mean_weight_is_1(name: str) -> None:
    levels = flow_levels([0.0, 0.3, 0.35, 1.0])
    weights = DENSITIES[name]().weights(levels)
    assert np.all(weights >= 0) and math.isclose(weights @ levels.widths, 1.0, rel_tol=1e-12)


def test_more_clusters_follow_it_more_closely() -> None:
    """In the limit it is the density itself: Laplace's, at its mean, 1 / (2 scale) |d log-SNR / d u|."""
    levels = flow_levels(np.linspace(0, 1, 1001).tolist())
    at_the_middle = Laplace(scale=1.0).weights(levels)[499:501].mean()
    assert math.isclose(at_the_middle, 8 / 2, rel_tol=0.01)  # |d log-SNR / d u| = 2 / (u (1 - u)) = 8 at u = 1/2


@pytest.mark.parametrize(
    ("density", "message"),
    [
        (lambda: Table(at=(0, 0)), r"at = \(0, 0\): one weight must be above 0"),
        (lambda: Table(at=(1, -1)), "at = .*must be"),
        (lambda: Table(at=(1, math.nan)), "at = .*must be"),
        (lambda: Table(at=(1, 2)).weights(flow_levels(EDGES)), "give a weight for each of the 4 clusters"),
        (lambda: Laplace(mean=1e4).weights(flow_levels(EDGES)), "the density has no mass where the process has"),
        (lambda: Laplace(scale=0.0), "scale = 0.0: must be a number above 0"),
        (lambda: Mode(scale=2.0), "scale = 2.0: must be"),
        (lambda: densities.named({"name": "laplac"}), "name = 'laplac': choose one of uniform, table"),
        (lambda: densities.named({"name": "laplace", "std": 1.0}), "std = 1.0: laplace has mean, scale"),
    ],
)
def test_refused(density: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        density()  # type: ignore[operator]
