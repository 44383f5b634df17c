"""What more labels or a longer pretraining are expected to bring, and which is cheaper."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from warmstart.core.screen import number
from warmstart.report.controls import is_constant
from warmstart.report.estimate import t_factor
from warmstart.report.power_law import Forecast, forecast
from warmstart.report.runs import Run, Transfer
from warmstart.report.verdicts import compared_rows, labels_text, matrix, unit_noun

FACTORS = (2, 4, 8)
MIN_COUNTS = 3
MIN_SEEDS = 2
FINE = 10_000  # examples that give the resolution of a metric that is no mean over examples
NAMES = ("pretraining", "labels")
LEVEL = "95 % interval "
Entry = dict[str, Any]


class Curve:
    """Scores of an arm at increasing counts: labelled rows, or steps of the pretraining.

    Args:
        counts: (K,), ascending.
        scores: (K, S) by independent unit, with the sign of the metric.
        examples: number of test examples.
    """

    def __init__(self, transfer: Transfer, groups: dict[int, list[Run]]):
        shared = set.intersection(*({run.seed for run in group if run.test is not None} for group in groups.values()))
        found = {count: [run for run in groups[count] if run.seed in shared] for count in sorted(groups)}
        values = [matrix(transfer, [(run,) for run in group]) for group in found.values() if group]
        self.mode = transfer.manifest.mode
        self.counts = list(found)
        self.scores = transfer.sign * np.array([value.reshape(len(value), -1).mean(axis=1) for value in values])
        self.examples = values[0].shape[1] if values and values[0].ndim > 1 else FINE

    @property
    def is_known(self) -> bool:
        """Whether there are enough counts and seeds, and the scores are within the bounds of such metrics."""
        if self.scores.ndim < 2 or len(self.counts) < MIN_COUNTS or self.scores.shape[1] < MIN_SEEDS:
            return False
        return bool(self.scores.min() >= 0 and (self.mode == "min" or self.scores.max() <= 1))

    @property
    def last(self) -> float:
        """Return the mean score at the largest count."""
        return float(self.scores[-1].mean())

    def at(self, *counts: float) -> list[Forecast]:
        """Return forecasts at counts above the last one."""
        return forecast(self.counts, self.scores, counts, self.mode, self.examples)


def extrapolation(transfer: Transfer) -> Entry | None:
    """Return what more labels and a longer pretraining are expected to bring, as plain JSON; None if it is unknown.

    A curve needs three counts with two seeds each. `labels` has an entry per arm that learns, at the first budget;
    `pretraining` is for the first label count, with which snapshots are finetuned. `cheaper` compares both by price.
    """
    price = {name: (transfer.rules.get("price") or {}).get(name) for name in ("label", "hour")}
    arms = [arm for arm in transfer.arms if not is_constant(transfer.config["arm"][arm])]
    found = {arm: label_curve(transfer, arm) for arm in arms}
    curves = {arm: curve for arm, curve in found.items() if curve is not None}
    steps = length_curve(transfer)
    if not curves and steps is None:
        return None
    length = None if steps is None else length_entry(transfer, steps, price["hour"])
    return {
        "budget": transfer.budgets[0],
        "price": price,
        "labels": [label_entry(arm, curve, price["label"]) for arm, curve in curves.items()],
        "pretraining": length,
        "cheaper": None if length is None else cheaper(transfer, curves.get("pretrained"), length, price),
    }


def label_curve(transfer: Transfer, arm: str) -> Curve | None:
    """Return the scores of an arm by number of labelled rows, at the first budget; None if there are too few."""
    groups: dict[int, list[Run]] = {}
    for labels in transfer.labels:
        runs = [run for run in transfer.group(arm, transfer.budgets[0], labels) if run.test is not None]
        if runs:
            groups.setdefault(runs[0].rows, runs)
    return known(transfer, groups)


def length_curve(transfer: Transfer) -> Curve | None:
    """Return the scores of the arm `pretrained` by steps of the pretraining; None if there are too few."""
    groups: dict[int, list[Run]] = {}
    for one in transfer.bases[0].get("snapshots") or [] if transfer.bases else []:
        runs = transfer.group(f"pretrained@{one['number']}", "steps", transfer.labels[0])
        if any(run.test is not None for run in runs):
            groups[one["step"]] = runs
    return known(transfer, groups)


def known(transfer: Transfer, groups: dict[int, list[Run]]) -> Curve | None:
    """Return the curve of runs by count; None if there are too few."""
    curve = Curve(transfer, groups) if len(groups) >= MIN_COUNTS else None
    return curve if curve is not None and curve.is_known else None


def entry(found: Forecast, curve: Curve, cost: float | None) -> Entry:
    """Return a forecast as plain JSON; `change` is from the mean score at the largest count."""
    return {
        "score": found.score,
        "interval": [found.low, found.high],
        "change": found.score - curve.last,
        "cost": cost,
    }


def label_entry(arm: str, curve: Curve, price: float | None) -> Entry:
    """Return the entry of an arm: its mean scores by labelled rows, and forecasts at multiples of the largest count."""
    rows = curve.counts[-1]
    forecasts = [
        {
            "factor": factor,
            "rows": factor * rows,
            **entry(found, curve, None if price is None else price * (factor - 1) * rows),
        }
        for factor, found in zip(FACTORS, curve.at(*(factor * rows for factor in FACTORS)))
    ]
    means = curve.scores.mean(axis=1).tolist()
    return {"arm": arm, "seeds": curve.scores.shape[1], "rows": curve.counts, "scores": means, "forecasts": forecasts}


def length_entry(transfer: Transfer, curve: Curve, price: float | None) -> Entry:
    """Return the entry of the pretraining: mean scores by step, and forecasts at multiples of its length.

    `hour` is the forecast for one more hour; None if that is more than FACTORS times the length. Hours are those of the
    steps: the outputs of a teacher are computed once, however long the pretraining is.
    """
    steps = curve.counts[-1]
    costs = [base["cost"] for base in transfer.bases]
    hours = float(np.mean([cost["seconds"] - cost.get("teacher_seconds", 0.0) for cost in costs])) / 3600

    def at(factor: float) -> Entry:
        more = (factor - 1) * hours
        own = entry(curve.at(factor * steps)[0], curve, None if price is None else price * more)
        return {"factor": factor, "steps": round(factor * steps), "hours": more, **own}

    return {
        "labels": transfer.labels[0],
        "seeds": curve.scores.shape[1],
        "hours": hours,
        "steps": curve.counts,
        "scores": curve.scores.mean(axis=1).tolist(),
        "forecasts": [at(factor) for factor in FACTORS],
        "hour": at(1 + 1 / hours) if hours and 1 + 1 / hours <= FACTORS[-1] else None,
    }


def cheaper(transfer: Transfer, curve: Curve | None, length: Entry, price: dict[str, float | None]) -> Entry | None:
    """Compare twice the pretraining with labels for the same money, at the first label count; None without prices.

    Gains are differences in score to the first label count, positive if better. Between label counts, scores are
    interpolated on the logarithm of the rows; beyond the last count they are forecasts. The interval of the difference
    of both gains is by MOVER, as if they were independent.

    Source: Zou, Donner (2008), "Construction of confidence limits about effect measures", Statistics in Medicine 27
    """
    if curve is None or not price["label"] or not price["hour"]:
        return None
    twice = length["forecasts"][0]
    group = transfer.group("pretrained", transfer.budgets[0], transfer.labels[0])
    start = next((run.rows for run in group if run.test is not None), None)
    if start not in curve.counts:
        return None
    more = twice["cost"] / price["label"]
    rows = min(start + more, FACTORS[-1] * curve.counts[-1])
    first = curve.scores[curve.counts.index(start)]
    if rows <= curve.counts[-1]:
        logs = np.log(curve.counts)
        gains = np.array([np.interp(math.log(rows), logs, own) for own in curve.scores.T]) - first
        reach = t_factor(len(gains)) * gains.std(ddof=1)
        by_labels = [gains.mean() + shift for shift in (0.0, -reach, reach)]
    else:
        (found,) = curve.at(rows)
        by_labels = [value - first.mean() for value in (found.score, found.low, found.high)]
    by_length = [value - length["scores"][-1] for value in (twice["score"], *twice["interval"])]
    labels, longer = (
        [transfer.sign * values[0], *sorted(transfer.sign * value for value in values[1:])]
        for values in (by_labels, by_length)
    )
    difference = longer[0] - labels[0]
    low = difference - math.hypot(longer[0] - longer[1], labels[2] - labels[0])
    high = difference + math.hypot(longer[2] - longer[0], labels[0] - labels[1])
    return {
        "labels": transfer.labels[0],
        "cost": twice["cost"],
        "hours": twice["hours"],
        "more_labels": rows - start,
        "gain_by_pretraining": {"mean": longer[0], "interval": longer[1:]},
        "gain_by_labels": {"mean": labels[0], "interval": labels[1:]},
        "difference": {"mean": difference, "interval": [low, high]},
        "cheaper": "pretraining" if low > 0 else "labels" if high < 0 else None,
    }


def sentences(report: dict[str, Any]) -> list[str]:
    """Return the findings as sentences: for the compared arms, for the pretraining, and which is cheaper."""
    found, metric = report["extrapolation"], report["metric"].removeprefix("test/")
    compared = [row[key] for row in compared_rows(report)[:1] for key in ("arm", "against")]
    entries = [one for one in found["labels"] if one["arm"] in compared] or found["labels"][:1]
    lines = []
    for one in entries:
        twice, rows = one["forecasts"][0], one["rows"][-1]
        lines.append(
            f"{one['arm']} with another {rows:,} labelled rows ({twice['rows']:,} in total): "
            f"{moved(metric, one['scores'][-1], twice)}."
        )
    length = found["pretraining"]
    if length is not None:
        at = labels_text([length["labels"]])
        for one in (length["forecasts"][0], *([length["hour"]] if length["hour"] else [])):
            text = "another hour" if one is length["hour"] else f"twice the steps ({duration(one['hours'])} more)"
            lines.append(f"pretraining for {text}, with {at}: {moved(metric, length['scores'][-1], one)}.")
    if found["cheaper"] is not None:
        lines.append(cheaper_sentence(found["cheaper"], metric))
    return lines


def moved(metric: str, score: float, one: Entry) -> str:
    """Return the expected change of a score as text."""
    cost = "" if one["cost"] is None else f", at a cost of {number(one['cost'], 3)}"
    return f"{metric} {score:.3g} is expected to become {interval_text(one['score'], one['interval'], LEVEL)}{cost}"


def interval_text(value: float, bounds: list[float], level: str = "", sign: str = "") -> str:
    """Return a value with its interval as text."""
    return f"{value:{sign}.3g} ({level}{bounds[0]:{sign}.3g} to {bounds[1]:{sign}.3g})"


def duration(hours: float) -> str:
    """Return a number of hours as text."""
    for unit, length in (("hours", 1.0), ("minutes", 1 / 60)):
        if hours >= length:
            return f"{hours / length:.3g} {unit}"
    return f"{3600 * hours:.2g} seconds"


def cheaper_sentence(one: Entry, metric: str) -> str:
    """Return which of two investments of the same money brings more."""
    by = {
        name: interval_text(one[f"gain_by_{name}"]["mean"], one[f"gain_by_{name}"]["interval"], LEVEL, "+")
        for name in NAMES
    }
    verdict = {
        "pretraining": "more pretraining is cheaper",
        "labels": "more labels are cheaper",
        None: "no significant difference",
    }[one["cheaper"]]
    labels = f"{one['more_labels']:,.0f} labels" if one["more_labels"] >= 1 else "less than one label"
    return (
        f"With {labels_text([one['labels']])}, {number(one['cost'], 3)} pays for {duration(one['hours'])} of "
        f"pretraining, an expected gain in {metric} of {by['pretraining']}, or "
        f"{labels}, {by['labels']}: {verdict}."
    )


def title(report: dict[str, Any]) -> str:
    """Return the title of the table."""
    found = report["extrapolation"]
    count = max(one["seeds"] for one in [*found["labels"], *([found["pretraining"]] if found["pretraining"] else [])])
    units = f"{count} new {unit_noun(report['rules'], count)}"
    return f"Expected {report['metric']} with more labels or steps (95% interval of the mean over {units})"


def rows_of(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the table: scores now, and forecasts with their intervals."""
    found = report["extrapolation"]
    columns = ["more of", "now", *(f"{factor} times" for factor in FACTORS)]
    lines = []
    for one in found["labels"]:
        lines.append([f"labels, {one['arm']}", f"{one['scores'][-1]:.3g} with {one['rows'][-1]:,}"])
        lines[-1] += [interval_text(other["score"], other["interval"]) for other in one["forecasts"]]
    length = found["pretraining"]
    if length is not None:
        lines.append(["pretraining", f"{length['scores'][-1]:.3g} after {length['steps'][-1]:,} steps"])
        lines[-1] += [interval_text(other["score"], other["interval"]) for other in length["forecasts"]]
    return columns, lines
