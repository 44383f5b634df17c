"""Group-sequential verdicts: seeds are added in looks, and the error rates hold at whichever look the transfer stops.

Each look uses all seeds so far. Its critical values come from an alpha-spending function, so that the probability of a
false claim at any of the planned looks is at most alpha. `scripts/calibrate_looks.py` measures the error rates.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import interpolate, optimize, special

from warmstart.report.paired import ALPHA
from warmstart.report.runs import Transfer

AUTO = "auto"  # in transfer.seeds
MAX_RATIO = 20  # of the last and the first number of seeds; the boundary of an earlier look is not computed
SETTLED = ("helps", "hurts", "equivalent")
NODES, LOWEST, HIGHEST = 200, -10.0, 45.0  # of the numerical integration, in standard deviations
LEVELS = np.geomspace(1e-15, 0.5, 80)  # one-sided, of the table that `overall_level` interpolates


@dataclass(frozen=True)
class Looks:
    """The planned numbers of seeds of all looks, and the number of looks made, at least 1.

    The statistics of two looks at i and j seeds are taken to have the correlation sqrt(i / j). With a test set that the
    looks share, it is higher, which lowers the probability of a claim at any look (Slepian 1962).
    """

    planned: tuple[int, ...]
    made: int

    @property
    def alpha(self) -> float:
        """Return the level at this look for intervals that cover the truth at all looks with probability 1 - ALPHA.

        Source: Jennison, Turnbull (1989), "Interim analyses: the repeated confidence interval approach", Journal of the
        Royal Statistical Society B 51
        """
        return self.level(ALPHA)

    def level(self, alpha: float) -> float:
        """Return the level at this look for intervals that cover the truth at all looks with probability 1 - alpha."""
        return alpha if len(self.planned) == 1 else 2 * nominal_levels(alpha / 2, self.planned)[self.made - 1]

    def p(self, p: float) -> float:
        """Return the repeated p value for a two-sided p value of this look."""
        return min(1.0, 2 * self.one_sided(p / 2))

    def one_sided(self, p: float) -> float:
        """Return the repeated p value for a one-sided p value: the smallest overall level at which this look rejects.

        With any stopping rule, it is below a level with at most this probability if the null hypothesis is true.
        """
        return p if len(self.planned) == 1 else overall_level(p, self.planned, self.made)


def looks_of(transfer: Transfer) -> Looks:
    """Return the looks of a transfer; one look with all seeds unless transfer.seeds=auto."""
    seeds = len({run.seed for run in transfer.runs})
    if transfer.rules["seeds"] != AUTO:
        return Looks((seeds,), 1)
    planned = tuple(transfer.rules["looks"])
    return Looks(planned, min(len(planned), bisect.bisect_left(planned, seeds) + 1))


def spent(level: float, times: np.ndarray) -> np.ndarray:
    """Return the cumulative error that a one-sided test of this level spends by each information time (0 to 1).

    Source: Lan, DeMets (1983), "Discrete sequential boundaries for clinical trials", Biometrika 70: the function whose
    boundaries are similar to those of O'Brien, Fleming (1979)
    """
    return 2 * special.ndtr(special.ndtri(level / 2) / np.sqrt(times))


@cache
def nominal_levels(level: float, planned: tuple[int, ...]) -> tuple[float, ...]:
    """Return the one-sided level of the test at each look; together they have this overall level.

    Args:
        level: above 0 and below 1.
        planned: increasing numbers of seeds.

    Source: Armitage, McPherson, Rowe (1969), "Repeated significance tests on accumulating data", Journal of the Royal
    Statistical Society A 132; Jennison, Turnbull (2000), "Group Sequential Methods", ch. 19
    """
    times = np.array(planned) / planned[-1]
    errors = np.diff(spent(level, times), prepend=0.0)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    bounds = [-float(special.ndtri(errors[0])) * np.sqrt(times[0])]
    points, log_density = np.zeros(1), np.zeros(1)  # of a Brownian motion that has not crossed a bound, by its value
    for k in range(1, len(times)):
        earlier, before = times[k - 1], times[k - 2] if k > 1 else 0.0
        half = (bounds[-1] - LOWEST) / 2
        values = LOWEST + half * (nodes + 1)
        steps = (values[:, None] - points) / np.sqrt(earlier - before)
        log_steps = -0.5 * (steps**2 + np.log(2 * np.pi * (earlier - before)))
        log_density = special.logsumexp(log_steps + log_density, axis=1) + np.log(half * weights)
        points, deviation = values, np.sqrt(times[k] - earlier)

        def excess(bound: float) -> float:
            crossing = special.log_ndtr((points - bound) / deviation)  # noqa: B023
            return float(special.logsumexp(log_density + crossing) - np.log(errors[k]))  # noqa: B023

        bounds.append(optimize.brentq(excess, LOWEST, HIGHEST, xtol=1e-10))
    return tuple(float(special.ndtr(-bound / np.sqrt(time))) for bound, time in zip(bounds, times))


def overall_level(p: float, planned: tuple[int, ...], look: int) -> float:
    """Return the smallest one-sided overall level at which a one-sided p value is significant at a look; at most 1.

    Source: Jennison, Turnbull (2000), "Group Sequential Methods", ch. 9 (repeated p values)
    """
    nominal, table = _inverse(planned, look)
    if p >= nominal[-1]:
        return 1.0 if p > nominal[-1] else float(LEVELS[-1])
    if p < nominal[0]:  # nothing was spent before
        time = planned[look - 1] / planned[-1]
        return float(2 * special.ndtr(special.ndtri(p / 2) * np.sqrt(time)))
    return float(np.exp(table(np.log(p))))


@cache
def _inverse(planned: tuple[int, ...], look: int) -> tuple[np.ndarray, interpolate.PchipInterpolator]:
    nominal = np.array([nominal_levels(float(level), planned)[look - 1] for level in LEVELS])
    return nominal, interpolate.PchipInterpolator(np.log(nominal), np.log(LEVELS))


def stop_reason(transfer: Transfer, rows: Sequence[dict[str, Any]]) -> str | None:
    """Return why no look is added after the verdicts `rows`; None if the next look is needed.

    Verdicts with failed runs are final: more seeds do not change them.
    """
    looks = looks_of(transfer)
    if any(run.state not in ("done", "failed") for run in transfer.runs):
        return "runs are unfinished"
    if not rows:
        return "no arm is compared with another"
    if all(row["verdict"] in SETTLED or row["flag"] for row in rows):
        return "every verdict is settled" + (", except with failed runs" if any(row["flag"] for row in rows) else "")
    if transfer.folds:
        return "the pooled transfers have no more seeds in common"
    if looks.made == len(looks.planned):
        return f"the maximum of {looks.planned[-1]} seeds is reached"
    return None


def summarize(transfer: Transfer, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the looks of a transfer as plain JSON; None if the number of seeds was fixed."""
    if transfer.rules["seeds"] != AUTO:
        return None
    looks, reason = looks_of(transfer), stop_reason(transfer, rows)
    seeds = looks.planned[looks.made - 1]
    sentence = (
        f"{looks.made} of {len(looks.planned)} looks made, with {seeds} seeds: "
        f"{reason or 'not finished, the next look is needed'}."
    )
    return {
        "planned": list(looks.planned),
        "made": looks.made,
        "seeds": seeds,
        "level": 1 - looks.alpha,
        "reason": reason,
        "sentence": sentence,
    }
