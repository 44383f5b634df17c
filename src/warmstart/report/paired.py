"""Intervals and tests for paired differences, with seeds and test examples as random effects.

Both the seeds and the test examples are samples, so that a significant difference is expected with other seeds and
another test set too. Test examples in clusters, such as the recordings of a speaker, are sampled by cluster.
`scripts/calibrate.py` measures the error rates of these rules on simulated data.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from warmstart.report.cluster_variance import cluster_variance

MIN_UNITS = 5
MAX_SEEDS = 100_000
ALPHA, POWER = 0.05, 0.8
MIN_PROBABILITY = 1e-100
ROUNDING = 1e-12
CHUNK = 1 << 21


@dataclass(frozen=True)
class Paired:
    """Estimate of a mean difference from n paired seeds and N test examples, in units of the score.

    `spread` is the standard deviation of the per-seed differences, of which `interaction` is the part that decreases
    with the number of examples. `example_error` is the standard error due to the test set, which does not decrease with
    the number of seeds. With examples in clusters, `freedom` are its degrees of freedom, and `cluster_error` is the
    standard error of the mean over these seeds alone. With one seed, low and high are None and p is 1.
    """

    n: int
    examples: int
    difference: float
    spread: float
    example_error: float
    alpha: float = 0.05
    interaction: float = 0.0
    freedom: float | None = None
    cluster_error: float | None = None

    @property
    def standard_error(self) -> float:
        """Return the standard error of the difference, over seeds and test examples."""
        return math.hypot(self.spread / math.sqrt(self.n), self.example_error)

    @property
    def test_share(self) -> float:
        """Return the fraction of the squared standard error that is due to the test set, 0 to 1.

        With clusters, it is that of two separate errors, so that it is not 0 where the estimate of `example_error` is 0
        by chance.
        """
        if self.cluster_error is not None:
            total = self.cluster_error**2 + self.spread**2 / self.n
            return self.cluster_error**2 / total if total else 0.0
        return (self.example_error / self.standard_error) ** 2 if self.standard_error else 0.0

    @property
    def test_freedom(self) -> float:
        """Return the degrees of freedom of the variance due to the test set."""
        return max(self.examples - 1, 1) if self.freedom is None else self.freedom

    @property
    def low(self) -> float | None:
        """Return the lower bound of the 1 - alpha interval."""
        return self.difference - self.critical(self.alpha / 2) * self.standard_error if self.n > 1 else None

    @property
    def high(self) -> float | None:
        """Return the upper bound of the 1 - alpha interval."""
        return self.difference + self.critical(self.alpha / 2) * self.standard_error if self.n > 1 else None

    @property
    def p(self) -> float:
        """Return the two-sided p value for the null hypothesis of no difference."""
        return 2 * self.tail(abs(self.difference)) if self.n > 1 else 1.0

    @property
    def effect(self) -> float | None:
        """Return Cohen's d_z, the difference in standard deviations over seeds; None if the standard deviation is 0."""
        return self.difference / self.spread if self.spread else None

    def critical(self, probability: float) -> float:
        """Return the critical value of difference / standard_error under the null hypothesis.

        It is the mean of the critical t values of seeds and examples, weighted by their fractions of the squared error.

        Args:
            probability: one-sided, at most 1/2.

        Source: Cochran, Cox (1950), "Experimental Designs", as in SAS PROC TTEST
        """
        seeds, test = special.stdtrit([self.n - 1, self.test_freedom], probability)
        return -float((1 - self.test_share) * seeds + self.test_share * test)

    def tail(self, distance: float) -> float:
        """Return the one-sided p value of a difference of `distance`; the inverse of `critical`."""
        if self.standard_error == 0 or distance == 0:
            return 0.5 - 0.5 * float(np.sign(distance))

        def excess(log_probability: float) -> float:
            return self.critical(math.exp(log_probability)) - abs(distance) / self.standard_error

        low, high = math.log(MIN_PROBABILITY), math.log(0.5)
        probability = math.exp(optimize.brentq(excess, low, high)) if excess(low) > 0 else 0.0
        return probability if distance > 0 else 1 - probability


def summary(differences: np.ndarray, clusters: np.ndarray | None = None, alpha: float = 0.05) -> Paired:
    """Estimate the mean of differences (S, N) by seed and example, with its 1 - alpha interval and p value.

    Seeds and examples are crossed random effects. The squared error is that of a t test over the seeds, plus the
    variance of the examples' means without the interaction, at least 0. With shape (S,) or N = 1 this is the paired t
    test over seeds, which ignores the variance of the test set. With scores (S, N) of one arm instead of differences,
    it estimates the mean score.

    With the names or numbers of the examples' clusters (N,), the clusters are the random effect instead. The squared
    error is then at least that over the seeds alone and at least that over the clusters alone.

    Raises:
        ValueError: the array is empty, not one- or two-dimensional, or not finite, or there is one cluster only.

    Source: Searle, Casella, McCulloch (1992), "Variance Components" (two-way crossed, random); for clusters, Cameron,
    Gelbach, Miller (2011), "Robust inference with multiway clustering", Journal of Business & Economic Statistics 29
    """
    matrix = _matrix(differences)
    n, examples = matrix.shape
    difference = float(matrix.mean())
    if n < 2:
        return Paired(n, examples, difference, 0.0, 0.0, alpha)
    spread = float(matrix.mean(axis=1).std(ddof=1))
    largest = float(np.abs(matrix).max())
    if spread <= ROUNDING * largest:
        spread = 0.0
    centred = matrix - difference
    if clusters is None:
        variance, interaction = _example_variance(centred)
        return Paired(n, examples, difference, spread, math.sqrt(variance), alpha, math.sqrt(interaction))
    found = cluster_variance(centred, clusters)
    error = math.sqrt(found.clusters)
    if error <= ROUNDING * largest:
        error = 0.0
    variance = max(0.0, error**2 - min(found.interaction, spread**2) / n)
    interaction = math.sqrt(found.interaction)
    return Paired(n, examples, difference, spread, math.sqrt(variance), alpha, interaction, found.freedom, error)


