"""Measure the error rates of transfer.seeds=auto, whose seeds are added in looks, in simulations with known truth.

    OMP_NUM_THREADS=1 python scripts/calibrate_looks.py      # about ten minutes
    python scripts/calibrate_looks.py --small                # a few seconds

The populations are those of `calibrate.py`, with looks at 5, 10, 15 and 20 seeds. A report has eight comparisons with
no difference; it stops when every verdict is settled, where a difference of 2 standard deviations of the per-seed
differences is the margin. A second report has four comparisons that are all better by this margin.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.calibrate import TRUTHS, Truth, simulate, true_spread

from warmstart.report.looks import SETTLED, Looks
from warmstart.report.paired import equivalence, holm, summary, verdict

PLANNED = (5, 10, 15, 20)
CLAIMS = ("helps", "hurts")
BETTER = 4  # comparisons with a difference
RATES = {
    "false, any look": "false helps/hurts at any look",
    "false": "at the stop",
    "false, uncorrected": "at any look, without spending",
    "covered": "interval covers at the stop",
    "covered, all looks": "at all looks",
    "equivalent": "`equivalent` at the margin, any look",
    "seeds": "seeds, no difference",
    "found": "2 sd found, all four",
    "seeds, 2 sd": "seeds, 2 sd",
}
TARGETS = {"false, any look": (0, 0.05), "false": (0, 0.05), "covered": (0.95, 1), "equivalent": (0, 0.05)}


def looks_at(matrices: Sequence[np.ndarray], margin: float, truth: float = 0.0) -> list[dict[str, Any]]:
    """Return verdicts, with and without alpha spending, and coverage at every look of a report.

    Args:
        matrices: differences (S, N) of each comparison with all seeds.
        margin: that of `equivalent`.
        truth: the true difference.
    """
    found = []
    for made, seeds in enumerate(PLANNED, start=1):
        looks = Looks(PLANNED, made)
        family = [summary(matrix[:seeds], alpha=looks.alpha) for matrix in matrices]
        equal = [looks.one_sided(equivalence(one, margin)) for one in family]

        def says(p_values: Sequence[float]) -> list[str | None]:
            adjusted = holm(p_values)
            return [verdict(p, e, one.difference, one.n) for p, e, one in zip(adjusted, equal, family)]  # noqa: B023

        found.append(
            {
                "seeds": seeds,
                "verdicts": says([looks.p(one.p) for one in family]),
                "uncorrected": says([one.p for one in family]),
                "covered": [one.low <= truth <= one.high for one in family],
            }
        )
    return found


def at_stop(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the look at which every verdict is settled, or the last."""
    return next((one for one in found if set(one["verdicts"]) <= set(SETTLED)), found[-1])


def claims(words: Sequence[str | None]) -> bool:
    """Return whether a verdict is helps or hurts."""
    return any(word in CLAIMS for word in words)


def measure(truth: Truth, examples: int, reports: int, seed: int = 0) -> dict[str, Any]:
    """Return each of RATES over simulated reports as (mean, standard error)."""
    rng = np.random.default_rng([seed, examples, *truth.name.encode()])
    spread, _ = true_spread(truth, examples, rng)
    margin, seeds, last = 2 * spread, PLANNED[-1], dataclasses.replace(truth, levels=truth.levels[-1:])
    seen: dict[str, list[float]] = {name: [] for name in RATES}
    for _ in range(reports):
        control, arms, _ = simulate(truth, seeds, examples, 0.0, rng)
        found = looks_at(list((arms - control).reshape(-1, seeds, examples)), margin)
        stop = at_stop(found)
        seen["false, any look"].append(any(claims(one["verdicts"]) for one in found))
        seen["false"].append(claims(stop["verdicts"]))
        seen["false, uncorrected"].append(any(claims(one["uncorrected"]) for one in found))
        seen["covered"].append(np.mean(stop["covered"]))
        seen["covered, all looks"].append(np.mean(np.all([one["covered"] for one in found], axis=0)))
        seen["seeds"].append(stop["seeds"])
        better = []
        for _ in range(BETTER):
            control, _, lifted = simulate(last, seeds, examples, margin, rng)
            better.append(lifted - control[0])
        found = looks_at(better, margin, margin)
        stop = at_stop(found)
        seen["equivalent"].append(np.mean(np.any([[e == "equivalent" for e in o["verdicts"]] for o in found], axis=0)))
        seen["found"].append(all(word == "helps" for word in stop["verdicts"]))
        seen["seeds, 2 sd"].append(stop["seeds"])
    rates = {name: (float(np.mean(own)), float(np.std(own) / math.sqrt(len(own)))) for name, own in seen.items()}
    return {"truth": truth.name, "examples": examples, "rates": rates}


def calibrate(truths: Sequence[Truth], examples: Sequence[int], reports: int, seed: int = 0) -> Iterator[list[dict]]:
    """Yield what `measure` returns for each truth, one for each number of test examples."""
    for truth in truths:
        yield [measure(truth, size, reports, seed) for size in examples]


def cell(row: Sequence[dict[str, Any]], name: str) -> str:
    """Return rates in percent with their standard errors, or numbers of seeds, by number of examples."""
    pairs = [one["rates"][name] for one in row]
    if name.startswith("seeds"):
        return " / ".join(f"{mean:.1f}" for mean, _ in pairs)
    return " / ".join(f"{100 * mean:.1f}±{100 * error:.1f}" for mean, error in pairs)


def misses(one: dict[str, Any]) -> list[str]:
    """Return the targets that a measurement misses by more than two standard errors."""
    return [
        f"{RATES[name]} {one['rates'][name][0]:.1%} ({one['truth']}, N {one['examples']})"
        for name, (low, high) in TARGETS.items()
        if not low - 2 * one["rates"][name][1] <= one["rates"][name][0] <= high + 2 * one["rates"][name][1]
    ]


def main() -> None:
    """Print the table, row by row, then the missed targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=1000, help="per row and number of test examples")
    parser.add_argument("--small", action="store_true", help="one truth, 200 examples, 100 reports")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    examples = (200,) if options.small else (200, 1000)
    start, missed = time.monotonic(), []
    print(f"Percent ± its standard error, at N = {' / '.join(map(str, examples))} test examples.\n")
    print("| truth | " + " | ".join(RATES.values()) + " |")
    print("| --- " * (1 + len(RATES)) + "|")
    truths, reports = (TRUTHS[:1], 100) if options.small else (TRUTHS, options.reports)
    for row in calibrate(truths, examples, reports, options.seed):
        print(f"| {row[0]['truth']} | " + " | ".join(cell(row, name) for name in RATES) + " |", flush=True)
        missed += [f"- {miss}" for one in row for miss in misses(one)]
    print("\nMissed by more than two standard errors:", *missed, sep="\n")
    print(f"\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
