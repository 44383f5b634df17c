"""Task score by pretraining length, and the step after which more pretraining lowers it."""

from __future__ import annotations

import statistics
from typing import Any

from warmstart.report import paired
from warmstart.report.runs import Run, Transfer
from warmstart.report.verdicts import interval, matrix, pairs

ALPHA = 0.05


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
        "sentence": sentence(transfer, points, turning),
    }


def turning_point(transfer: Transfer, groups: list[list[Run]]) -> int | None:
    """Return the index of the best snapshot that is significantly better than the last one; None if there is none."""
    found = []
    for group in groups[:-1]:
        paired_runs = pairs(groups[-1], group)
        found.append(paired.summary(matrix(transfer, paired_runs)) if len(paired_runs) >= paired.MIN_UNITS else None)
    known = [index for index, one in enumerate(found) if one is not None]
    adjusted = paired.holm([found[index].p for index in known])
    worse = [i for i, p in zip(known, adjusted) if p < ALPHA and found[i].difference < 0]
    return min(worse, key=lambda index: found[index].difference, default=None)


def sentence(transfer: Transfer, points: list[dict[str, Any]], turning: int | None) -> str:
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
