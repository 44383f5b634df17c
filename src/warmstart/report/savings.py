"""What the pretraining bought: labels, steps, seconds and examples saved, and after how many tasks it is paid back."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np

from warmstart.report import paired
from warmstart.report.runs import Run, Transfer
from warmstart.report.verdicts import matrix, pairs

DRAWS = 1000
ENDS = (2.5, 97.5)


def label_multipliers(transfer: Transfer, arm: str, against: str) -> list[dict[str, Any]]:
    """How many times as many labels `against` needs to match `arm`, at each label count of the budget `steps`.

    The control's scores are interpolated on the logarithm of its labelled rows, made rising where noise lets them fall.
    What lies beyond its largest or smallest label count is only known to be more or less than that. The interval is a
    two-level bootstrap over seeds and test examples, shared by all label counts.
    """
    groups = {
        (name, labels): [run for run in transfer.group(name, "steps", labels) if run.test is not None]
        for name in (arm, against)
        for labels in transfer.labels
    }
    seeds = {tuple(run.seed for run in group) for group in groups.values()}
    if len(transfer.labels) < 2 or len(seeds) > 1 or len(next(iter(seeds))) < 2:
        return []
    rows = [groups[arm, labels][0].rows for labels in transfer.labels]
    order = np.argsort(rows)
    matrices = {key: matrix(transfer, [(run,) for run in group]) for key, group in groups.items()}
    first = next(iter(matrices.values()))
    weights = paired.bootstrap_weights(len(first), first.size // len(first), DRAWS)
    means = {key: np.append(paired.weighted_means(m, weights), m.mean()) for key, m in matrices.items()}
    control = np.maximum.accumulate(np.stack([means[against, transfer.labels[i]] for i in order]), axis=0)
    places = np.log([rows[i] for i in order])
    found = []
    for labels, count in zip(transfer.labels, rows):
        times = np.array([needed(score, control[:, d], places) for d, score in enumerate(means[arm, labels])]) / count
        low, high = np.percentile(times[:-1], ENDS, method="nearest")
        most, least = float(np.exp(places[-1]) / count), float(np.exp(places[0]) / count)
        entry = {"arm": arm, "against": against, "labels": labels}
        entry |= {"multiplier": bounded(times[-1]), "interval": [bounded(low), bounded(high)]}
        found.append({**entry, "text": multiplier_text(times[-1], low, high, least, most)})
    return found


def needed(score: float, control: np.ndarray, places: np.ndarray) -> float:
    """Labelled rows at which a rising curve reaches a score: inf above its end, 0 below its start.

    Args:
        score: to be reached.
        control: scores (K,) at `places`.
        places: logarithms of the labelled rows (K,).
    """
    if score > control[-1]:
        return math.inf
    if score < control[0]:
        return 0.0
    right = int(np.searchsorted(control, score))
    if right == 0 or control[right] == control[right - 1]:
        return float(np.exp(places[right]))
    share = (score - control[right - 1]) / (control[right] - control[right - 1])
    return float(np.exp(places[right - 1] + share * (places[right] - places[right - 1])))


def bounded(times: float) -> float | None:
    """A multiplier that was measured, or None for one beyond the labels that were tried."""
    return float(times) if 0 < times < math.inf else None


def multiplier_text(times: float, low: float, high: float, least: float, most: float) -> str:
    """The multiplier and its interval in words."""

    def word(value: float) -> str:
        if value == math.inf:
            return f"more than {most:.3g}"
        return f"less than {least:.3g}" if value == 0 else f"{value:.3g}"

    return f"{word(times)} times ({word(low)} to {word(high)})"


def time_to_target(transfer: Transfer, arm: str, against: str) -> list[dict[str, Any]]:
    """How soon each run of `arm` validates as well as the best of its seed's control, at the budget `steps`.

    Medians over seeds, where a run that never gets there counts as longer than any that does; None is never.
    """
    found = []
    for labels in transfer.labels:
        both = pairs(*(transfer.group(name, "steps", labels) for name in (arm, against)))
        if not both:
            continue
        own = [first_step(transfer, run, control.val) for run, control in both]
        theirs = [first_step(transfer, control, control.val) for _, control in both]
        entry: dict[str, Any] = {"arm": arm, "against": against, "labels": labels, "n": len(both)}
        entry["reached"] = sum(step < math.inf for step in own)
        for unit in ("steps", "seconds", "examples"):
            mine = [step * per_step(run, unit) for step, (run, _) in zip(own, both)]
            others = [step * per_step(control, unit) for step, (_, control) in zip(theirs, both)]
            entry[unit], entry[f"{unit}_against"] = finite(statistics.median(mine)), finite(statistics.median(others))
            saved = statistics.fmean(others) - statistics.fmean(mine)
            if transfer.bases:
                cost = statistics.fmean(base["cost"][unit] for base in transfer.bases)
                entry[f"tasks_to_pay_back_{unit}"] = cost / saved if saved > 0 else None
        found.append(entry)
    return found


def first_step(transfer: Transfer, run: Run, target: float) -> float:
    """The first step at which a run validates at least as well as `target`; inf where it never does."""
    values = transfer.series(run, transfer.manifest.metric)
    reached = values[transfer.sign * values >= transfer.sign * target - 1e-9]
    return float(reached.index[0] + 1) if len(reached) else math.inf


def per_step(run: Run, unit: str) -> float:
    """What a step of a run costs, in seconds, examples or steps."""
    return run.cost[unit] / max(1, run.cost["steps"])


def finite(value: float) -> float | None:
    """A number, or None for never."""
    return value if math.isfinite(value) else None
