"""If these fail, the committed reports are not what the committed results say."""

import pathlib
import shutil

import pytest
from ml_collections import ConfigDict

from configs import digits_compare, emoji_compare, fashion_mnist_compare, study
from diffcurr.jobs import compare

EVIDENCE = pathlib.Path(__file__).parents[1] / "docs" / "evidence"


def config_of(name: str) -> ConfigDict:
    if name == "emoji":
        return emoji_compare.get_config()
    if name.startswith("study_"):
        return study.get_config(name.removeprefix("study_"))
    data, _, variant = name.partition("_")
    return digits_compare.get_config(variant or "ddpm") if data == "digits" else fashion_mnist_compare.get_config()


@pytest.mark.parametrize("name", sorted(path.parent.name for path in EVIDENCE.glob("*/report.md")))
def test_report(name: str, tmp_path: pathlib.Path) -> None:
    """Made again without training: every result belongs to the config as it is now."""
    shutil.copytree(EVIDENCE / name, tmp_path, dirs_exist_ok=True)
    config = config_of(name)
    config.compare.seeds = len(list((EVIDENCE / name / config.compare.baseline).iterdir()))
    (tmp_path / "report.md").unlink()
    assert compare.run(config, tmp_path) == 0
    assert (tmp_path / "report.md").read_text() == (EVIDENCE / name / "report.md").read_text()
