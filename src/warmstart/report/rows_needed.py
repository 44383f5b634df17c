"""What a test set of its size can show: the smallest detectable difference, and the rows that a verdict would need."""

from __future__ import annotations

import bisect
import dataclasses
import math

from scipy import optimize

from warmstart.report.paired import ALPHA, MAX_SEEDS, POWER, Paired, power

MAX_ROWS = 100_000_000


def detectable(paired: Paired) -> float | None:
    """Return the smallest difference that any number of seeds detects with a power of 80 % on this test set.

    It follows from the variance of the examples alone, with a single test at ALPHA. None if that variance is 0, or
    unknown since the metric is no mean, or if one cluster has nearly all examples.
    """
    if paired.n < 2 or paired.example_error == 0 or paired.test_freedom < 1:
        return None
    limit = dataclasses.replace(paired, n=MAX_SEEDS, spread=0.0, interaction=0.0)

    def missing(difference: float) -> float:
        return POWER - power(dataclasses.replace(limit, difference=difference))

    most = limit.standard_error * limit.critical(ALPHA / 2)
    while missing(most) > 0:
        most *= 2
    return float(optimize.brentq(missing, 0, most))


def with_rows(paired: Paired, rows: int) -> Paired:
    """Return the estimate expected with this number of test examples, in clusters of the same sizes."""
    factor = rows / paired.examples
    noise = min(paired.interaction, paired.spread) ** 2
    changes = {
        "examples": rows,
        "spread": math.sqrt(paired.spread**2 - noise + noise / factor),
        "interaction": paired.interaction / math.sqrt(factor),
        "example_error": paired.example_error / math.sqrt(factor),
    }
    if paired.freedom is not None:
        changes["freedom"] = (paired.freedom + 1) * factor - 1
    if paired.cluster_error is not None:
        changes["cluster_error"] = paired.cluster_error / math.sqrt(factor)
    return dataclasses.replace(paired, **changes)


def rows_needed(paired: Paired, alpha: float = ALPHA) -> int | None:
    """Return the number of test examples for a power of 80 % with these seeds and the observed difference.

    None if no number suffices, because the seeds are too few, if the variance of the examples is 0 or unknown, or if
    one cluster has nearly all examples.

    Args:
        alpha: two-sided level of the test.
    """
    if paired.n < 2 or paired.difference == 0 or paired.example_error == 0 or paired.test_freedom < 1:
        return None

    def detection_power(rows: int) -> float:
        return power(with_rows(paired, rows), alpha)

    if detection_power(MAX_ROWS) < POWER:
        return None
    first = paired.examples
    return first + bisect.bisect_left(range(first, MAX_ROWS), POWER, key=detection_power)
