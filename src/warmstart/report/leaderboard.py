"""States of the jobs of a sweep, and its configurations ranked by the mean score over seeds."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from warmstart.report.estimate import interval
from warmstart.run.manifest import Manifest

STATES = ("done", "failed", "interrupted", "pruned", "running", "planned")
NAME_LENGTH = 80
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\n]")  # the last four are full-width = + - @


def read_jobs(manifest: Manifest, failures: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Read state, values, score (None unless done and finite), metrics and cost of every job of a sweep.

    Args:
        failures: errors of failed jobs that are not in their records, by name.
    """
    jobs = [read_job(manifest, name) for name in manifest.names()]
    for job in jobs:
        if failures and job["name"] in failures and job["state"] in ("planned", "interrupted"):
            job |= {"state": "failed", "error": failures[job["name"]]}
    return jobs


def read_job(manifest: Manifest, name: str) -> dict[str, Any]:
    """Read one job."""
    state = manifest.state(name)  # read before the record, so that the record is not older
    record = manifest.record(name) or {}
    planned = manifest.by_name.get(name)
    values = planned.values if planned else (record.get("sweep") or {}).get("values", {})
    metrics = {key: value for key, value in (record.get("metrics") or {}).items() if is_finite(value)}
    score = metrics.get(manifest.metric) if state == "done" else None
    values = {key: value if is_plain(value) else str(value) for key, value in values.items()}
    cost = record.get("cost") or {}
    return {
        "name": name,
        "state": state,
        "values": values,
        "configuration": json.dumps(without_seed(values), sort_keys=True),
        "score": score,
        "metrics": metrics,
        "seconds": cost.get("seconds"),
        "steps": cost.get("steps"),
        "error": record.get("error"),
    }


