"""docs/configuration.md: if it fails, a setting is not documented, or the page is not made from today's docstrings."""

import pathlib
import sys

import pytest

from diffcurr import config, parts

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from docs import configuration


def test_the_page_is_that_of_the_docstrings() -> None:
    assert configuration.PAGE.read_text() == configuration.page(), "run python -m docs.configuration"


def test_every_key_of_no_part_is_described() -> None:
    own = {key for key in config.flatten(config.outline().to_dict()) if not key.endswith(".name")}
    assert own | {"compare.arms"} == set(configuration.KEYS)


@pytest.mark.parametrize("section", list(parts.TABLES))
def test_every_setting_is_described(section: str) -> None:
    for name, part in parts.TABLES[section].items():
        described = configuration.descriptions(part)
        assert set(parts.settings_of(part)) <= set(described), f"{section} {name}"
        assert configuration.summary(part), f"{section} {name}"
