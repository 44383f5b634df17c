"""Types with ranges, which validate values and describe themselves in messages.

Signatures and schemas use them. A bare `str` must be non-empty, and a bare `float` or `int` must be finite. Imports no
torch."""

from __future__ import annotations

import collections.abc
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from warmstart.core.labels import AT_MOST

LARGEST = 2**63  # larger integers do not fit in int64


@dataclass(frozen=True)
class Range:
    """A constraint on the values of a type, and its description in messages."""

    description: str
    contains: Callable[[Any], bool]


NonNegativeInt = Annotated[int, Range("a whole number, 0 or more", lambda value: value >= 0)]
PositiveInt = Annotated[int, Range("a whole number above 0", lambda value: value > 0)]
AtLeastTwo = Annotated[int, Range("a whole number, 2 or more", lambda value: value >= 2)]
NonNegativeFloat = Annotated[float, Range("a number, 0 or more", lambda value: value >= 0)]
PositiveFloat = Annotated[float, Range("a number above 0", lambda value: value > 0)]
Seconds = Annotated[float, Range("seconds, above 0 and at most 86,400", lambda value: 0 < value <= 86_400)]
Ratio = Annotated[float, Range("a number above 0 and at most 1,000", lambda value: 0 < value <= 1000)]
LeftOpenUnitInterval = Annotated[float, Range("a number above 0 and at most 1", lambda value: 0 < value <= 1)]
UnitInterval = Annotated[float, Range("a number from 0 to 1", lambda value: 0 <= value <= 1)]
RightOpenUnitInterval = Annotated[float, Range("a number, 0 or more and below 1", lambda value: 0 <= value < 1)]
BelowHalf = Annotated[float, Range("a number, 0 or more and below 0.5", lambda value: 0 <= value < 0.5)]
OpenUnitInterval = Annotated[float, Range("a number above 0 and below 1", lambda value: 0 < value < 1)]
AtMost = Annotated[
    str, Range("'<=N' for up to N rows per class, such as '<=200'", lambda value: bool(AT_MOST.fullmatch(value)))
]
StepFraction = Annotated[float, Range("a fraction of the steps, 0 or more and below 1", lambda value: 0 <= value < 1)]
Odd = Annotated[int, Range("an odd whole number above 0", lambda value: value > 0 and value % 2 == 1)]
Widths = Annotated[list[PositiveInt], Range("a list of one or more whole numbers above 0, such as [64,128]", bool)]
Seed = Annotated[int, Range("a whole number, 0 or more and below 2**32", lambda value: 0 <= value < 2**32)]
Location = Annotated[
    str,
    Range(
        "a path, of at most 255 bytes between two slashes",
        lambda value: (
            value != "" and max(len(os.fsencode(part)) for part in value.split("/")) <= 255 and len(value) < 4096
        ),
    ),
]
AnyText = Annotated[str, Range("a text", lambda value: True)]
Separator = Annotated[
    str,
    Range(
        "one character, such as ';', or tab",
        lambda value: value in ("tab", "\\t") or (len(value) == 1 and value not in '"\n\r'),
    ),
]
MissingValues = Annotated[list[AnyText | float], Range("a list of texts, such as [NA,-999]", lambda value: True)]


def at_least(number: int) -> Any:
    """Return the type of integers of at least `number`."""
    return Annotated[int, Range(f"a whole number, {number} or more", lambda value: value >= number)]


def between(low: int, high: int) -> Any:
    """Return the type of integers from `low` to `high`, inclusive."""
    return Annotated[int, Range(f"a whole number from {low:,} to {high:,}", lambda value: low <= value <= high)]


Depth = between(1, 1000)  # number of layers, limited because each takes time to build


def only(number: int, why: str) -> Any:
    """Return the type that allows one integer, with a reason for messages."""
    return Annotated[int, Range(f"{number}: {why}", lambda value: value == number)]


Limit = Annotated[int, Range("a whole number above 0, or -1 for no limit", lambda value: value > 0 or value == -1)]
TIME = re.compile(r"(?!0*:00:00$)\d{1,6}:[0-5]\d:[0-5]\d")
Duration = (
    Annotated[float, Range("a time above 0, in seconds", lambda value: value > 0)]
    | Annotated[str, Range("as hours:minutes:seconds, such as 00:10:00", lambda value: bool(TIME.fullmatch(value)))]
)
# Batches of an epoch: a number or a fraction.
Batches = (
    Annotated[int, Range("a whole number of batches above 0", lambda value: value > 0)]
    | Annotated[float, Range("a fraction of them above 0 and at most 1, such as 0.5", lambda value: 0 < value <= 1)]
)
PLAIN = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", types.NoneType: "null"}
LISTS = (list, tuple, collections.abc.Sequence)
SETTINGS = (dict, collections.abc.Mapping)


def is_valid(value: Any, hint: Any) -> bool:
    """Return whether a plain value or a callable has the hinted type and is in its range."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        is_typed = isinstance(value, str) if inner[0] is str else is_valid(value, inner[0])
        return is_typed and all(bound.contains(value) for bound in inner[1:] if isinstance(bound, Range))
    if origin in (typing.Union, types.UnionType):
        return any(is_valid(value, option) for option in inner)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in inner)
    if origin in LISTS:
        return isinstance(value, (list, tuple)) and all(is_valid(item, inner[0]) for item in value)
    if origin in SETTINGS or hint in SETTINGS:
        return isinstance(value, Mapping) and all(is_valid(item, inner[1] if inner else Any) for item in value.values())
    if origin is collections.abc.Callable:
        return callable(value)
    if hint in (int, float):
        return _is_number(value, hint)
    if hint is str:
        return isinstance(value, str) and value != ""
    return isinstance(value, hint) if inspect.isclass(hint) else True


def _is_number(value: Any, hint: type) -> bool:
    """Return whether a value is a finite number, and an integer if `hint` is int."""
    if isinstance(value, bool) or not isinstance(value, int if hint is int else (int, float)):
        return False
    return abs(value) < LARGEST if isinstance(value, int) else math.isfinite(value)


def describe(hint: Any) -> str:
    """Return a description of a type and its range, to follow `must be` in a message."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return next(bound.description for bound in inner[1:] if isinstance(bound, Range))
    if origin in (typing.Union, types.UnionType):
        options = [describe(option) for option in inner]
        return f"{', or '.join(options)}" if len(options) > 1 else options[0]
    if origin is Literal:
        shown = [
            "null" if option is None else str(option).lower() if option in (True, False) else str(option)
            for option in inner
        ]
        return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    if origin in LISTS:
        return f"a list in brackets, each entry {describe(inner[0])}"
    if origin in SETTINGS or hint in SETTINGS:
        return "settings by name" + (f", each {describe(inner[1])}" if inner and inner[1] is not Any else "")
    return PLAIN.get(hint, "chosen by its name")


def shown(value: Any) -> str:
    """Return a value as in a command line, truncated to 80 characters."""
    text = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    text = str(value) if text is None else text
    return text if len(text) <= 80 else f"{text[:77]}..."
