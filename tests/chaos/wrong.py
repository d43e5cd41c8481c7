"""Wrong values of a setting, made from what it is declared to be: none of them may pass.

A value is wrong by how it is made (below the least, of another type), not because `diffcurr.ranges` says so: that is
what is tried.
"""

import collections.abc
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import annotated_types as at

from diffcurr import ranges

Wrong = tuple[str, Any]
"""(what is wrong, in the words of the report's table; the value)."""

NO_KIND = "no kind is declared"


def wrong_values(kind: Any) -> Iterator[Wrong]:
    """Wrong values of an annotated type.

    Raises:
      LookupError: if it is of a type for which none are known, so that nobody checks it.
    """
    base, bounds = ranges.split(kind)
    origin, inner = typing.get_origin(base), typing.get_args(base)
    choices = [bound.choices for bound in bounds if isinstance(bound, ranges.OneOf)]
    if base in (int, float):
        yield from _wrong_numbers(base, bounds)
    elif base is bool:
        yield from (("text for a bool", "true"), ("number for a bool", 1), ("None", None), ("a list", [True]))
    elif base is str:
        yield from (("number for a text", 3), ("bool for a text", True), ("None", None), ("a list", ["text"]))
        if choices:
            yield "no choice", "no such choice"
            if "" not in choices[0]:
                yield "empty", ""
    elif origin in (typing.Union, types.UnionType):
        yield from _wrong_of_union(inner)
    elif origin in (tuple, list, collections.abc.Sequence):
        yield from _wrong_sequences(origin, inner, bounds)
    elif base is Mapping or origin in (dict, collections.abc.Mapping):
        yield from (("number for a section", 3), ("text for a section", "text"), ("None", None), ("a list", [1]))
    else:
        raise LookupError(f"{base}: {NO_KIND}")


def _wrong_numbers(base: type, bounds: Sequence[Any]) -> Iterator[Wrong]:
    yield from (("NaN", math.nan), ("infinite", math.inf), ("infinite", -math.inf))
    yield from (("text for a number", "many"), ("text for a number", "3"), ("empty", ""), ("None", None))
    yield from (("bool for a number", True), ("bool for a number", False), ("a list", [1]), ("a section", {"a": 1}))
    if base is int:
        yield from (("fraction for an integer", 1.5), ("fraction for an integer", 1e-3))
        yield "whole float for an integer", 8.0
    else:
        yield from (("beyond float32", 1e39), ("beyond float32", -1e39), ("beyond float32", 10**400))
    for bound in bounds:
        match bound:
            case at.Gt(gt=limit):
                yield from (("at an exclusive bound", base(limit)), ("below", base(limit) - 1))
            case at.Ge(ge=limit):
                yield from (("below", base(limit) - 1), ("below", base(limit) - 10**6))
            case at.Lt(lt=limit):
                yield from (("at an exclusive bound", base(limit)), ("above", base(limit) + 1))
            case at.Le(le=limit):
                yield "above", base(limit) + 1
            case at.MultipleOf(multiple_of=step):
                yield "not divisible", base(64 * typing.cast(int, step) + 1)
        if base is int and isinstance(bound, at.Lt | at.Le):
            yield from (("above", 10**12), ("above", 10**30))


def _wrong_of_union(members: Sequence[Any]) -> Iterator[Wrong]:
    """What is wrong for one member, unless another one takes it."""
    for index, member in enumerate(members):
        if member is types.NoneType:
            continue
        others = [one for place, one in enumerate(members) if place != index]
        for what, value in wrong_values(member):
            if not any(ranges.fits(value, other) for other in others):
                yield what, value


def _wrong_sequences(origin: Any, inner: Sequence[Any], bounds: Sequence[Any]) -> Iterator[Wrong]:
    yield from (("text for a sequence", "text"), ("number for a sequence", 3), ("None", None), ("a section", {"a": 1}))
    fixed = origin is tuple and Ellipsis not in inner
    least = len(inner) if fixed else max([one.min_length for one in bounds if isinstance(one, at.MinLen)], default=0)
    most = len(inner) if fixed else min([one.max_length for one in bounds if isinstance(one, at.MaxLen)], default=0)
    element = inner[0]
    right = right_value(element)
    if least:
        yield from (("empty", ()), ("too short", (right,) * (least - 1)))
    if most:
        yield "too long", (right,) * (most + 1)
    length = max(least, 2 if not most else min(2, most))
    for what, value in wrong_values(element):
        yield f"in a sequence: {what}", (right,) * (length - 1) + (value,)


def right_value(kind: Any) -> Any:
    """Some value that a kind takes."""
    base, bounds = ranges.split(kind)
    if base is str:
        return "text"
    if base in (int, float):
        low: list[Any] = [
            typing.cast(Any, b.gt) + 1 if isinstance(b, at.Gt) else b.ge for b in bounds if isinstance(b, at.Gt | at.Ge)
        ]
        high: list[Any] = [b.lt if isinstance(b, at.Lt) else b.le for b in bounds if isinstance(b, at.Lt | at.Le)]
        value = base(low[0]) if low else base(1)
        return value if not high or value <= high[0] else base(high[0]) / 2
    if base is bool:
        return True
    raise LookupError(f"{base}: no value of it is known")
