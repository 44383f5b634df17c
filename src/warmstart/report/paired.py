"""Did the arm beat its control? Intervals and tests over seeds and test examples, from paired runs.

Both the seeds and the test examples are a sample: a difference counts where it would be seen again with other seeds
and another test set. `scripts/calibrate.py` measures how often the rules below are wrong where the truth is known.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

FEWEST_UNITS = 5
MOST_SEEDS = 100_000
LEAST_CHANCE = 1e-100
ROUNDING = 1e-12
CHUNK = 1 << 21


@dataclass(frozen=True)
class Paired:
    """What S paired seeds (n) on N test examples say of a mean difference, all in units of the score.

    `spread` is the standard deviation of the per-seed differences; `example_error` is the standard error that the test
    set adds to theirs, which more seeds do not shrink. One seed has no spread: its low and high are None, its p is 1.
    """

    n: int
    examples: int
    difference: float
    spread: float
    example_error: float
    alpha: float = 0.05

    @property
    def standard_error(self) -> float:
        """Of the difference, over seeds and test examples."""
        return math.hypot(self.spread / math.sqrt(self.n), self.example_error)

    @property
    def test_share(self) -> float:
        """The part of the squared standard error that is the test set's, 0 to 1."""
        return (self.example_error / self.standard_error) ** 2 if self.standard_error else 0.0

    @property
    def low(self) -> float | None:
        """Lower end of the 1 - alpha interval."""
        return self.difference - self.critical(self.alpha / 2) * self.standard_error if self.n > 1 else None

    @property
    def high(self) -> float | None:
        """Upper end of the 1 - alpha interval."""
        return self.difference + self.critical(self.alpha / 2) * self.standard_error if self.n > 1 else None

    @property
    def p(self) -> float:
        """Two-sided, against no difference."""
        return 2 * self.tail(abs(self.difference)) if self.n > 1 else 1.0

    @property
    def effect(self) -> float | None:
        """Cohen's d_z, the difference in standard deviations over seeds; None where the seeds do not differ."""
        return self.difference / self.spread if self.spread else None

    def critical(self, chance: float) -> float:
        """What difference / standard_error exceeds by this chance (at most 1/2) where nothing is there.

        It is Cochran and Cox's: the mean of the critical t of the seeds and that of the examples, weighted by their
        parts of the squared error.

        Source: Cochran, Cox (1950), "Experimental Designs", as in SAS PROC TTEST
        """
        seeds, test = special.stdtrit([self.n - 1, max(self.examples - 1, 1)], chance)
        return -float((1 - self.test_share) * seeds + self.test_share * test)

    def tail(self, distance: float) -> float:
        """The chance of a difference beyond `distance` where nothing is there; the inverse of `critical`."""
        if self.standard_error == 0 or distance == 0:
            return 0.5 - 0.5 * float(np.sign(distance))

        def excess(log_chance: float) -> float:
            return self.critical(math.exp(log_chance)) - abs(distance) / self.standard_error

        least, most = math.log(LEAST_CHANCE), math.log(0.5)
        chance = math.exp(optimize.brentq(excess, least, most)) if excess(least) > 0 else 0.0
        return chance if distance > 0 else 1 - chance


def summary(differences: np.ndarray, alpha: float = 0.05) -> Paired:
    """Mean of per-seed, per-example differences (S, N) with its 1 - alpha t interval and two-sided p against 0.

    Seeds and examples are crossed random effects. The squared error is that of a t test over the seeds, plus the
    variance among the examples' means beyond what the interaction explains, never below 0. Given (S,) or N = 1 it is
    the paired t test over seeds, which cannot count the test set's noise. Scores (S, N) of one arm instead of
    differences give the interval of its mean.

    Raises:
        ValueError: not one or two dimensions, nothing in it, or values that are not finite.

    Source: Searle, Casella, McCulloch (1992), "Variance Components" (two-way crossed, random)
    """
    matrix = _matrix(differences)
    n, examples = matrix.shape
    difference = float(matrix.mean())
    if n < 2:
        return Paired(n, examples, difference, 0.0, 0.0, alpha)
    spread = float(matrix.mean(axis=1).std(ddof=1))
    if spread <= ROUNDING * float(np.abs(matrix).max()):
        spread = 0.0
    return Paired(n, examples, difference, spread, math.sqrt(_example_variance(matrix - difference)), alpha)


