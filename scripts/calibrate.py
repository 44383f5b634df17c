"""Measure the error rates of the paired comparison, and of alternative methods, in simulations with known truth.

    python scripts/calibrate.py                 # about ten minutes
    python scripts/calibrate.py --small         # a few seconds
    python scripts/calibrate.py --clusters      # test examples in clusters; about six minutes

A simulated report has eight comparisons: two arms with their control at four label budgets, on one test set. The
difficulty of an example has a component shared by all arms and one of each arm. No arm is truly better. Then the last
comparison is improved by two standard deviations of its per-seed differences, which is also the margin.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from warmstart.report.paired import Paired, bootstrap_weights, equivalence, holm, summary, verdict, weighted_means

ALPHA = 0.05
ARMS = 2
SAME_EXAMPLES, SAME_SEEDS = 0.8, 0.3
SLOW_EXAMPLES, SLOW_REPORTS = 5000, 200
NORMAL = stats.norm()
QUANTILES = (np.arange(10_000) + 0.5) / 10_000
RATES = {
    "false": "any false helps/hurts",
    "covered": "95% interval covers",
    "found": "2 sd found",
    "tost": "TOST p < 0.05 at margin",
    "inside": "95% interval inside margin",
    "equivalent": "`equivalent` at margin",
    "own": "arm's own covers",
    "false, seeds only": "false: (a) seeds only",
    "false, bootstrap": "(b) bootstrap",
    "false, sign flip": "(c) sign flip",
    "false, Satterthwaite": "(d) Satterthwaite",
    "covered, seeds only": "covers: (a)",
    "covered, bootstrap": "(b)",
    "covered, Satterthwaite": "(d)",
}
TARGETS = {"false": (0, 0.05), "covered": (0.93, 0.97), "equivalent": (0, 0.05), "own": (0.93, 0.97)}


@dataclass(frozen=True)
class Truth:
    """A population: mean score per label budget, and spreads on the latent scale, (control's, arms') for examples."""

    name: str
    noise: str
    levels: tuple[float, ...]
    seeds: float
    examples: tuple[float, float]
    shape: Any = NORMAL


ACCURACY, ERROR = (0.9, 0.8, 0.7, 0.6), (-0.6, -0.7, -0.8, -1.0)
TRUTHS = (
    Truth("accuracy 0.6 to 0.9", "binary", ACCURACY, 0.1, (2.0, 1.5)),
    Truth("accuracy 0.95 to 0.98", "binary", (0.98, 0.97, 0.96, 0.95), 0.05, (2.0, 1.5)),
    Truth("error, exponential", "exponential", ERROR, 0.05, (0.8, 0.7)),
    Truth("error, lognormal", "lognormal", ERROR, 0.05, (1.0, 0.8)),
    Truth("accuracy, skewed seeds", "binary", ACCURACY, 0.1, (2.0, 1.5), stats.expon()),
    Truth("accuracy, seeds that fail", "binary", ACCURACY, 0.2, (2.0, 1.5), stats.lognorm(1.0)),
)


def simulate(
    truth: Truth, seeds: int, examples: int, lift: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of the control (budgets, S, N), of the arms (2, budgets, S, N), and the last of them lifted (S, N)."""
    same_examples, same_seeds = rng.standard_normal(examples), rng.standard_normal(seeds)
    runs = []
    for arm in range(1 + ARMS):
        ease = truth.examples[arm > 0] * _mix(SAME_EXAMPLES, same_examples, rng.standard_normal(examples))
        own = _standard(truth.shape if arm else NORMAL, rng.random((len(truth.levels), seeds)))
        start = np.array([_start(truth, level, arm > 0) for level in truth.levels])
        luck = start[:, None] + truth.seeds * _mix(SAME_SEEDS, same_seeds, own)
        latent = ease.astype(np.float32) + luck[..., None].astype(np.float32)
        draw = rng.standard_exponential if truth.noise == "exponential" else rng.standard_normal
        noise = draw(latent.shape, dtype=np.float32)
        runs.append(_scores(truth, latent, noise))
    lifted = np.float32(_start(truth, truth.levels[-1] + lift, True) - start[-1])
    return runs[0], np.stack(runs[1:]), _scores(truth, latent[-1] + lifted, noise[-1])


