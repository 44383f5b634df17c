"""Converts Hydra's sweep syntax to Optuna distributions."""

from __future__ import annotations

import math
from typing import Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep

from warmstart.core.errors import UserError
from warmstart.sweep.plan import json_value

DECADES = 2  # intervals over at least this many powers of ten are sampled on a logarithmic scale


def distribution(override: Override) -> Any:
    """Return the Optuna distribution of an override: choices, a range, or an interval.

    An interval over two or more powers of ten is sampled on a logarithmic scale, unless it is tagged `linear`; one
    tagged `log` always is. `int(interval(8,64))` yields integers.

    Raises:
        UserError: the override has no values.
    """
    try:
        return _distribution(override)
    except ValueError as error:
        raise UserError(f"{override.input_line}: {error}") from error


def _distribution(override: Override) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, Glob) or not isinstance(value, (IntervalSweep, RangeSweep)):
        return CategoricalDistribution([json_value(choice) for choice in override.sweep_iterator()])
    if isinstance(value, RangeSweep):
        low, step = value.start, value.step
        high = low + step * (math.ceil((value.stop - low) / step) - 1)
        is_integer = all(isinstance(number, int) for number in (low, step))
        return (IntDistribution if is_integer else FloatDistribution)(low, high, step=step)
    low, high = value.start, value.end
    wide = low > 0 and high / low >= 10**DECADES
    log = "log" in value.tags or (wide and "linear" not in value.tags)
    is_integer = isinstance(low, int) and isinstance(high, int)
    return (IntDistribution if is_integer else FloatDistribution)(low, high, log=log)


def grid_values(key: str, distribution: Any) -> list[Any]:
    """Return all values of a distribution, for a grid search.

    Raises:
        UserError: the distribution is continuous.
    """
    if hasattr(distribution, "choices"):
        return list(distribution.choices)
    if distribution.step is None or distribution.log:
        raise UserError(f"{key}: a grid needs a list or a range, not an interval; or set another sweep.sampler")
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + index * distribution.step for index in range(count)]
