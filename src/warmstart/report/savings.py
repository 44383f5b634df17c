"""Label efficiency and time savings of the pretraining, and the number of tasks after which they exceed its cost."""

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
    """Return the factor by which `against` needs more labels to match `arm`, by label count at the budget `steps`.

    The control's scores are interpolated on the logarithm of its labelled rows, after a cumulative maximum. Beyond its
    label counts only a bound is known. The interval is from a two-level bootstrap over seeds and test examples, with
    the same draws for all label counts.
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
    log_rows = np.log([rows[i] for i in order])
    found = []
    for labels, count in zip(transfer.labels, rows):
        factors = (
            np.array([required_rows(score, control[:, d], log_rows) for d, score in enumerate(means[arm, labels])])
            / count
        )
        low, high = np.percentile(factors[:-1], ENDS, method="nearest")
        upper, lower = float(np.exp(log_rows[-1]) / count), float(np.exp(log_rows[0]) / count)
        entry = {"arm": arm, "against": against, "labels": labels}
        entry |= {"multiplier": bounded(factors[-1]), "interval": [bounded(low), bounded(high)]}
        found.append({**entry, "text": multiplier_text(factors[-1], low, high, lower, upper)})
    return found


def required_rows(score: float, control: np.ndarray, log_rows: np.ndarray) -> float:
    """Return the labelled rows at which an increasing curve reaches a score; inf above its end, 0 below its start.

    Args:
        score: to reach.
        control: scores (K,) at `log_rows`.
        log_rows: logarithms of the labelled rows (K,).
    """
    if score > control[-1]:
        return math.inf
    if score < control[0]:
        return 0.0
    right = int(np.searchsorted(control, score))
    if right == 0 or control[right] == control[right - 1]:
        return float(np.exp(log_rows[right]))
    share = (score - control[right - 1]) / (control[right] - control[right - 1])
    return float(np.exp(log_rows[right - 1] + share * (log_rows[right] - log_rows[right - 1])))


def bounded(factor: float) -> float | None:
    """Return the factor, or None if it is beyond the label counts of the control."""
    return float(factor) if 0 < factor < math.inf else None


def multiplier_text(factor: float, low: float, high: float, lower: float, upper: float) -> str:
    """Return the factor and its interval as text."""

    def text(value: float) -> str:
        if value == math.inf:
            return f"more than {upper:.3g}"
        return f"less than {lower:.3g}" if value == 0 else f"{value:.3g}"

    return f"{text(factor)} times ({text(low)} to {text(high)})"


def time_to_target(transfer: Transfer, arm: str, against: str) -> list[dict[str, Any]]:
    """Return the time until runs of `arm` reach the best validation score of the control with the same seed.

    Values are medians over seeds at the budget `steps`. A run that never reaches the score counts as infinite; an
    infinite median is None.
    """
    found = []
    for labels in transfer.labels:
        paired_runs = pairs(*(transfer.group(name, "steps", labels) for name in (arm, against)))
        if not paired_runs:
            continue
        steps = [first_step(transfer, run, control.val) for run, control in paired_runs]
        control_steps = [first_step(transfer, control, control.val) for _, control in paired_runs]
        entry: dict[str, Any] = {"arm": arm, "against": against, "labels": labels, "n": len(paired_runs)}
        entry["reached"] = sum(step < math.inf for step in steps)
        for unit in ("steps", "seconds", "examples"):
            times = [step * per_step(run, unit) for step, (run, _) in zip(steps, paired_runs)]
            control_times = [step * per_step(control, unit) for step, (_, control) in zip(control_steps, paired_runs)]
            entry[unit], entry[f"{unit}_against"] = (
                finite(statistics.median(times)),
                finite(statistics.median(control_times)),
            )
            saved = statistics.fmean(control_times) - statistics.fmean(times)
            if transfer.bases:
                cost = statistics.fmean(base["cost"][unit] for base in transfer.bases)
                entry[f"tasks_to_pay_back_{unit}"] = cost / saved if saved > 0 else None
        found.append(entry)
    return found


def first_step(transfer: Transfer, run: Run, target: float) -> float:
    """Return the first step at which a run's validation score reaches `target`; inf if it never does."""
    values = transfer.series(run, transfer.manifest.metric)
    reached = values[transfer.sign * values >= transfer.sign * target - 1e-9]
    return float(reached.index[0] + 1) if len(reached) else math.inf


def per_step(run: Run, unit: str) -> float:
    """Return the cost of one step of a run, in seconds, examples or steps."""
    return run.cost[unit] / max(1, run.cost["steps"])


def finite(value: float) -> float | None:
    """Return the value, or None if it is infinite."""
    return value if math.isfinite(value) else None
