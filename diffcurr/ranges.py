"""What a setting may be, said once, in its annotation: `learning_rate: Annotated[float, Gt(0)] = 1e-4`.

Bounds are those of the package annotated-types. The same declarations are checked where a part is made, listed in
docs/configuration.md, and what tests take their wrong values from.
"""

import collections.abc
import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeAlias, TypeVar

import annotated_types as at
import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])
FLOAT_MAX = float(np.finfo(np.float32).max)
Bound = at.Gt | at.Ge | at.Lt | at.Le | at.MultipleOf | at.MinLen | at.MaxLen


@dataclasses.dataclass(frozen=True)
class OneOf(at.BaseMetadata):
    """The value is one of some choices, or a key of a table of them."""

    choices: Iterable[Any]


# Kinds that many settings have. Limits that no sound value reaches keep a slip of the keyboard from taking all memory.
Share: TypeAlias = Annotated[float, at.Interval(ge=0, le=1)]
ShareBelowOne: TypeAlias = Annotated[float, at.Interval(ge=0, lt=1)]
Positive: TypeAlias = Annotated[float, at.Gt(0)]
NotNegative: TypeAlias = Annotated[float, at.Ge(0)]
Steps: TypeAlias = Annotated[int, at.Interval(ge=1, lt=2**31)]  # the state counts them in int32
StepsOrNever: TypeAlias = Annotated[int, at.Interval(ge=0, lt=2**31)]
Number: TypeAlias = Annotated[int, at.Interval(ge=1, le=10**8)]  # of examples or samples
Size: TypeAlias = Annotated[int, at.Interval(ge=1, le=2**20)]  # of a batch
Width: TypeAlias = Annotated[int, at.Interval(ge=1, le=2**16)]
Few: TypeAlias = Annotated[int, at.Interval(ge=1, le=1000)]  # layers, clusters, networks, seeds
Classes: TypeAlias = Annotated[int, at.Interval(ge=0, le=2**24)]
Channels: TypeAlias = Annotated[int, at.Interval(ge=0, le=2**16)]
Quantiles: TypeAlias = Annotated[Sequence[Share], at.Len(2, 2)]  # an interval of them
Seed: TypeAlias = Annotated[int, at.Interval(ge=0, lt=2**32)]  # JAX tells no more apart