def _scores(truth: Truth, latent: np.ndarray, noise: np.ndarray) -> np.ndarray:
    if truth.noise == "binary":
        return (latent + noise > 0).astype(np.float32)
    return -np.exp(-latent) * (noise if truth.noise == "exponential" else np.exp(noise / 2))


@cache
def _start(truth: Truth, level: float, arm: bool) -> float:
    """The latent mean at which the population's mean score is this level exactly."""
    luck = truth.seeds * math.sqrt(1 - SAME_SEEDS) * _standard(truth.shape if arm else NORMAL, QUANTILES)
    variance = truth.examples[arm] ** 2 + SAME_SEEDS * truth.seeds**2 + (truth.noise == "lognormal") / 4

    def excess(start: float) -> float:
        if truth.noise == "binary":
            return special.ndtr((start + luck) / math.sqrt(1 + variance)).mean() - level
        return -np.exp(variance / 2 - start - luck).mean() - level

    return optimize.brentq(excess, -20, 20)


def _standard(shape: Any, chances: np.ndarray) -> np.ndarray:
    """Mean 0, variance 1, the long tail on the bad side."""
    return (shape.mean() - shape.ppf(chances)) / shape.std()


def _mix(share: float, same: np.ndarray, own: np.ndarray) -> np.ndarray:
    return math.sqrt(share) * same + math.sqrt(1 - share) * own


def true_spread(truth: Truth, examples: int, rng: np.random.Generator) -> tuple[float, float]:
    """Standard deviation of the last comparison's per-seed differences; standard error due to its test set."""
    found = []
    for _ in range(10):
        control, arms, _ = simulate(truth, 60, examples, 0.0, rng)
        found.append(summary(arms[-1, -1] - control[-1]))
    return tuple(math.sqrt(np.mean([getattr(one, key) ** 2 for one in found])) for key in ("spread", "example_error"))


def judge(truth: Truth, nulls: Sequence[Paired], better: Paired, own: Sequence[Paired], margin: float) -> dict:
    """What the rules that ship get wrong in one report, and what they find."""

    def says(family: Sequence[Paired], at_margin: float) -> list[str | None]:
        adjusted = holm([one.p for one in family])
        return [verdict(p, at_margin, one.difference, one.n) for p, one in zip(adjusted, family)]

    said = says([*nulls[:-1], better], at_margin := equivalence(better, margin))[-1]
    return {
        "false": any(word in ("helps", "hurts") for word in says(nulls, 1.0)),
        "covered": np.mean([one.low <= 0 <= one.high for one in nulls]),
        "found": said == "helps",
        "tost": at_margin < ALPHA,
        "inside": -margin < better.low and better.high < margin,
        "equivalent": said == "equivalent",
        "own": np.mean([one.low <= level <= one.high for one, level in zip(own, truth.levels)]),
    }


def compete(matrices: Sequence[np.ndarray], nulls: Sequence[Paired], weights: tuple | None, slow: bool) -> dict:
    """What the methods that were not chosen get wrong in one report; the slow ones only if asked."""
    rows = np.array([matrix.mean(axis=1) for matrix in matrices])
    p = {"seeds only": [summary(row).p for row in rows], "Satterthwaite": [_satterthwaite(one) for one in nulls]}
    if slow:
        settings = {
            "permutation_type": "samples",
            "vectorized": True,
            "n_resamples": 2000,
            "axis": -1,
            "random_state": 0,
        }
        p["sign flip"] = stats.permutation_test((rows,), np.mean, **settings).pvalue
    if slow and weights:
        means = np.array([weighted_means(matrix, weights) for matrix in matrices])
        p["bootstrap"] = 2 * np.minimum((means <= 0).mean(axis=1), (means >= 0).mean(axis=1))
    wrong = {f"false, {name}": min(values) * len(matrices) < ALPHA for name, values in p.items()}
    return wrong | {f"covered, {name}": np.mean(np.array(values) >= ALPHA) for name, values in p.items()}


def _satterthwaite(paired: Paired) -> float:
    if paired.standard_error == 0:
        return paired.p
    seeds, test = paired.spread**2 / paired.n, paired.example_error**2
    freedom = (seeds + test) ** 2 / (seeds**2 / (paired.n - 1) + test**2 / (paired.examples - 1))
    return 2 * special.stdtr(freedom, -abs(paired.difference) / paired.standard_error)