def is_finite(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def is_plain(value: Any) -> bool:
    """Return whether a value can be written to JSON and compared directly."""
    return value is None or isinstance(value, (str, bool)) or is_finite(value)


def without_seed(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that define a configuration: all but the seed and the validation fold."""
    return {key: value for key, value in values.items() if key not in ("seed", "data.fold")}


def test_metric(metric: str | None) -> str | None:
    """Return the test metric for a validation metric; it is displayed, but not used for the ranking."""
    return metric.replace("val/", "test/", 1) if metric and metric.startswith("val/") else None


def rank(
    jobs: Sequence[dict[str, Any]], metric: str | None, mode: str, seeds: int | None = None
) -> list[dict[str, Any]]:
    """Rank configurations by mean score; those with failed, pruned or unfinished runs get no rank.

    Equal means share a rank. A mean over the successful seeds only would favor configurations with failures. Sets
    `configuration` of each job to the name of its configuration.

    Args:
        seeds: number of runs that a complete configuration has; None for the number of its jobs.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        groups.setdefault(job["configuration"], []).append(job)
    used: Counter[str] = Counter()
    rows = [summarize(group, metric, used) for group in groups.values()]
    sign = -1 if mode == "max" else 1
    for row in rows:
        row["complete"] = row["mean"] is not None and row["n"] >= (seeds or sum(row["states"].values()))
    rows.sort(key=lambda row: (not row["complete"], row["mean"] is None, sign * (row["mean"] or 0.0)))
    for number, row in enumerate(rows, 1):
        row["rank"] = number if row["complete"] else None
        above = rows[number - 2] if number > 1 else None
        if above is not None and row["complete"] and math.isclose(row["mean"], above["mean"], rel_tol=1e-9):
            row["rank"] = above["rank"]
    return rows


def summarize(group: Sequence[dict[str, Any]], metric: str | None, used: Counter[str]) -> dict[str, Any]:
    """Summarize a configuration: mean and interval over finished seeds, counts of states, mean cost."""
    values = without_seed(group[0]["values"])
    name = configuration_name(values, used)
    for job in group:
        job["configuration"] = name
    scores = [job["score"] for job in group if job["score"] is not None]
    done = [job for job in group if job["state"] == "done"]
    low, high = interval(scores)
    states = Counter(job["state"] for job in group)
    return {
        "name": name,
        "values": values,
        "mean": mean(scores),
        "low": low,
        "high": high,
        "n": len(scores) if metric else len(done),
        "test": mean(job["metrics"].get(test_metric(metric)) for job in done),
        "seconds": mean(job["seconds"] for job in done),
        "states": {state: states[state] for state in STATES if states[state]},
    }


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def label(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def configuration_name(values: dict[str, Any], used: Counter[str]) -> str:
    """Return a unique folder name from the values of a configuration; duplicates get a number."""
    pieces = [
        label(value) if isinstance(value, str) else f"{key.rpartition('.')[2]}_{label(value)}"
        for key, value in values.items()
    ]
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(pieces)).lstrip(".")[:NAME_LENGTH].rstrip("-_.") or "base"
    used[name] += 1
    return name if used[name] == 1 else f"{name}~{used[name]}"


def parameters(jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return key, short name, distinct values and kind (linear, log or category) of the settings that vary."""
    keys = dict.fromkeys(key for job in jobs for key in without_seed(job["values"]))
    found = []
    for key in keys:
        values = list(dict.fromkeys(job["values"].get(key) for job in jobs))
        if len(values) < 2:
            continue
        numeric = all(is_finite(value) and not isinstance(value, bool) for value in values)
        log = numeric and min(values) > 0 and max(values) / min(values) >= 100
        kind = "log" if log else "linear" if numeric else "category"
        found.append({"key": key, "values": sorted(values) if numeric else values, "kind": kind})
    shorts = Counter(parameter["key"].rpartition(".")[2] for parameter in found)
    for parameter in found:
        short = parameter["key"].rpartition(".")[2]
        parameter["short"] = short if shorts[short] == 1 else parameter["key"]
    return found


def leaderboard_csv(rows: Sequence[dict[str, Any]], metric: str | None, show_test: bool = False) -> str:
    """Return one row per configuration as CSV, in the order of the ranking; test scores only with `show_test`."""
    keys = list(dict.fromkeys(key for row in rows for key in row["values"]))
    scores = ["metric", "mean", "low", "high", "n", *(["test"] if show_test else [])]
    columns = ["rank", "configuration", *keys, *scores, "seconds", *STATES]
    return to_csv(
        columns,
        (
            {
                **{key: row[key] for key in ("rank", "mean", "low", "high", "n", "test", "seconds")},
                **row["values"],
                **{state: row["states"].get(state, 0) for state in STATES},
                "configuration": row["name"],
                "metric": metric,
            }
            for row in rows
        ),
    )


def jobs_csv(jobs: Sequence[dict[str, Any]], show_test: bool = True) -> str:
    """Return one row per job as CSV, with all finite metrics; those of test splits only with `show_test`."""
    keys = dict.fromkeys(key for job in jobs for key in job["values"])
    metrics = dict.fromkeys(key for job in jobs for key in job["metrics"])
    metrics = [name for name in metrics if show_test or not name.startswith(("test/", "test_"))]
    columns = ["name", "configuration", "state", *keys, *metrics, "seconds", "steps", "error"]
    return to_csv(columns, ({**job, **job["values"], **job["metrics"]} for job in jobs))


def to_csv(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    """Return rows as CSV; None is an empty cell.

    A text that a spreadsheet would run as a formula (it begins with = + - @, a tab or a line end, and is no number)
    gets an apostrophe in front, as OWASP advises against CSV injection. Numbers stay as they are.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([escape(column) for column in columns])
    writer.writerows([escape(row.get(column)) for column in columns] for row in rows)
    return stream.getvalue()


def escape(cell: Any) -> Any:
    """Return a cell with normalized line ends, and with an apostrophe before text that is a formula."""
    if not isinstance(cell, str):
        return cell
    cell = cell.replace("\r\n", "\n").replace("\r", "\n")  # csv.writer does not quote a lone carriage return
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell
