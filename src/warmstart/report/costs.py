"""Costs by arm: trained parameters, memory, time, storage, forgetting, and scores on shifted test splits."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from typing import Any

from warmstart.core.screen import number
from warmstart.report.figure import tick
from warmstart.report.runs import Labels, Run, Transfer, are_timed_alike
from warmstart.report.verdicts import labels_text

Value = dict[str, float | None]
AMOUNTS = {  # entries of `cost` in run.json, and the column headings
    "trained_parameters": "trained parameters",
    "peak_memory_mb": "peak memory, MB",
    "step_seconds": "ms per step",
    "seconds": "seconds in all",
    "together": "runs at once",
    "bytes_per_task": "bytes per task",
}
SCALES = {"step_seconds": 1000}  # from the unit of the record to that of the table
MIN_MEASURED = 3  # runs of each arm for a comparison of times or memory
LEAST = {  # phrases for the arm with the smallest value
    "trained_parameters": "trains the fewest parameters ({})",
    "bytes_per_task": "saves the fewest bytes ({})",
}
MEASURED = {  # of costs that vary between equal runs
    "peak_memory_mb": "uses the least memory ({} MB)",
    "step_seconds": "takes the least time per step ({} ms)",
}
SHIFTED = re.compile(r"test_(.+?)/(.+)")


def costs(transfer: Transfer) -> list[dict[str, Any]]:
    """Return mean and sample standard deviation over finished seeds, by label count and arm, at the first budget.

    An entry has the keys of AMOUNTS, `forgetting` by metric (after the finetuning minus before), and `test` with the
    report's metric by test split, where "" is the original test split. Unmeasured values are omitted.
    """
    return [
        row
        for labels in transfer.labels
        for arm in transfer.arms
        if (row := cost_of(transfer, arm, labels)) is not None
    ]


def cost_of(transfer: Transfer, arm: str, labels: Labels) -> dict[str, Any] | None:
    """Return the entry of an arm; None if none of its runs is done."""
    runs = done_runs(transfer, arm, labels)
    if not runs:
        return None
    metric = transfer.metric.removeprefix("test/")
    amounts = {name: mean_std(runs, lambda run, name=name: run.cost.get(name)) for name in AMOUNTS}
    return {
        "arm": arm,
        "labels": labels,
        "n": len(runs),
        **{name: value for name, value in amounts.items() if value is not None},
        "forgetting": {
            one: mean_std(runs, lambda run, one=one: forgotten(run, one)) for one in forgetting_metrics(runs)
        },
        "test": {
            "": mean_std(runs, lambda run: run.test),
            **{shift: mean_std(runs, lambda run, s=shift: shifted(run, s, metric)) for shift in shifts(runs, metric)},
        },
    }


def done_runs(transfer: Transfer, arm: str, labels: Labels) -> list[Run]:
    """Return the finished runs of an arm at the first budget."""
    return [run for run in transfer.group(arm, transfer.budgets[0], labels) if run.test is not None]


def mean_std(runs: list[Run], read: Callable[[Run], float | None]) -> Value | None:
    """Return mean and standard deviation of the values that are not None; None if there are none."""
    known = [value for run in runs if (value := read(run)) is not None]
    if not known:
        return None
    return {"mean": statistics.fmean(known), "std": statistics.stdev(known) if len(known) > 1 else None}


def forgetting_metrics(runs: list[Run]) -> list[str]:
    """Return the metrics with which the runs measured forgetting."""
    return sorted({run.record["forgetting"]["metric"] for run in runs if run.record.get("forgetting")})


def forgotten(run: Run, metric: str) -> float | None:
    """Return the metric of the parent's task after the finetuning minus before."""
    found = run.record.get("forgetting") or {}
    if found.get("metric") != metric or found["before"] is None or found["after"] is None:
        return None
    return found["after"] - found["before"]


def shifts(runs: list[Run], metric: str) -> list[str]:
    """Return the names of the shifted test splits that have the metric."""
    found = (SHIFTED.fullmatch(name) for run in runs for name in run.record["metrics"])
    return sorted({match[1] for match in found if match and match[2] == metric})


def shifted(run: Run, shift: str, metric: str) -> float | None:
    """Return the score of a run on a shifted test split."""
    return run.record["metrics"].get(f"test_{shift}/{metric}")


def cost_section(transfer: Transfer, report: dict[str, Any]) -> dict[str, Any] | None:
    """Return sentence and table of the costs; None if there are no costs."""
    if not report["costs"]:
        return None
    rows = report["costs"]
    answer = " ".join([cheapest(transfer, rows), *teacher_sentence(transfer), *forgetting_sentence(rows)])
    return {"answer": answer, "table": cost_table(report)}


