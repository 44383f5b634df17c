"""Simulated reports whose test examples are in clusters, for `scripts/calibrate.py --clusters`.

An arm has an effect on each cluster, such as a speaker on whom it is better than on others. Over all clusters, no arm
is truly better. With fewer than five clusters, verdicts are about these clusters, and so is the truth.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import optimize, special
from scripts.calibrate import ALPHA, ARMS, SAME_EXAMPLES, SAME_SEEDS, TRUTHS, _mix

from warmstart.report.clusters import MIN_CLUSTERS
from warmstart.report.paired import Paired, bootstrap_weights, holm, summary, verdict, weighted_means

TRUTH = TRUTHS[0]
LEVELS = np.array(TRUTH.levels)
VARIANCE = 1 + TRUTH.examples[1] ** 2 + TRUTH.seeds**2  # of the arms' latent scores, without the clusters
POINTS, POINT_WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
LIFT = 0.1  # a true difference that should be found
DRAWS = 500
SLOW_REPORTS = 200
RATES = {
    "false": "any false helps/hurts",
    "covered": "95% interval covers",
    "found": "10 points found",
    "false, ignored": "false: clusters ignored",
    "false, bootstrap": "bootstrap by cluster",
    "false, wild": "wild cluster bootstrap",
    "covered, ignored": "covers: ignored",
    "covered, bootstrap": "bootstrap",
    "covered, wild": "wild",
}
TARGETS = {"false": (0, 0.05), "covered": (0.93, 0.97)}


@dataclass(frozen=True)
class Design:
    """A test set in clusters.

    Args:
        skewed: whether sizes are proportional to 1, 1/2, 1/3, ... instead of equal.
        effect: standard deviation over clusters of an arm's effect on its score.
    """

    clusters: int
    examples: int
    skewed: bool
    effect: float
    seeds: int = 10

    @property
    def codes(self) -> np.ndarray:
        """Return the cluster of each example (N,)."""
        weights = 1 / np.arange(1, self.clusters + 1) if self.skewed else np.ones(self.clusters)
        ends = np.round(np.cumsum(weights) / weights.sum() * self.examples).astype(int)
        return np.searchsorted(ends, np.arange(self.examples), side="right")

    @property
    def is_population(self) -> bool:
        return self.clusters >= MIN_CLUSTERS


FIRST = tuple(Design(n, rows, False, 0.05) for n, rows in ((2, 480), (6, 600), (20, 600), (48, 768)))
SHAPES = tuple(itertools.product((2, 5, 10, 20, 50), (False, True), (0.0, 0.05, 0.1)))
OTHER_SEEDS = tuple(Design(n, 600, True, 0.05, seeds) for n, seeds in itertools.product((6, 20), (5, 20)))
GRID = (*FIRST, *(Design(n, 600, skewed, effect) for n, skewed, effect in SHAPES), *OTHER_SEEDS)
SMALL = (FIRST[0], FIRST[1], Design(10, 600, True, 0.1))


@cache
def latent(level: float, effect: float) -> tuple[float, float]:
    """Latent mean, and standard deviation of the clusters' effects, at which scores have this mean and that effect."""

    def scores(spread: float) -> np.ndarray:
        return special.ndtr((mean(spread) + spread * POINTS) / math.sqrt(VARIANCE))

    def mean(spread: float) -> float:
        return float(special.ndtri(level)) * math.sqrt(VARIANCE + spread**2)

    def excess(spread: float) -> float:
        return math.sqrt(((scores(spread) - level) ** 2 @ POINT_WEIGHTS) / POINT_WEIGHTS.sum()) - effect

    spread = optimize.brentq(excess, 1e-9, 20) if effect else 0.0
    return mean(spread), spread