def measure(truth: Truth, seeds: int, examples: int, reports: int, seed: int = 0) -> dict[str, Any]:
    """The rate of each of RATES over simulated reports with its standard error, and the test set's share."""
    rng = np.random.default_rng([seed, seeds, examples, *truth.name.encode()])
    spread, example_error = true_spread(truth, examples, rng)
    weights = bootstrap_weights(seeds, examples, 1000, seed) if examples < SLOW_EXAMPLES else None
    seen = {name: [] for name in RATES}
    for report in range(reports):
        control, arms, lifted = simulate(truth, seeds, examples, 2 * spread, rng)
        matrices = list((arms - control).reshape(-1, seeds, examples))
        nulls = [summary(matrix) for matrix in matrices]
        own = [summary(scores) for scores in control]
        found = judge(truth, nulls, summary(lifted - control[-1]), own, 2 * spread)
        found |= compete(matrices, nulls, weights, slow=report < SLOW_REPORTS)
        for name in found.keys() & seen.keys():
            seen[name].append(found[name])
    rates = {name: (np.mean(own), np.std(own) / math.sqrt(len(own))) for name, own in seen.items() if own}
    share = example_error**2 / (example_error**2 + spread**2 / seeds)
    return {"truth": truth.name, "seeds": seeds, "examples": examples, "share": share, "rates": rates}


def calibrate(
    truths: Iterable[Truth], seeds: Sequence[int], examples: Sequence[int], reports: int, seed: int = 0
) -> Iterator[list[dict[str, Any]]]:
    """What `measure` says of each truth and number of seeds, one for each number of test examples."""
    for truth in truths:
        for n in seeds:
            yield [measure(truth, n, size, reports // (1 + (size >= SLOW_EXAMPLES)), seed) for size in examples]


def cells(row: Sequence[dict[str, Any]], name: str) -> str:
    """Rates with their standard errors, in percent, in the order of the numbers of examples."""
    found = [one["rates"].get(name) for one in row]
    return " / ".join("-" if one is None else f"{100 * one[0]:.1f}±{100 * one[1]:.1f}" for one in found)


def misses(one: dict[str, Any]) -> list[str]:
    """The targets that a measurement misses by more than two standard errors."""
    bounds = TARGETS | ({"found": (0.9, 1)} if one["seeds"] == 10 else {})
    where = f"{one['truth']}, S {one['seeds']}, N {one['examples']}, test set's share {one['share']:.0%}"
    return [
        f"{RATES[name]} {one['rates'][name][0]:.1%} ({where})"
        for name, (low, high) in bounds.items()
        if not low - 2 * one["rates"][name][1] <= one["rates"][name][0] <= high + 2 * one["rates"][name][1]
    ]


def main() -> None:
    """Print the table, row by row, then what is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=1000, help="a row; half of them with 10,000 examples")
    parser.add_argument("--small", action="store_true", help="two truths, two numbers of examples, 100 reports")
    parser.add_argument("--clusters", action="store_true", help="only test examples in clusters; 2/5 of the reports")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.clusters:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from scripts.calibrate_clusters import GRID, SMALL, table

        start, reports = time.monotonic(), 100 if options.small else options.reports * 2 // 5
        for line in table(SMALL if options.small else GRID, reports, options.seed):
            print(line, flush=True)
        print(f"\n{time.monotonic() - start:.0f} s")
        return
    examples = (200, 1000) if options.small else (200, 1000, 10_000)
    grid = (TRUTHS[:2], (5, 10), examples, 100) if options.small else (TRUTHS, (5, 10, 20), examples, options.reports)
    start = time.monotonic()
    print(f"Percent ± its standard error, at N = {' / '.join(map(str, examples))} test examples.\n")
    print("| truth | S | test set's share | " + " | ".join(RATES.values()) + " |")
    print("| --- " * (3 + len(RATES)) + "|")
    measured = []
    for row in calibrate(*grid, options.seed):
        share = " / ".join(f"{100 * one['share']:.0f}" for one in row)
        words = [row[0]["truth"], str(row[0]["seeds"]), share, *(cells(row, name) for name in RATES)]
        print("| " + " | ".join(words) + " |", flush=True)
        measured += row
    missed = [f"- {miss}" for one in measured for miss in misses(one)]
    print("\nMissed by more than two standard errors:", *missed, sep="\n")
    print(f"\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
