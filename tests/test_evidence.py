"""The committed reports are what the committed results say."""

import pathlib
import shutil

import pytest

from configs import digits_compare
from diffcurr.jobs import compare

EVIDENCE = pathlib.Path(__file__).parents[1] / "docs" / "evidence"
STUDIES = {"digits": "ddpm", "digits_flow": "flow", "digits_edm": "edm"}


@pytest.mark.parametrize("name", STUDIES)
def test_report(name: str, tmp_path: pathlib.Path) -> None:
    """Made again without training: every result belongs to the config as it is now."""
    shutil.copytree(EVIDENCE / name, tmp_path, dirs_exist_ok=True)
    config = digits_compare.get_config(STUDIES[name])
    config.compare.seeds = len(list((EVIDENCE / name / config.compare.baseline).iterdir()))
    (tmp_path / "report.md").unlink()
    assert compare.run(config, tmp_path) == 0
    assert (tmp_path / "report.md").read_text() == (EVIDENCE / name / "report.md").read_text()