def equivalence(paired: Paired, margin: float) -> float:
    """The larger p of two one-sided t tests: small where the true difference lies inside -margin to margin.

    Source: Schuirmann (1987), "A comparison of the two one-sided tests procedure and the power approach", Journal of
    Pharmacokinetics and Biopharmaceutics 15
    """
    if paired.n < 2:
        return 1.0
    return paired.tail(margin - abs(paired.difference))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the given order: those below alpha are false at most alpha of the time, as a family.

    Source: Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(p[order] * np.arange(len(p), 0, -1), 1.0))
    return adjusted.tolist()


def verdict(
    p_holm: float, p_equivalent: float, difference: float, n: int, fewest: int = FEWEST_UNITS, alpha: float = 0.05
) -> str | None:
    """'helps', 'hurts', 'equivalent' or 'cannot tell'; None with fewer than `fewest` seeds.

    Equivalent asks both one-sided tests for half of alpha, that is the two-sided interval inside the margin: at alpha
    they are wrong up to a tenth of the time on small test sets with skewed scores (docs/how/calibration.md).
    """
    if n < fewest:
        return None
    if p_holm < alpha:
        return "helps" if difference > 0 else "hurts"
    return "equivalent" if p_equivalent < alpha / 2 else "cannot tell"


def seeds_needed(paired: Paired, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """The fewest seeds at which the seen difference, were it the true one, is found with this power on this test set.

    The test set's noise stays whatever the seeds: None where even 100,000 seeds do not get there, or n is below 2.

    Source: noncentral t, as in Cohen (1988), "Statistical Power Analysis for the Behavioral Sciences", ch. 2
    """

    def found(n: int) -> float:
        more = dataclasses.replace(paired, n=n)
        if more.standard_error == 0:
            return 1.0
        freedom = 1 / ((1 - more.test_share) / (n - 1) + more.test_share / max(more.examples - 1, 1))
        return float(stats.nct.sf(more.critical(alpha / 2), freedom, abs(more.difference) / more.standard_error))

    if paired.n < 2 or paired.difference == 0 or found(MOST_SEEDS) < power:
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) >= power else (middle, high)
    return high


def bootstrap_weights(seeds: int, examples: int, draws: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """How often each seed (draws, S) and, independently, each example (draws, N) is drawn with replacement.

    Shared by several matrices they keep the pairing, so that any function of the arms' means can be bootstrapped.

    Source: Owen (2007), "The pigeonhole bootstrap", Annals of Applied Statistics 1, https://arxiv.org/abs/0712.1111
    """
    rng = np.random.default_rng(seed)

    def counts(size: int) -> np.ndarray:
        drawn = np.empty((draws, size), dtype=np.uint8)
        for row in drawn:
            row[:] = np.bincount(rng.integers(size, size=size), minlength=size)
        return drawn

    return counts(seeds), counts(examples)


def weighted_means(matrix: np.ndarray, weights: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The mean of an (S, N) or (S,) matrix under each of the draws of `bootstrap_weights(S, N)`: (draws,)."""
    matrix = _matrix(matrix)
    by_seed, by_example = weights
    size = max(1, CHUNK // matrix.shape[1])
    rows = [by_example[start : start + size] @ matrix.T for start in range(0, len(by_example), size)]
    return (by_seed * np.concatenate(rows)).sum(axis=1) / matrix.size


def _matrix(values: np.ndarray) -> np.ndarray:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim not in (1, 2) or not matrix.size or not np.isfinite(matrix).all():
        raise ValueError(f"finite values (seeds,) or (seeds, examples) expected, not of shape {matrix.shape}")
    return matrix.reshape(len(matrix), -1)


def _example_variance(centred: np.ndarray) -> float:
    """Variance of the mean that is the examples': of their means, less the interaction's share, at least 0."""
    n, examples = centred.shape
    if examples < 2:
        return 0.0
    rows, columns = centred.mean(axis=1), centred.mean(axis=0)
    squares = np.vdot(centred, centred) - examples * np.vdot(rows, rows) - n * np.vdot(columns, columns)
    interaction = squares / ((n - 1) * (examples - 1))
    return max(0.0, float(columns.var(ddof=1) - interaction / n) / examples)