def equivalence(paired: Paired, margin: float) -> float:
    """Return the larger p value of two one-sided t tests (TOST) of |difference| >= margin.

    Source: Schuirmann (1987), "A comparison of the two one-sided tests procedure and the power approach", Journal of
    Pharmacokinetics and Biopharmaceutics 15
    """
    if paired.n < 2:
        return 1.0
    return paired.tail(margin - abs(paired.difference))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm-adjusted p values in the given order, which control the family-wise error rate.

    Source: Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(p[order] * np.arange(len(p), 0, -1), 1.0))
    return adjusted.tolist()


def verdict(p_holm: float, p_equivalent: float, difference: float, n: int) -> str | None:
    """Return 'helps', 'hurts', 'equivalent' or 'cannot tell'; None with fewer than MIN_UNITS seeds.

    Equivalence uses alpha / 2 in both one-sided tests, so that the 1 - alpha interval lies inside the margin. With
    alpha, the error rate is up to 10 % on small test sets with skewed scores (docs/how/calibration.md).
    """
    if n < MIN_UNITS:
        return None
    if p_holm < ALPHA:
        return "helps" if difference > 0 else "hurts"
    return "equivalent" if p_equivalent < ALPHA / 2 else "cannot tell"


def power(paired: Paired, alpha: float = ALPHA) -> float:
    """Return the probability that a two-sided test at alpha detects the observed difference, if it is the true one.

    It is 0 if the degrees of freedom of the test set are below 1, as with one cluster that has nearly all examples.

    Source: noncentral t, as in Cohen (1988), "Statistical Power Analysis for the Behavioral Sciences", ch. 2
    """
    if paired.test_freedom < 1:
        return 0.0
    if paired.standard_error == 0:
        return 1.0
    share = paired.test_share
    freedom = 1 / ((1 - share) / (paired.n - 1) + share / paired.test_freedom)
    found = stats.nct.sf(paired.critical(alpha / 2), freedom, abs(paired.difference) / paired.standard_error)
    return float(np.nan_to_num(found))


def seeds_needed(paired: Paired, alpha: float = ALPHA) -> int | None:
    """Return the number of seeds for a power of 80 % on this test set, if the observed difference is the true one.

    The variance of the test set does not decrease with the seeds: None if 100,000 seeds are too few, or n is below 2.

    Args:
        alpha: two-sided level of the test.
    """

    def detection_power(n: int) -> float:
        return power(dataclasses.replace(paired, n=n), alpha)

    if paired.n < 2 or paired.difference == 0 or detection_power(MAX_SEEDS) < POWER:
        return None
    return 2 + bisect.bisect_left(range(2, MAX_SEEDS), POWER, key=detection_power)


def bootstrap_weights(
    seeds: int, examples: int, draws: int = 2000, seed: int = 0, clusters: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw bootstrap counts of seeds (draws, S) and, independently, of examples (draws, N).

    With the names or numbers of the examples' clusters (N,), whole clusters are drawn. Use the same counts for several
    matrices to keep the pairing, and to bootstrap any function of the arms' means.

    Source: Owen (2007), "The pigeonhole bootstrap", Annals of Applied Statistics 1, https://arxiv.org/abs/0712.1111
    """
    rng = np.random.default_rng(seed)

    def counts(size: int) -> np.ndarray:
        drawn = np.empty((draws, size), dtype=np.uint8)
        for row in drawn:
            row[:] = np.bincount(rng.integers(size, size=size), minlength=size)
        return drawn

    if clusters is None:
        return counts(seeds), counts(examples)
    codes = np.unique(clusters, return_inverse=True)[1].reshape(-1)
    return counts(seeds), counts(codes.max() + 1)[:, codes]


def weighted_means(matrix: np.ndarray, weights: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the bootstrap means (draws,) of a matrix (S, N) or (S,) with counts from `bootstrap_weights(S, N)`."""
    matrix = _matrix(matrix)
    by_seed, by_example = weights
    size = max(1, CHUNK // matrix.shape[1])
    rows = [by_example[start : start + size] @ matrix.T for start in range(0, len(by_example), size)]
    drawn = by_example.sum(axis=1, dtype=np.int64)  # differs from N if clusters of several sizes are drawn
    return (by_seed * np.concatenate(rows)).sum(axis=1) / (len(matrix) * drawn)


def _matrix(values: np.ndarray) -> np.ndarray:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim not in (1, 2) or not matrix.size or not np.isfinite(matrix).all():
        raise ValueError(f"finite values (seeds,) or (seeds, examples) expected, not of shape {matrix.shape}")
    return matrix.reshape(len(matrix), -1)


def _example_variance(centred: np.ndarray) -> tuple[float, float]:
    """Return the variance of the mean due to the examples, at least 0, and that of one seed's mean by interaction."""
    n, examples = centred.shape
    if examples < 2:
        return 0.0, 0.0
    rows, columns = centred.mean(axis=1), centred.mean(axis=0)
    squares = np.vdot(centred, centred) - examples * np.vdot(rows, rows) - n * np.vdot(columns, columns)
    interaction = squares / ((n - 1) * (examples - 1))
    variance = max(0.0, float(columns.var(ddof=1) - interaction / n) / examples)
    return variance, max(0.0, float(interaction)) / examples
