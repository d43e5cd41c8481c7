"""If these fail, a value that no setting may have gets into a run, or one that it may have is refused."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pytest
from annotated_types import Interval, Len, MultipleOf

from diffcurr import config, experiment, parts, ranges

del experiment  # imported for the tables that it fills in
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "good", "bad", "words"),
    [
        (float, (0, -1.5, 3e38), (NAN, INF, -INF, 3.5e38, True, "1", None, (1.0,)), "a number"),
        (int, (0, -3), (1.0, 1.5, False, "1", None), "an integer"),
        (bool, (True, False), (0, 1, "true", None), "True or False"),
        (str, ("", "a"), (1, None, ("a",)), "a text"),
        (ranges.Share, (0, 0.5, 1), (-1e-9, 1.1, NAN), "a number in [0, 1]"),
        # 1 - 1e-9 is 1 in float32, and 1e-50 is 0.
        (ranges.ShareBelowOne, (0.0, 0.9999999), (1.0, 1 - 1e-9), "a number in [0, 1)"),
        (ranges.Positive, (1e-30,), (0.0, 1e-50, -1.0), "a number above 0"),
        (ranges.Seed, (0, 2**32 - 1), (-1, 2**32, 0.5), "an integer from 0 to 2^32 - 1"),
        (ranges.Number, (1, 10**8), (0, 10**12), "an integer from 1 to 100,000,000"),
        (Annotated[int, Interval(ge=4), MultipleOf(4)], (4, 8), (2, 6), "an integer of at least 4, divisible by 4"),
        (Annotated[str, ranges.OneOf({"a": 1, "b": 2})], ("a",), ("c", "", ["a"], None), "one of a, b"),
        (Annotated[Sequence[int], Len(1, 3)], ((1,), [1, 2, 3]), ((), (1,) * 4, 1, "1"), "a sequence of 1 to 3, each"),
        (Annotated[Sequence[ranges.Share], Len(2, 2)], ((0, 1),), ((0.5, NAN), (0,)), "a sequence of 2, each a number"),
        (
            ranges.Steps | Sequence[ranges.Steps],
            (3, (3, 4)),
            (0, (3, 0), "3"),
            "an integer from 1 to 2^31 - 1 or a",
        ),
        (str | None, (None, "a"), (0,), "a text or None"),
        (Sequence[Mapping[str, Any]], ((), ({"a": 1},)), ((NAN,), {"a": 1}, 1), "a sequence, each a section"),
    ],
)
def test_what_fits(kind: Any, good: tuple, bad: tuple, words: str) -> None:
    for value in good:
        assert ranges.fits(value, kind), value
    for value in bad:
        assert not ranges.fits(value, kind), value
    assert ranges.describe(kind).startswith(words)


WRONG: tuple[Any, ...] = (NAN, INF, -INF, 10**12, "", "surprise", "true", None, (), (NAN,), {"a": 1}, b"1", 1j)


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_no_setting_takes_nonsense(value: Any) -> None:
    """But a text where any text may stand, an empty sequence where it may be empty, and None nowhere."""
    kinds = {key: one.kind for key, one in config.KEYS.items()}
    for section, table in parts.TABLES.items():
        for name, part in table.items():
            for key in parts.settings_of(part):
                if f"{section}.{key}" not in parts.TABLES:
                    kinds[f"{section} {name} {key}"] = parts.kinds_of(part)[key]
    accepted = {key for key, kind in kinds.items() if ranges.fits(value, kind)}
    if isinstance(value, str):
        assert all(ranges.describe(kinds[key]) == "a text" for key in accepted)
    elif value == ():
        assert all("sequence, each" in ranges.describe(kinds[key]) for key in accepted)
    elif isinstance(value, dict):
        assert accepted == {"evaluation.metrics", "compare.arms", "compare.grids"}
    elif value == 10**12:
        assert all("number" in ranges.describe(kinds[key]) for key in accepted)
    else:
        assert not accepted


def test_a_part_made_by_hand_is_checked_too() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(ranges.Checked):
        strength: ranges.Share = 0.5

    assert Mine(strength=1).strength == 1
    with pytest.raises(ValueError, match=r"^strength = nan: must be a number in \[0, 1\]$"):
        Mine(strength=NAN)

    @ranges.checked
    def make(width: ranges.Width, *, name: Annotated[str, ranges.OneOf(("a", "b"))] = "a") -> tuple[int, str]:
        return width, name

    assert make(3, name="b") == (3, "b")
    with pytest.raises(ValueError, match=r"^width = 0: must be an integer from 1 to 2\^16$"):
        make(0)
    with pytest.raises(ValueError, match="^name = 'c': choose one of a, b$"):
        make(1, name="c")
