"""If these fail, the picture of a curriculum shows other numbers than its rows hold, or breaks on those of old runs."""

import pathlib
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from PIL import Image

from diffcurr.curriculum import Levels
from diffcurr.reporting import curriculum

LEVELS = Levels(np.array([0.0, 0.25, 0.5, 1.0]), 6.0 - 12.0 * (np.arange(100) + 0.5) / 100, np.ones(100))
OLD: list[dict[str, Any]] = [
    {"step": 10, "stage": 1, "num_stages": 2, "loss_by_cluster": [None, None, 0.5]},
    {"step": 20, "stage": 2, "num_stages": 2, "loss_by_cluster": [0.9, 0.3, 0.1]},
]
NEW: list[dict[str, Any]] = [
    {
        "step": 10 * (row + 1),
        "stage": 1,
        "num_stages": 1,
        "loss_by_cluster": [3.0, 2.0, 1.0],
        "noise_error_by_cluster": [1e-4, 0.8 - row / 10, 0.2],
        "weight_by_cluster": [2.0, 1.0, 0.5] if row else [1.0, 1.0, 1.0],
    }
    for row in range(8)
]


def drawn(rows: list[dict[str, Any]]) -> Figure:
    figure = curriculum.draw_curriculum(rows, LEVELS)
    assert figure is not None
    return figure


def maps(figure: Figure) -> dict[str, np.ndarray]:
    """What is shown in each heat map, by the label of its colours: [cluster, row]; NaN where it is grey."""
    found = [mesh for axes in figure.axes for mesh in axes.collections if isinstance(mesh, QuadMesh)]
    meshes = {mesh.colorbar.ax.get_ylabel(): mesh for mesh in found if mesh.colorbar is not None}
    return {label: np.ma.filled(mesh.get_array(), np.nan) for label, mesh in meshes.items()}


def test_rows_of_an_older_version() -> None:
    """Stages and losses, as before, and nothing else."""
    figure = drawn(OLD)
    (shown,) = maps(figure).values()
    np.testing.assert_array_equal(shown, [[np.nan, 0.9], [np.nan, 0.3], [0.5, 0.1]])
    assert [axes.get_ylabel().split("\n")[0] for axes in figure.axes[:2]] == ["stage", "noise level u"]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [1, 1, 2])


def test_every_cluster_at_every_step() -> None:
    shown = maps(drawn(NEW))
    assert [label.split(" (")[0] for label in shown] == ["loss", "error of the noise, per pixel", "weight"]
    loss, error, weight = shown.values()
    assert np.all(loss.T == [3, 2, 1])
    np.testing.assert_allclose(error[1], 0.8 - np.arange(8) / 10)
    np.testing.assert_array_equal(weight, [[1] + [2] * 7, [1] * 8, [1] + [0.5] * 7])


def test_what_the_clusters_tell() -> None:
    """Over log-SNR: the error in four parts of the run, its onset, and shares of information and draws of area 1."""
    upper, lower = drawn(NEW).axes[-2:]
    *lines, onset = upper.lines
    assert [line.get_label() for line in lines][::3] == ["steps 1 to 20", "steps 61 to 80"]
    np.testing.assert_allclose(lines[0].get_xdata(), [4.5, 1.5, -3.0])
    np.testing.assert_allclose(lines[0].get_ydata(), [1e-4, 0.75, 0.2])
    np.testing.assert_allclose(lines[-1].get_ydata(), [1e-4, 0.15, 0.2])
    np.testing.assert_allclose(onset.get_xdata(), 1.5)  # the first cluster tells less than 0.2 % of the largest
    shares = {patch.get_label(): patch.get_data() for patch in lower.patches}
    for share in shares.values():
        np.testing.assert_allclose(np.sum(share.values * -np.diff(share.edges)), 1.0)
    process, end = (shares[label].values for label in ("draws of the process", "draws at the end"))
    np.testing.assert_allclose(end / process, np.array([2.0, 1.0, 0.5]))
    told = shares["information at the end, gated"].values
    ratio = np.exp(-np.array([4.5, 1.5, -3.0]) / 2)
    expected = [1e-4, 0.15, 0.2] / (1 + (ratio[1] / ratio) ** 3)  # per log-SNR
    np.testing.assert_allclose(told / told[1], expected / expected[1], rtol=1e-6)


def test_words() -> None:
    assert curriculum.describe_run(OLD, LEVELS) == ""
    text = curriculum.describe_run(NEW, LEVELS)
    assert text.startswith("After 80 steps half of the information") and "in the 3 hardest of 3 clusters" in text
    clean = [row | {"noise_error_by_cluster": [1.0, 0.1, 0.1]} for row in NEW]
    text = curriculum.describe_run(clean, LEVELS)
    assert "below u = 0.25 (log-SNR above 3), in the 1 hardest of 3" in text
    unseen = [row | {"noise_error_by_cluster": [None, 0.1, 0.1]} for row in NEW]
    assert curriculum.describe_run(unseen, LEVELS) == (
        "In the last of 80 steps some of 3 clusters were not drawn, so where the information lies is not known."
    )
    assert not [patch for patch in drawn(unseen).axes[-1].patches if "information" in str(patch.get_label())]
    text = curriculum.describe_run(clean, LEVELS)
    # Weights of 1, then of 2, 1 and 1/2: 25 % and then half of the draws.
    assert "it drew 47% of its examples, and 50% at the end; the process itself draws 25%" in text


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"step": 1, "loss": 2.0}],
        [OLD[0] | {"loss_by_cluster": [1.0, 2.0]}],
        [OLD[0] | {"stage": None}],
        [OLD[0] | {"loss_by_cluster": [None, None, None]}],
    ],
)
def test_nothing_to_draw(rows: list[dict[str, Any]], tmp_path: pathlib.Path) -> None:
    curriculum.save_curriculum(tmp_path / "nothing.png", rows, LEVELS)
    assert not (tmp_path / "nothing.png").exists()


@pytest.mark.parametrize(
    "rows",
    [
        NEW[:1],
        [*OLD, *(row | {"step": row["step"] + 20} for row in NEW)],  # a run that a newer version continued
        [NEW[0] | {"noise_error_by_cluster": [None] * 3}, NEW[1] | {"noise_error_by_cluster": "surprise"}, NEW[2]],
        [row | {"noise_error_by_cluster": [None, 0.1, 0.1], "weight_by_cluster": [0.0, 1.0, 1.0]} for row in NEW],
    ],
)
def test_whatever_the_rows_hold(rows: list[dict[str, Any]], tmp_path: pathlib.Path) -> None:
    curriculum.save_curriculum(tmp_path / "curriculum.png", rows, LEVELS)
    assert np.asarray(Image.open(tmp_path / "curriculum.png")).std() > 0