def check(kinds: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Checks the values of settings.

    Args:
      kinds: setting -> its annotation; what is not declared may be anything.
      values: setting -> its value.

    Raises:
      ValueError: naming the setting, its value, and what it must be.
    """
    for name, value in values.items():
        kind = kinds.get(name, Any)
        if not fits(value, kind):
            words = describe(kind)
            remedy = f"choose {words}" if words.startswith("one of") else f"must be {words}"
            raise ValueError(f"{name} = {shown(value)}: {remedy}")


def kinds_of(made: Any) -> dict[str, Any]:
    """The annotations of a function's arguments, or of those of a class's constructor."""
    if dataclasses.is_dataclass(made):
        return typing.get_type_hints(made, include_extras=True)
    return typing.get_type_hints(made.__init__ if inspect.isclass(made) else made, include_extras=True)


class Checked:
    """A dataclass whose fields are checked when it is made."""

    def __post_init__(self) -> None:
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}  # type: ignore[arg-type]
        check(kinds_of(type(self)), values)


def checked(function: Function) -> Function:
    """A function whose arguments are checked first."""
    kinds = kinds_of(function)

    @functools.wraps(function)
    def checking(*args: Any, **kwargs: Any) -> Any:
        check(kinds, inspect.signature(function).bind(*args, **kwargs).arguments)
        return function(*args, **kwargs)

    return typing.cast(Function, checking)


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type and within its bounds. A number must be finite, also in float32."""
    base, bounds = split(kind)
    return _of_type(value, base) and all(_holds(value, bound) for bound in bounds)


def split(kind: Any) -> tuple[Any, list[Any]]:
    """(type, bounds) of an annotation."""
    if typing.get_origin(kind) is not Annotated:
        return kind, []
    base, *metadata = typing.get_args(kind)
    bounds = []
    for one in metadata:
        bounds += list(one) if isinstance(one, at.GroupedMetadata) else [one]
    return base, [bound for bound in bounds if isinstance(bound, Bound | OneOf)]


def _of_type(value: Any, base: Any) -> bool:
    origin, inner = typing.get_origin(base), typing.get_args(base)
    if base is float:
        return _is_number(value) and abs(value) <= FLOAT_MAX  # false for NaN
    if base is int:
        return _is_number(value) and isinstance(value, int | np.integer)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin in (tuple, list, collections.abc.Sequence):
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            return False
        if origin is tuple and Ellipsis not in inner:
            return len(value) == len(inner) and all(map(fits, value, inner))
        return all(fits(one, inner[0]) for one in value)
    if origin is collections.abc.Mapping:
        return isinstance(value, collections.abc.Mapping)
    if base in (bool, str, types.NoneType, collections.abc.Mapping):
        return isinstance(value, base)
    return True  # a class of a part, or what this file does not know


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _holds(value: Any, bound: Any) -> bool:
    match bound:
        case OneOf(choices=choices):
            return isinstance(value, collections.abc.Hashable) and value in choices
        case at.MultipleOf(multiple_of=step):
            return bool(value % step == 0)
        case at.MinLen(min_length=least):
            return len(value) >= least
        case at.MaxLen(max_length=most):
            return len(value) <= most
    # A device computes in float32: 1 - 1e-9 is 1 there, and 1e-50 is 0.
    value = float(np.float32(value)) if isinstance(value, float | np.floating) else value
    match bound:
        case at.Gt(gt=limit):
            return bool(value > limit)
        case at.Ge(ge=limit):
            return bool(value >= limit)
        case at.Lt(lt=limit):
            return bool(value < limit)
        case at.Le(le=limit):
            return bool(value <= limit)
    raise TypeError(f"{bound}: is no bound that is known here")


NOUNS: dict[Any, str] = {
    float: "a number",
    int: "an integer",
    bool: "True or False",
    str: "a text",
    types.NoneType: "None",
}
NOUNS[collections.abc.Mapping] = "a section"


def describe(kind: Any) -> str:
    """An annotation in words, such as "a number in [0, 1)"."""
    base, bounds = split(kind)
    found = {type(bound): bound for bound in bounds}
    if OneOf in found:
        return f"one of {', '.join(map(str, found[OneOf].choices))}"
    origin, inner = typing.get_origin(base), typing.get_args(base)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(one) for one in inner)
    if origin is tuple and Ellipsis not in inner:
        return f"({', '.join(map(describe, inner))})"
    if origin in (tuple, list, collections.abc.Sequence):
        least = found[at.MinLen].min_length if at.MinLen in found else None
        most = found[at.MaxLen].max_length if at.MaxLen in found else None
        length = f" of {least}" if least == most else f" of {least} to {most}"
        return f"a sequence{length if most else ''}, each {describe(inner[0])}"
    divisible = f", divisible by {found[at.MultipleOf].multiple_of}" if at.MultipleOf in found else ""
    return f"{NOUNS.get(origin or base, '')}{_interval(found, base is int)}{divisible}"


def _interval(found: Mapping[type, Any], whole: bool) -> str:
    """Bounds of a number in words, with a space before them."""
    low = next((getattr(found[one], name) for one, name in ((at.Gt, "gt"), (at.Ge, "ge")) if one in found), None)
    high = next((getattr(found[one], name) for one, name in ((at.Lt, "lt"), (at.Le, "le")) if one in found), None)
    if low is not None and high is not None:
        if whole:
            return f" from {_number(low)} to {_number(high)}{' - 1' if at.Lt in found else ''}"
        return f" in {'(' if at.Gt in found else '['}{low:g}, {high:g}{')' if at.Lt in found else ']'}"
    if low is not None:
        return f" above {_number(low)}" if at.Gt in found else f" of at least {_number(low)}"
    return "" if high is None else f" {'below' if at.Lt in found else 'of at most'} {_number(high)}"


def _number(limit: Any) -> str:
    power = int(limit).bit_length() - 1
    if power >= 16:
        return f"2^{power}" if limit == 2**power else f"{limit:,}"
    return f"{limit:g}"


def shown(value: Any) -> str:
    """A value in a message, in no more than a line."""
    value = value.to_dict() if hasattr(value, "to_dict") else value  # a ConfigDict's own words fill many lines
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else text[:97] + "..."
