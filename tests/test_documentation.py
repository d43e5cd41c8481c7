"""docs/configuration.md: if it fails, a setting is not documented, or the page is not made from today's docstrings."""

import inspect
import pathlib
import sys

import pytest

from diffcurr import config, parts, ranges

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from docs import configuration


def test_the_page_is_that_of_the_docstrings() -> None:
    assert configuration.PAGE.read_text() == configuration.page(), "run python -m docs.configuration"


def test_every_key_and_setting_has_a_range_that_its_default_is_in() -> None:
    for key, one in config.KEYS.items():
        assert one.meaning and ranges.fits(one.default, one.kind), key
    for section, table in parts.TABLES.items():
        for name, part in table.items():
            kinds = parts.kinds_of(part)
            for key, default in parts.settings_of(part).items():
                if f"{section}.{key}" not in parts.TABLES and default is not inspect.Parameter.empty:
                    assert ranges.describe(kinds[key]), f"{section} {name} {key}"
                    assert ranges.fits(default, kinds[key]), f"{section} {name} {key}"


@pytest.mark.parametrize("section", list(parts.TABLES))
def test_every_setting_is_described(section: str) -> None:
    for name, part in parts.TABLES[section].items():
        described = configuration.descriptions(part)
        assert set(parts.settings_of(part)) <= set(described), f"{section} {name}"
        assert configuration.summary(part), f"{section} {name}"