def teacher_sentence(transfer: Transfer) -> list[str]:
    """Return a sentence about the time of a pretraining with a teacher; none without a teacher."""
    known = [base["cost"] for base in transfer.bases if (base.get("cost") or {}).get("teacher_seconds") is not None]
    if not known:
        return []
    total, own = (statistics.fmean(cost[name] for cost in known) for name in ("seconds", "teacher_seconds"))
    return [f"The pretraining took {rounded(total)} s, of which {rounded(own)} s for the outputs of its teacher."]


def forgetting_sentence(rows: list[dict[str, Any]]) -> list[str]:
    """Return a sentence about the forgetting of the arms at the first label count; none if it was not measured."""
    first = [row for row in rows if row["labels"] == rows[0]["labels"]]
    found = [
        f"{row['arm']} by {value['mean']:+.3g} ({name})"
        for row in first
        for name, value in row["forgetting"].items()
        if value is not None
    ]
    return (
        [f"Finetuning changed the metric of the initial weights on their generic data: {', '.join(found)}."]
        if found
        else []
    )


def cost_table(report: dict[str, Any]) -> dict[str, Any]:
    """Return columns and rows as text, without empty columns."""
    rows = report["costs"]
    metric = report["metric"].removeprefix("test/")
    columns: dict[str, list[str]] = {}
    are_separate = not any(row.get("together") for row in rows)  # else seconds are shares of those of a group
    for name, heading in AMOUNTS.items():
        if name == "seconds" and not are_separate:
            continue
        columns[heading] = [amount(row.get(name), SCALES.get(name, 1)) for row in rows]
    for name in dict.fromkeys(name for row in rows for name in row["forgetting"]):
        columns[f"forgetting, {name}"] = [spread(row["forgetting"].get(name), "+.3g") for row in rows]
    splits = dict.fromkeys(name for row in rows for name in row["test"])
    for name in splits if len(splits) > 1 else ():
        columns[f"{name or 'test'} {metric}"] = [spread(row["test"].get(name), ".4g") for row in rows]
    kept = {heading: texts for heading, texts in columns.items() if set(texts) != {"-"}}
    lines = [[row["arm"], tick(row["labels"]), *texts] for row, *texts in zip(rows, *kept.values())]
    return {"columns": ["arm", "labels", *kept], "rows": lines}


def cheapest(transfer: Transfer, rows: list[dict[str, Any]]) -> str:
    """Return a sentence about the trained arms with the lowest costs at the first label count."""
    labels = rows[0]["labels"]
    first = [row for row in rows if row["labels"] == labels and "baseline" not in transfer.config["arm"][row["arm"]]]
    clauses = []
    for name, text in LEAST.items():
        known = {row["arm"]: row[name]["mean"] for row in first if row.get(name)}
        if len(set(known.values())) > 1:
            least = min(known.values())
            arms = [arm for arm, value in known.items() if value == least]
            clauses.append(f"{' and '.join(arms)}, which {text.format(rounded(least))}")
    runs = {row["arm"]: done_runs(transfer, row["arm"], labels) for row in first}
    for name, text in MEASURED.items():
        found = clearly_least(runs, name)
        if found is not None:
            arm, value = found
            clauses.append(f"{arm}, which {text.format(rounded(SCALES.get(name, 1) * value))}")
    if not clauses:
        return "Means by arm and label count."
    return f"Lowest costs with {labels_text([labels])}: {'; '.join(clauses)}."


def clearly_least(runs: dict[str, list[Run]], name: str) -> tuple[str, float] | None:
    """Return the arm with the least of a measured cost, and its mean, if all of its runs have less than all others.

    None if the runs were not measured alike, or an arm has fewer than MIN_MEASURED.
    """
    every = [run for group in runs.values() for run in group]
    is_alike = not any(run.cost.get("together") for run in every) and all(run.cost.get(name) for run in every)
    if not is_alike or (name == "step_seconds" and not are_timed_alike([run.record for run in every])):
        return None
    values = {arm: [run.cost[name] for run in group] for arm, group in runs.items()}
    arm = min(values, key=lambda one: statistics.fmean(values[one]), default=None)
    others = [value for one, found in values.items() if one != arm for value in found]
    if not others or min(map(len, values.values())) < MIN_MEASURED or max(values[arm]) >= min(others):
        return None
    return arm, statistics.fmean(values[arm])


def amount(value: Value | None, scale: float = 1) -> str:
    """Return mean and standard deviation of an amount as text; the latter is omitted if it rounds to 0."""
    if value is None:
        return "-"
    mean, std = scale * value["mean"], scale * (value["std"] or 0)
    text, decimals = rounded(mean), 0 if mean >= 100 else 2
    deviation = f"{std:,.{decimals}f}"
    return text + (f" ± {deviation}" if float(deviation.replace(",", "")) else "")


def spread(value: Value | None, form: str) -> str:
    """Return mean and standard deviation as text, the mean in the given format."""
    return "-" if value is None else f"{value['mean']:{form}} ± {number(value['std'], 2)}"


def rounded(value: float) -> str:
    """Return an amount as text with about three significant digits."""
    return f"{value:,.0f}" if value >= 100 else number(value, 3)
