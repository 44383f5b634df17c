"""Did the arm beat its control? Intervals and tests over seeds and test examples, from paired runs.

Both the seeds and the test examples are a sample: a difference counts where it would be seen again with other seeds
and another test set. `scripts/calibrate.py` measures how often the rules below are wrong where the truth is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

FEWEST_UNITS = 5
MOST_SEEDS = 100_000
ROUNDING = 1e-12
CHUNK = 1 << 21


@dataclass(frozen=True)
class Paired:
    """What S paired seeds (n) say of a mean difference, all in units of the score.

    `spread` is the standard deviation of the per-seed differences, `example_error` the part of `standard_error` that
    more seeds do not shrink since it is the test set's. With one seed there is no spread: low, high are None, p is 1.
    """

    n: int
    examples: int
    difference: float
    low: float | None
    high: float | None
    p: float
    effect: float | None
    spread: float
    example_error: float
    standard_error: float
    freedom: float


def summary(differences: np.ndarray, alpha: float = 0.05) -> Paired:
    """Mean of per-seed, per-example differences (S, N) with its 1 - alpha t interval and two-sided p against 0.

    Seeds and examples are crossed random effects. The error is that of a t test over the seeds, plus the variance
    among the examples' means beyond what the seeds' noise explains, never below 0. The degrees of freedom of both are
    averaged in 1 / freedom by their shares of the variance, to first order Cochran and Cox's weighted critical value;
    Satterthwaite's, which squares the shares, are too many for 5 seeds. Given (S,) or N = 1 it is the paired t test
    over seeds, which cannot count the test set's noise. Scores (S, N) of one arm instead of differences give the
    interval of its mean. `effect` is Cohen's d_z, None where the seeds do not differ.

    Raises:
        ValueError: not one or two dimensions, nothing in it, or values that are not finite.

    Source: Searle, Casella, McCulloch (1992), "Variance Components" (two-way crossed, random); Cochran, Cox (1950),
    "Experimental Designs", as in SAS PROC TTEST
    """
    matrix = _matrix(differences)
    n, examples = matrix.shape
    rows = matrix.mean(axis=1)
    difference = float(rows.mean())
    if n < 2:
        return Paired(n, examples, difference, None, None, 1.0, None, 0.0, 0.0, 0.0, 0.0)
    spread = float(rows.std(ddof=1))
    if spread <= ROUNDING * float(np.abs(matrix).max()):
        spread = 0.0
    example_error = math.sqrt(_example_variance(matrix - difference))
    error, freedom = _error(spread, n, example_error, examples)
    reach = float(special.stdtrit(freedom, 1 - alpha / 2)) * error
    p = 2 * _tail(abs(difference), error, freedom)
    effect = difference / spread if spread else None
    low, high = difference - reach, difference + reach
    return Paired(n, examples, difference, low, high, p, effect, spread, example_error, error, freedom)


def equivalence(paired: Paired, margin: float) -> float:
    """The larger p of two one-sided t tests: small where the true difference lies inside -margin to margin.

    Source: Schuirmann (1987), "A comparison of the two one-sided tests procedure and the power approach", Journal of
    Pharmacokinetics and Biopharmaceutics 15
    """
    if paired.n < 2:
        return 1.0
    return _tail(margin - abs(paired.difference), paired.standard_error, paired.freedom)


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
    """'helps', 'hurts', 'equivalent' or 'cannot tell'; None with fewer than `fewest` seeds."""
    if n < fewest:
        return None
    if p_holm < alpha:
        return "helps" if difference > 0 else "hurts"
    return "equivalent" if p_equivalent < alpha else "cannot tell"


def seeds_needed(paired: Paired, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """The fewest seeds at which the seen difference, were it the true one, is found with this power on this test set.

    The test set's noise stays whatever the seeds: None where even 100,000 seeds do not get there, or n is below 2.

    Source: noncentral t, as in Cohen (1988), "Statistical Power Analysis for the Behavioral Sciences", ch. 2
    """

    def found(n: int) -> float:
        error, freedom = _error(paired.spread, n, paired.example_error, paired.examples)
        if error == 0:
            return 1.0
        critical = special.stdtrit(freedom, 1 - alpha / 2)
        return float(stats.nct.sf(critical, freedom, abs(paired.difference) / error))

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


def bootstrap_means(matrix: np.ndarray, seed: int = 0, draws: int = 2000) -> np.ndarray:
    """Two-level bootstrap of the mean of an (S, N) or (S,) matrix, over seeds and examples: (draws,)."""
    return weighted_means(matrix, bootstrap_weights(*_matrix(matrix).shape, draws, seed))


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


def _error(spread: float, n: int, example_error: float, examples: int) -> tuple[float, float]:
    """Standard error of the mean over n seeds, and its degrees of freedom."""
    seeds, test = spread**2 / n, example_error**2
    if seeds + test == 0:
        return 0.0, n - 1.0
    return math.sqrt(seeds + test), (seeds + test) / (seeds / (n - 1) + test / max(examples - 1, 1))


def _tail(distance: float, error: float, freedom: float) -> float:
    """Chance that a t of this freedom exceeds distance / error; without error 0, 1/2 or 1 by the distance's sign."""
    if error == 0:
        return 0.5 - 0.5 * float(np.sign(distance))
    return float(special.stdtr(freedom, -distance / error))
