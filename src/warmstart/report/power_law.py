"""Extrapolates a curve of scores to larger counts by a power law, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

CONFIDENCE = 0.95
# The grid of parameters and its prior, see docs/how/statistics.md.
ASYMPTOTES = np.linspace(0.0, 0.975, 14)
EXPONENTS = np.geomspace(0.03, 3.0, 17)
DRIFTS = np.geomspace(0.01, 0.64, 7)
EXPONENT = (0.5, 1.0)
DRIFT = (0.03, 0.5)
SHRINKAGE = 4.0
MOST_CORRELATED = 0.9
NEGLIGIBLE = 1e-4  # weight of a point of the grid, relative to the largest


@dataclass(frozen=True)
class Forecast:
    """The expected mean score over new seeds at a count, and its 95 % interval."""

    count: float
    score: float
    low: float
    high: float


def forecast(
    counts: Sequence[float],
    scores: np.ndarray,
    wanted: Sequence[float],
    mode: str,
    examples: int,
) -> list[Forecast]:
    """Extrapolate a curve of scores to larger counts.

    The error, the distance of a score to the best possible one, is a power law of the count with an asymptote, times a
    random walk over the doublings of the count, which is the misfit of the power law. Its parameters have a posterior
    on a grid. The interval is that of the mean over as many new seeds as there are, on the same test set.

    Args:
        counts: labelled rows or steps (K,), ascending.
        scores: scores (K, S) by count and seed.
        wanted: the counts to extrapolate to, above the last of `counts`.
        mode: max for scores that are at most 1, or min for scores that are at least 0.
        examples: test examples, for the resolution of a score.

    Source: Cortes et al. (1993), "Learning Curves: Asymptotic Values and Rate of Convergence", NeurIPS 6; the shapes of
    curves and when power laws fail: Viering, Loog (2022), "The Shape of Learning Curves: a Review", TPAMI 45
    """
    sign, best, worst = (1, 1.0, 1.0) if mode == "max" else (-1, 0.0, math.inf)
    errors = sign * (best - np.asarray(scores, dtype=np.float64))
    found = []
    mixture = fitted(np.log2(np.asarray(counts, dtype=np.float64) / counts[-1]), errors, 1 / examples)
    for count in wanted:
        low, middle, high = (min(max(value, 0.0), worst) for value in mixture.quantiles(math.log2(count / counts[-1])))
        ends = sorted(best - sign * value for value in (low, high))
        found.append(Forecast(float(count), best - sign * middle, *ends))
    return found


@dataclass(frozen=True)
class Mixture:
    """Posterior of the error curve on the grid: weights, shape, level at the last count, and noise of a new mean."""

    weights: np.ndarray
    asymptotes: np.ndarray
    exponents: np.ndarray
    drifts: np.ndarray
    levels: np.ndarray
    variances: np.ndarray
    noise: float
    freedom: float
    resolution: float

    def quantiles(self, doublings: float) -> tuple[float, float, float]:
        """Return the ends of the 95 % interval and the median of the mean error after some doublings of the count."""
        shape = self.asymptotes + (1 - self.asymptotes) * np.exp2(-self.exponents * doublings)
        centers = self.levels * shape
        size = np.maximum(np.abs(centers), self.resolution)
        spreads = np.sqrt(self.variances * shape**2 + doublings * (self.drifts * size) ** 2 + self.noise)
        reach = 60 * spreads.max()

        def excess(value: float, probability: float) -> float:
            return float(self.weights @ special.stdtr(self.freedom, (value - centers) / spreads)) - probability

        tail = (1 - CONFIDENCE) / 2
        low, middle, high = (
            optimize.brentq(excess, centers.min() - reach, centers.max() + reach, args=(probability,))
            for probability in (tail, 0.5, 1 - tail)
        )
        return low, middle, high


def fitted(x: np.ndarray, errors: np.ndarray, resolution: float) -> Mixture:
    """Return the posterior of the power law given errors (K, S) at x (K,), doublings up to the last count (so <= 0).

    The level at the last count has a flat prior and is integrated out; the other parameters are on a grid.
    """
    means, noise = errors.mean(axis=1), seed_covariance(errors, resolution)
    size = np.maximum(np.abs(means), resolution)
    shared = np.minimum.outer(-x, -x) * np.outer(size, size)
    asymptotes, exponents = (values.ravel() for values in np.meshgrid(ASYMPTOTES, EXPONENTS))
    shapes = asymptotes[:, None] + (1 - asymptotes[:, None]) * np.exp2(-exponents[:, None] * x)
    prior = -0.5 * (np.log(exponents / EXPONENT[0]) / EXPONENT[1]) ** 2
    parts = []
    for drift in DRIFTS:
        covariance = noise + drift**2 * shared
        inverse = np.linalg.inv(covariance)
        information = np.einsum("gk,kl,gl->g", shapes, inverse, shapes)
        levels = shapes @ inverse @ means / information
        misfit = means @ inverse @ means - levels**2 * information
        likelihood = -0.5 * (misfit + np.linalg.slogdet(covariance)[1] + np.log(information))
        own = prior - 0.5 * (math.log(drift / DRIFT[0]) / DRIFT[1]) ** 2
        parts.append((likelihood + own, levels, 1 / information, np.full(len(levels), drift)))
    log_weights, levels, variances, drifts = (np.concatenate(values) for values in zip(*parts))
    weights = special.softmax(log_weights)
    kept = weights > NEGLIGIBLE * weights.max()
    count, seeds = errors.shape
    return Mixture(
        weights[kept] / weights[kept].sum(),
        np.tile(asymptotes, len(DRIFTS))[kept],
        np.tile(exponents, len(DRIFTS))[kept],
        drifts[kept],
        levels[kept],
        variances[kept],
        float(noise[-1, -1]),
        float(count * (seeds - 1)),
        resolution,
    )


def seed_covariance(errors: np.ndarray, resolution: float) -> np.ndarray:
    """Return the covariance (K, K) of mean errors over seeds, from errors (K, S).

    The variances are shrunken to their mean over the counts. The correlation is their mean over pairs of counts, since
    a seed has nested labelled subsets.
    """
    count, seeds = errors.shape
    sample = np.atleast_2d(np.cov(errors))
    variances = np.diag(sample)
    freedom = seeds - 1
    variances = (freedom * variances + SHRINKAGE * variances.mean()) / (freedom + SHRINKAGE) + resolution**2 / 12
    pairs = np.triu_indices(count, 1)
    scale = np.sqrt(np.outer(np.diag(sample), np.diag(sample)))[pairs]
    correlation = sample[pairs].sum() / scale.sum() if scale.sum() else 0.0
    matrix = np.full((count, count), min(max(correlation, 0.0), MOST_CORRELATED))
    np.fill_diagonal(matrix, 1.0)
    return matrix * np.sqrt(np.outer(variances, variances)) / seeds