def simulate(design: Design, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences of the arms and their control (8, S, N), the last of them lifted (S, N), and the truth (8,)."""
    codes, seeds, n = design.codes, design.seeds, design.examples
    same_examples, same_seeds = rng.standard_normal(n), rng.standard_normal(seeds)
    found, truths = [], []
    for arm in range(1 + ARMS):
        ease = TRUTH.examples[arm > 0] * _mix(SAME_EXAMPLES, same_examples, rng.standard_normal(n))
        luck = TRUTH.seeds * _mix(SAME_SEEDS, same_seeds, rng.standard_normal((len(LEVELS), seeds)))
        noise = ease + luck[..., None] + rng.standard_normal((len(LEVELS), seeds, n), dtype=np.float32)
        if arm == 0:
            variance = 1 + TRUTH.examples[0] ** 2 + TRUTH.seeds**2
            control = noise + (special.ndtri(LEVELS) * math.sqrt(variance))[:, None, None] > 0
            continue
        effects = rng.standard_normal(design.clusters)
        centers, spreads = np.array([latent(level, design.effect) for level in TRUTH.levels]).T
        shift = centers[:, None] + spreads[:, None] * effects
        found.append((noise + shift[:, None, codes] > 0).astype(np.float32) - control)
        truths.append((special.ndtr(shift / math.sqrt(VARIANCE)) @ np.bincount(codes) / n) - LEVELS)
    center, spread = latent(TRUTH.levels[-1] + LIFT, design.effect)
    lifted = (noise[-1] + (center + spread * effects)[codes] > 0).astype(np.float32) - control[-1]
    truth = np.zeros(ARMS * len(LEVELS)) if design.is_population else np.concatenate(truths)
    return np.concatenate(found), lifted, truth


def false(nulls: Sequence[Paired]) -> bool:
    """Whether the rules that ship claim a difference where there is none."""
    adjusted = holm([one.p for one in nulls])
    return any(verdict(p, 1.0, one.difference, one.n) in ("helps", "hurts") for p, one in zip(adjusted, nulls))


def wild(matrix: np.ndarray, codes: np.ndarray, signs: np.ndarray) -> float:
    """Two-sided p value of the wild cluster bootstrap, restricted to the null, of the means over seeds.

    Source: Cameron, Gelbach, Miller (2008), "Bootstrap-based improvements for inference with clustered errors"
    """
    sizes = np.bincount(codes)
    totals = np.bincount(codes, matrix.mean(axis=0)) * np.vstack([np.ones(len(sizes)), signs])
    means = totals.sum(axis=1, keepdims=True) / len(codes)
    errors = np.sqrt(((totals - means * sizes) ** 2).sum(axis=1))
    ratios = np.abs(means[:, 0]) / np.maximum(errors, 1e-12)
    return float((ratios[1:] >= ratios[0] * (1 - 1e-9)).mean())


def measure(design: Design, reports: int, seed: int = 0) -> dict[str, Any]:
    """The rate of each of RATES over simulated reports with its standard error."""
    numbers = (design.clusters, design.examples, design.skewed, round(1000 * design.effect), design.seeds)
    rng = np.random.default_rng([seed, *numbers])
    codes = design.codes
    weights = bootstrap_weights(design.seeds, design.examples, DRAWS, seed, codes)
    signs = rng.choice([-1.0, 1.0], (DRAWS, design.clusters))
    used = codes if design.is_population else None
    seen = {name: [] for name in RATES}
    for report in range(reports):
        matrices, lifted, truths = simulate(design, rng)
        nulls = [summary(matrix - truth, used) for matrix, truth in zip(matrices, truths)]
        ignored = [summary(matrix) for matrix in matrices]
        better = summary(lifted, used)
        said = verdict(holm([*(one.p for one in nulls[:-1]), better.p])[-1], 1.0, better.difference, better.n)
        covered, covered_ignored = (np.mean([one.p >= ALPHA for one in family]) for family in (nulls, ignored))
        found = {"false": false(nulls), "covered": covered, "found": said == "helps"}
        found |= {"false, ignored": false(ignored), "covered, ignored": covered_ignored}
        if report < SLOW_REPORTS:
            means = np.array([weighted_means(matrix, weights) for matrix in matrices])
            p = {"bootstrap": 2 * np.minimum((means <= 0).mean(axis=1), (means >= 0).mean(axis=1))}
            p["wild"] = np.array([wild(matrix, codes, signs) for matrix in matrices])
            for name, values in p.items():
                found[f"false, {name}"] = min(values) * len(matrices) < ALPHA
                found[f"covered, {name}"] = np.mean(values >= ALPHA)
        for name, value in found.items():
            seen[name].append(value)
    rates = {name: (np.mean(own), np.std(own) / math.sqrt(len(own))) for name, own in seen.items()}
    return {"design": design, "rates": rates}


def row(one: dict[str, Any]) -> list[str]:
    """The cells of a measurement: its design, then its rates with their standard errors in percent."""
    design: Design = one["design"]
    sizes = np.bincount(design.codes)
    shape = f"{sizes[0]} each" if not design.skewed else f"{sizes[0]} to {sizes[-1]}"
    clusters = f"{design.clusters}{'' if design.is_population else ' (these only)'}"
    rates = (f"{100 * rate:.1f}±{100 * error:.1f}" for rate, error in one["rates"].values())
    return [clusters, shape, f"{100 * design.effect:.0f}", str(design.seeds), *rates]


def misses(one: dict[str, Any]) -> list[str]:
    """The targets that a measurement misses by more than two standard errors."""
    cells, found = row(one), []
    for name, (low, high) in TARGETS.items():
        rate, error = one["rates"][name]
        if not low - 2 * error <= rate <= high + 2 * error:
            found.append(f"{RATES[name]} {rate:.1%} ({cells[0]} clusters, {cells[1]}, effect {cells[2]}, S {cells[3]})")
    return found


def table(designs: Sequence[Design], reports: int, seed: int) -> Iterator[str]:
    """Lines of the table, and of what is missed."""
    yield "| clusters | rows | effect's sd | S | " + " | ".join(RATES.values()) + " |"
    yield "| --- " * (4 + len(RATES)) + "|"
    missed = []
    for design in designs:
        one = measure(design, reports, seed)
        missed += misses(one)
        yield "| " + " | ".join(row(one)) + " |"
    yield "\nMissed by more than two standard errors:"
    yield from (f"- {miss}" for miss in missed)
