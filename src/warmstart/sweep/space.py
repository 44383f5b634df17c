"""What a search may choose for one key: Hydra's words as Optuna's distributions."""

from __future__ import annotations

import math
from typing import Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep

from warmstart.core.errors import UserError
from warmstart.sweep.plan import plain

DECADES = 2  # an interval over more than this many powers of ten is searched logarithmically


def distribution(override: Override) -> Any:
    """Hydra's sweep syntax as an Optuna distribution: choices, a range, or an interval.

    An interval over more than two powers of ten is searched on a logarithmic scale, unless it is tagged `linear`; one
    tagged `log` always is. `int(interval(8,64))` gives whole numbers.

    Raises:
        UserError: it holds nothing to choose.
    """
    try:
        return _distribution(override)
    except ValueError as error:
        raise UserError(f"{override.input_line}: {error}") from error


def _distribution(override: Override) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, Glob) or not isinstance(value, (IntervalSweep, RangeSweep)):
        return CategoricalDistribution([plain(choice) for choice in override.sweep_iterator()])
    if isinstance(value, RangeSweep):
        low, step = value.start, value.step
        high = low + step * (math.ceil((value.stop - low) / step) - 1)
        whole = all(isinstance(number, int) for number in (low, step))
        return (IntDistribution if whole else FloatDistribution)(low, high, step=step)
    low, high = value.start, value.end
    wide = low > 0 and high / low >= 10**DECADES
    log = "log" in value.tags or (wide and "linear" not in value.tags)
    whole = isinstance(low, int) and isinstance(high, int)
    return (IntDistribution if whole else FloatDistribution)(low, high, log=log)


def options(key: str, distribution: Any) -> list[Any]:
    """Every value of a distribution, for a grid."""
    if hasattr(distribution, "choices"):
        return list(distribution.choices)
    if distribution.step is None or distribution.log:
        raise UserError(f"{key}: an interval is no grid; give a list or a range, or another sweep.sampler")
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + index * distribution.step for index in range(count)]
