"""What each arm costs: parameters, memory, time and bytes, what it forgets, and how it does on shifted test splits."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from typing import Any

from warmstart.core.screen import number
from warmstart.report.figure import tick
from warmstart.report.runs import Labels, Run, Transfer
from warmstart.report.verdicts import labels_text

Value = dict[str, float | None]
AMOUNTS = {  # of `cost` in run.json, with the heading of the column
    "trained_parameters": "trained parameters",
    "peak_memory_mb": "peak memory, MB",
    "seconds": "seconds",
    "together": "runs at once",
    "bytes_per_task": "bytes per task",
}
MEASURED = ("peak_memory_mb", "seconds")
LEAST = {  # what the sentence names the smallest of
    "trained_parameters": "trains the fewest parameters ({})",
    "peak_memory_mb": "takes the least memory ({} MB)",
    "seconds": "takes the least time ({} s)",
    "bytes_per_task": "saves the fewest bytes ({})",
}
SHIFTED = re.compile(r"test_(.+?)/(.+)")


def costs(transfer: Transfer) -> list[dict[str, Any]]:
    """Mean and sample standard deviation over the seeds that are done, by label count and arm, at the first budget.

    An entry has the names of AMOUNTS, `forgetting` by metric (after the finetuning minus before), and `test` by test
    split, the plain one named "", each with the metric of the report; what was not measured is left out.
    """
    return [
        row
        for labels in transfer.labels
        for arm in transfer.arms
        if (row := cost_of(transfer, arm, labels)) is not None
    ]


def cost_of(transfer: Transfer, arm: str, labels: Labels) -> dict[str, Any] | None:
    """An arm's entry, or None where none of its runs is done."""
    runs = [run for run in transfer.group(arm, transfer.budgets[0], labels) if run.test is not None]
    if not runs:
        return None
    metric = transfer.metric.removeprefix("test/")
    amounts = {name: over(runs, lambda run, name=name: run.cost.get(name)) for name in AMOUNTS}
    return {
        "arm": arm,
        "labels": labels,
        "n": len(runs),
        **{name: value for name, value in amounts.items() if value is not None},
        "forgetting": {one: over(runs, lambda run, one=one: forgotten(run, one)) for one in forgetting_metrics(runs)},
        "test": {
            "": over(runs, lambda run: run.test),
            **{shift: over(runs, lambda run, s=shift: shifted(run, s, metric)) for shift in shifts(runs, metric)},
        },
    }


def over(runs: list[Run], read: Callable[[Run], float | None]) -> Value | None:
    """Mean and standard deviation of what is known of the runs; None where nothing is."""
    known = [value for run in runs if (value := read(run)) is not None]
    if not known:
        return None
    return {"mean": statistics.fmean(known), "std": statistics.stdev(known) if len(known) > 1 else None}


def forgetting_metrics(runs: list[Run]) -> list[str]:
    """The metrics by which the runs measured what they forgot."""
    return sorted({run.record["forgetting"]["metric"] for run in runs if run.record.get("forgetting")})


def forgotten(run: Run, metric: str) -> float | None:
    """The metric of the parent's own task after the finetuning, minus that before."""
    found = run.record.get("forgetting") or {}
    if found.get("metric") != metric or found["before"] is None or found["after"] is None:
        return None
    return found["after"] - found["before"]


def shifts(runs: list[Run], metric: str) -> list[str]:
    """The shifted test splits that have the metric."""
    found = (SHIFTED.fullmatch(name) for run in runs for name in run.record["metrics"])
    return sorted({match[1] for match in found if match and match[2] == metric})


def shifted(run: Run, shift: str, metric: str) -> float | None:
    """A run's score on a shifted test split."""
    return run.record["metrics"].get(f"test_{shift}/{metric}")


def cost_section(transfer: Transfer, report: dict[str, Any]) -> dict[str, Any] | None:
    """What each arm costs, as a sentence and a table for people; None where nothing is known."""
    if not report["costs"]:
        return None
    return {"answer": cheapest(transfer, report["costs"]), "table": cost_table(report)}


def cost_table(report: dict[str, Any]) -> dict[str, Any]:
    """Columns and rows for people; a column that no arm has a value for is left out."""
    rows = report["costs"]
    metric = report["metric"].removeprefix("test/")
    columns: dict[str, list[str]] = {}
    for name, heading in AMOUNTS.items():
        columns[heading] = [amount(row.get(name)) for row in rows]
    for name in dict.fromkeys(name for row in rows for name in row["forgetting"]):
        columns[f"forgetting, {name}"] = [spread(row["forgetting"].get(name), "+.3g") for row in rows]
    splits = dict.fromkeys(name for row in rows for name in row["test"])
    for name in splits if len(splits) > 1 else ():
        columns[f"{name or 'test'} {metric}"] = [spread(row["test"].get(name), ".4g") for row in rows]
    kept = {heading: texts for heading, texts in columns.items() if set(texts) != {"-"}}
    lines = [[row["arm"], tick(row["labels"]), *texts] for row, *texts in zip(rows, *kept.values())]
    return {"columns": ["arm", "labels", *kept], "rows": lines}


def cheapest(transfer: Transfer, rows: list[dict[str, Any]]) -> str:
    """The trained arms that cost least at the fewest labels, in a sentence.

    Memory and time are compared only where as many runs were trained together in every arm.
    """
    labels = rows[0]["labels"]
    first = [row for row in rows if row["labels"] == labels and "baseline" not in transfer.config["arm"][row["arm"]]]
    crowds = [(row.get("together") or {}).get("mean") for row in first]
    parts = []
    for name, text in LEAST.items():
        known = {row["arm"]: row[name]["mean"] for row in first if row.get(name)}
        if len(set(known.values())) < 2 or (name in MEASURED and len(set(crowds)) > 1):
            continue
        least = min(known.values())
        arms = [arm for arm, value in known.items() if value == least]
        parts.append(f"{' and '.join(arms)}, which {text.format(rounded(least))}")
    if not parts:
        return "Means by arm and label count."
    return f"Cheapest with {labels_text([labels])}: {'; '.join(parts)}."


def amount(value: Value | None) -> str:
    """A mean amount, and its standard deviation where that is not too small to be seen."""
    if value is None:
        return "-"
    text, places = rounded(value["mean"]), 0 if value["mean"] >= 100 else 2
    deviation = f"{value['std'] or 0:,.{places}f}"
    return text + (f" ± {deviation}" if float(deviation.replace(",", "")) else "")


def spread(value: Value | None, form: str) -> str:
    """A mean and its standard deviation."""
    return "-" if value is None else f"{value['mean']:{form}} ± {number(value['std'], 2)}"


def rounded(value: float) -> str:
    """An amount that is read at a glance."""
    return f"{value:,.0f}" if value >= 100 else number(value, 3)
