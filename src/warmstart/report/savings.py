"""Label efficiency, time savings and best length of the pretraining, and the tasks after which they exceed its cost."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np

from warmstart.report import paired
from warmstart.report.looks import looks_of
from warmstart.report.runs import Run, Transfer, are_timed_alike
from warmstart.report.verdicts import estimate, interval, matrix, pairs, sampled_clusters

DRAWS = 1000
ENDS = (2.5, 97.5)


def label_multipliers(transfer: Transfer, arm: str, against: str) -> list[dict[str, Any]]:
    """Return the factor by which `against` needs more labels to match `arm`, by label count at the budget `steps`.

    The control's scores are interpolated on the logarithm of its labelled rows, after a cumulative maximum. Beyond its
    label counts only a bound is known. The interval is from a two-level bootstrap over seeds and test examples, or
    their clusters, with the same draws for all label counts.
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
    clusters = sampled_clusters(transfer) if first.ndim > 1 else None
    weights = paired.bootstrap_weights(len(first), first.size // len(first), DRAWS, clusters=clusters)
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
    """Return the labelled rows at which `control` (K,) at `log_rows` (K,) reaches a score; inf beyond, 0 before."""
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
    infinite median is None. Seconds are steps times the median time per step, and are omitted unless both arms, and for
    the cost of the pretraining also that, were measured alike.
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
        records = [run.record for pair in paired_runs for run in pair]
        for unit in ("steps", "seconds", "examples"):
            if unit == "seconds" and not are_timed_alike(records):
                continue
            times = [step * per_step(run.cost, unit) for step, (run, _) in zip(steps, paired_runs)]
            control_times = [
                step * per_step(control.cost, unit) for step, (_, control) in zip(control_steps, paired_runs)
            ]
            entry[unit] = finite(statistics.median(times))
            entry[f"{unit}_against"] = finite(statistics.median(control_times))
            saved = statistics.fmean(control_times) - statistics.fmean(times)
            if transfer.bases and (unit != "seconds" or are_timed_alike([*records, *transfer.bases])):
                cost = statistics.fmean(pretraining_cost(base["cost"], unit) for base in transfer.bases)
                entry[f"tasks_to_pay_back_{unit}"] = cost / saved if 0 < saved < math.inf else None
        found.append(entry)
    return found


def first_step(transfer: Transfer, run: Run, target: float) -> float:
    """Return the first step at which a run's validation score reaches `target`; inf if it never does."""
    values = transfer.series(run, transfer.manifest.metric)
    reached = values[transfer.sign * values >= transfer.sign * target - 1e-9]
    return float(reached.index[0] + 1) if len(reached) else math.inf


def per_step(cost: dict[str, Any], unit: str) -> float:
    """Return the cost of one step of a run, in seconds (timed after warm-up), examples or steps."""
    return cost["step_seconds"] if unit == "seconds" else cost[unit] / max(1, cost["steps"])


def pretraining_cost(cost: dict[str, Any], unit: str) -> float:
    """Return the cost of the steps of a pretraining; in seconds, with the forward passes of a teacher."""
    return cost["steps"] * per_step(cost, unit) + (cost.get("teacher_seconds", 0.0) if unit == "seconds" else 0.0)


def finite(value: float) -> float | None:
    """Return the value, or None if it is infinite."""
    return value if math.isfinite(value) else None


def length_curve(transfer: Transfer) -> dict[str, Any] | None:
    """Return scores of snapshots of the pretraining, finetuned at the first label count; None without snapshots.

    The last snapshot is compared with each earlier one, Holm-adjusted. The turning point is the best of those that are
    significantly better.
    """
    labels = transfer.labels[0]
    known = {
        one["number"]: one for one in reversed([one for base in transfer.bases for one in base.get("snapshots", [])])
    }
    points = []
    groups: list[list[Run]] = []
    for number in sorted(known):
        runs = [run for run in transfer.group(f"pretrained@{number}", "steps", labels) if run.test is not None]
        if not runs:
            continue
        losses = [
            one["val/loss"] for base in transfer.bases for one in base.get("snapshots", []) if one["number"] == number
        ]
        groups.append(runs)
        points.append(
            {
                "step": known[number]["step"],
                "generic_loss": statistics.fmean(losses),
                "score": statistics.fmean(run.test for run in runs),
                "interval": list(interval(transfer, runs)),
                "n": len(runs),
            }
        )
    if len(points) < 2:
        return None
    scratch = [run for run in transfer.group("scratch", "steps", labels) if run.test is not None]
    turning = turning_point(transfer, groups)
    return {
        "labels": labels,
        "points": points,
        "scratch": statistics.fmean(run.test for run in scratch) if scratch else None,
        "turning_step": None if turning is None else points[turning]["step"],
        "sentence": length_sentence(transfer, points, turning),
    }


def turning_point(transfer: Transfer, groups: list[list[Run]]) -> int | None:
    """Return the index of the best snapshot that is significantly better than the last one; None if there is none."""
    found = []
    for group in groups[:-1]:
        paired_runs = pairs(groups[-1], group)
        found.append(estimate(transfer, paired_runs) if len(paired_runs) >= paired.MIN_UNITS else None)
    known = [index for index, one in enumerate(found) if one is not None]
    looks = looks_of(transfer)
    adjusted = paired.holm([looks.p(found[index].p) for index in known])
    worse = [i for i, p in zip(known, adjusted) if p < paired.ALPHA and found[i].difference < 0]
    return min(worse, key=lambda index: found[index].difference, default=None)


def length_sentence(transfer: Transfer, points: list[dict[str, Any]], turning: int | None) -> str:
    """Return the finding as a sentence."""
    name, last = transfer.metric.removeprefix("test/"), points[-1]
    if turning is None:
        return f"No shorter pretraining is significantly better than all {last['step']:,} steps."
    best = points[turning]
    return (
        f"Pretraining past step {best['step']:,} lowers the task score: {name} is {best['score']:.3g} there and "
        f"{last['score']:.3g} after all {last['step']:,} steps, while the generic validation loss changes from "
        f"{best['generic_loss']:.3g} to {last['generic_loss']:.3g}."
    )
